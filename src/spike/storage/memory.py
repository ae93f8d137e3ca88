"""The engine `memory`: the same rules as every other, gone with the process. For development and
tests."""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, assert_never

from spike.error import InputError, StoreUnavailableError
from spike.storage.decision import check_changes, check_expectations, check_fence
from spike.storage.order import cursor_at, position_untrusted, prefix_end
from spike.storage.protocol import (
    PAGE_BYTE_LIMIT,
    Census,
    Change,
    Cursor,
    Delete,
    Health,
    Kind,
    Page,
    Put,
    Record,
    RecordHead,
    RecordId,
    Revision,
    SetFence,
    Store,
    check_generation,
    check_key,
    check_kind,
    check_page_limit,
)

_Position = tuple[str, str]
_State = tuple[dict[RecordId, Record], dict[Kind, list[_Position]], int, int]
"""Records, positions, the last revision, the fence."""
_FORMAT: Final = 1
_ASIDE: Final = re.compile(r"[a-zA-Z0-9-]{1,64}")


async def open_store(directory: Path) -> Store:
    """Return a new, empty store. `directory` is not used: nothing is kept."""
    del directory
    return MemoryStore()


class MemoryStore:
    """Records in dictionaries, one sorted list of positions for each kind.

    No method awaits between reading and writing, so each is atomic for the tasks of one event loop.
    """

    def __init__(self) -> None:
        self._records: dict[RecordId, Record] = {}
        self._positions: dict[Kind, list[_Position]] = {}
        self._revision = 0
        self._fence = 0
        self._aside: dict[str, _State] = {}
        self._closed = False

    async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - the field's own name
        """See Store."""
        self._check_open()
        return self._records.get(id)

    async def put(self, change: Put, *, fence: int | None) -> Revision:
        """See Store."""
        (revision,) = await self.apply((change,), fence=fence)
        return revision

    async def delete(self, change: Delete, *, fence: int | None) -> None:
        """See Store."""
        await self.apply((change,), fence=fence)

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        """See Store."""
        self._check_open()
        check_changes(changes, fence)
        check_fence(fence, self._fence)
        check_expectations(changes, self._fence, self._revision_of)
        # The commit line: from here nothing can fail.
        revisions = tuple(self._make(change) for change in changes)
        # Every other engine lets other tasks run before it answers; callers must live with that.
        await asyncio.sleep(0)
        return revisions

    async def scan(self, kind: Kind, prefix: str, after: Cursor | None, limit: int) -> Page[Record]:
        """See Store."""
        return _page(self._walk(kind, prefix, after), limit, lambda _: True)

    async def scan_key(
        self, kind: Kind, prefix: str, after: Cursor | None, limit: int
    ) -> Page[RecordHead]:
        """See Store."""
        check_page_limit(limit)
        records = list(islice(self._walk(kind, prefix, after), limit + 1))
        heads = tuple(RecordHead(it.id, it.generation, it.revision) for it in records[:limit])
        return Page(heads, cursor_at(heads[-1].id) if len(records) > limit else None)

    async def scan_generation(
        self, kind: Kind, generation: int, after: Cursor | None, limit: int
    ) -> Page[Record]:
        """See Store."""
        check_generation(generation)
        return _page(self._walk(kind, "", after), limit, lambda it: it.generation == generation)

    async def census(self) -> Census:
        """See Store."""
        self._check_open()
        return dict(Counter((it.id.kind, it.generation) for it in self._records.values()))

    async def health(self) -> Health:
        """See Store."""
        self._check_open()
        return Health(
            engine="memory",
            durable=False,
            journal="none",
            format=_FORMAT,
            size_bytes=sum(len(it.blob) for it in self._records.values()),
            reclaimable_bytes=0,
            free_bytes=None,
            fence=self._fence,
            fault="",
        )

    async def check(self) -> None:
        """See Store. There is nothing that could be damaged."""
        self._check_open()

    async def purge(self, budget_bytes: int) -> int:
        """See Store. There is no file; freed heap is outside what an engine can overwrite."""
        self._check_open()
        if budget_bytes < 1:
            raise InputError("a purge has a budget of at least 1 byte")
        return 0

    async def snapshot(self) -> MemorySnapshot:
        """See CanSnapshot. It shares the blobs, which nobody changes."""
        self._check_open()
        records = [
            self._records[RecordId(kind, *position)]
            for kind in sorted(self._positions)
            for position in self._positions[kind]
        ]
        return MemorySnapshot(self._fence, records)

    async def set_aside(self, name: str) -> None:
        """See CanSetAside. Gone with the process, like the rest."""
        self._check_open()
        if _ASIDE.fullmatch(name) is None or name in self._aside:
            raise InputError(f"{name!r} is no name for what is set aside, or is taken")
        self._aside[name] = self._replace(({}, {}, 0, 0))

    async def asides(self) -> Sequence[str]:
        """See CanSetAside."""
        self._check_open()
        return sorted(self._aside)

    async def bring_back(self, name: str, present_as: str | None) -> None:
        """See CanSetAside."""
        self._check_open()
        if name not in self._aside:
            raise InputError(f"nothing is aside under the name {name!r}")
        if present_as is not None:
            await self.set_aside(present_as)
        self._replace(self._aside.pop(name))

    async def erase(self) -> None:
        """See CanErase."""
        self._check_open()
        self._replace(({}, {}, 0, 0))

    def _replace(self, state: _State) -> _State:
        before = self._records, self._positions, self._revision, self._fence
        self._records, self._positions, self._revision, self._fence = state
        return before

    async def close(self) -> None:
        """See Store. The records are gone."""
        self._closed = True
        self._records.clear()
        self._positions.clear()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError("the store is closed")

    def _revision_of(self, id: RecordId) -> Revision | None:  # noqa: A002 - the field's own name
        record = self._records.get(id)
        return None if record is None else record.revision

    def _make(self, change: Change) -> Revision:
        self._revision += 1
        revision = Revision(self._revision)
        match change:
            case Put(id, blob, generation):
                if id not in self._records:
                    insort(self._positions.setdefault(id.kind, []), (id.key, id.version))
                # bytes() copies what could still be changed by the caller, and nothing else.
                self._records[id] = Record(id, bytes(blob), generation, revision)
            case Delete(id):
                del self._records[id]
                positions = self._positions[id.kind]
                del positions[bisect_left(positions, (id.key, id.version))]
            case SetFence(epoch):
                self._fence = epoch
            case _:
                assert_never(change)
        return revision

    def _walk(self, kind: Kind, prefix: str, after: Cursor | None) -> Iterator[Record]:
        self._check_open()
        check_kind(kind)
        check_key(prefix)
        positions = self._positions.get(kind, [])
        behind = position_untrusted(after)
        start = bisect_left(positions, (prefix, ""))
        if behind is not None:
            start = max(start, bisect_right(positions, behind))
        end = prefix_end(prefix)
        stop = len(positions) if end is None else bisect_left(positions, (end, ""))
        return (self._records[RecordId(kind, *positions[at])] for at in range(start, stop))


class MemorySnapshot:
    """See spike.storage.ability.Snapshot."""

    def __init__(self, fence: int, records: list[Record]) -> None:
        self._fence = fence
        self._left = iter(records)

    @property
    def fence(self) -> int:
        """See Snapshot."""
        return self._fence

    async def read(self, limit_bytes: int) -> Sequence[Record]:
        """See Snapshot."""
        if limit_bytes < 1:
            raise InputError("a part of a snapshot has at least 1 byte")
        found: list[Record] = []
        size_bytes = 0
        while size_bytes < limit_bytes and (record := next(self._left, None)) is not None:
            found.append(record)
            size_bytes += len(record.blob) or 1
        return found

    async def close(self) -> None:
        """See Snapshot."""
        self._left = iter(())


def _page(records: Iterator[Record], limit: int, wanted: Callable[[Record], bool]) -> Page[Record]:
    check_page_limit(limit)
    items: list[Record] = []
    size_bytes = 0
    for record in filter(wanted, records):
        if len(items) == limit or size_bytes >= PAGE_BYTE_LIMIT:
            return Page(tuple(items), cursor_at(items[-1].id))
        items.append(record)
        size_bytes += len(record.blob)
    return Page(tuple(items), None)
