"""What the tests of the suite share: the engines under test, and short names for what they
write."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TypeVar

from spike.storage.protocol import MUST_NOT_EXIST, SECRET, Cursor, Kind, Page, Put, RecordId

ENGINES = (os.environ["SPIKE_STORE"],) if "SPIKE_STORE" in os.environ else ("memory", "sqlite")

Item = TypeVar("Item")


def named(key: str, version: str = "", kind: Kind = SECRET) -> RecordId:
    return RecordId(kind, key, version)


def new(key: str, blob: bytes = b"sealed", generation: int = 1, kind: Kind = SECRET) -> Put:
    """A change that makes a record which is not there yet."""
    return Put(named(key, kind=kind), blob, generation, MUST_NOT_EXIST)


async def collect(scan: Callable[[Cursor | None], Awaitable[Page[Item]]]) -> list[Item]:
    """Follow a scan to its end."""
    items: list[Item] = []
    after: Cursor | None = None
    while True:
        page = await scan(after)
        items.extend(page.items)
        if page.after is None:
            return items
        assert page.after != after, "the cursor does not move"
        after = page.after
