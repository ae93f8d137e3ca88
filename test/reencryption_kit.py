"""What tests of the re-encryption share: a store of every kind, one that delays, a pace of fixed bites."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable

import lifecycle_kit
from nexus_kit import RunningNexus
from proxy_store import Proxy
from spike.lifecycle import usage
from spike.lifecycle.progress import Progress, begun, encode, finished
from spike.nexus.record_check import SEALED_KINDS, header_generation
from spike.nexus.reencryption import Reencryption
from spike.nexus.reencryption_pace import Limits, WalkPace
from spike.nexus.vault import Vault
from spike.policy.rule import Permission, Policy, PolicyName
from spike.storage.protocol import (
    ADMIN,
    MUST_NOT_EXIST,
    PROGRESS,
    SECRET,
    SECRET_META,
    USAGE,
    Cursor,
    Kind,
    Page,
    Put,
    Record,
    RecordId,
    Store,
)
from spike.wire.go_time import UnixNs

ROTATION = "5e" * 16
EARLIER = "4d" * 16


class Bites(WalkPace):
    """Flat out, in batches of a fixed size."""

    def __init__(self, size: int) -> None:
        super().__init__(lambda: 0, Limits, time=asyncio.get_running_loop().time)
        self._bite = size

    async def permit(self) -> int:
        return self._bite


def walk_of(vault: Vault, *, bite: int = 5, child_from: int = 1 << 40) -> Reencryption:
    """Return a walk away from generation 1, in this process unless told otherwise."""
    return Reencryption(vault, ROTATION, 1, Limits, pace=Bites(bite), child_from=child_from)


async def flip(vault: Vault) -> None:
    """Put one more generation of the record key into force."""
    async with vault.lock:
        await vault.advance(lifecycle_kit.with_next_record(vault.opened.ring))


def policy(name: str, path: str = "^x") -> Policy:
    rights = frozenset({Permission.READ})
    return Policy(PolicyName(name), "^spiffe://a/b$", path, rights, UnixNs(1), UnixNs(2))


async def furnish(nexus: RunningNexus, secret_count: int) -> dict[str, dict[str, str]]:
    """Write records of every sealed kind; return the secrets by path."""
    opened = nexus.vault.opened
    written = {f"tenant/{n:03d}": {"k": secrets.token_hex(8)} for n in range(secret_count)}
    for path, values in written.items():
        await opened.secrets.put(path, values)
    for n in range(4):
        await opened.policies.put(policy(f"p{n}"))
    sealed = nexus.vault.opened.sealed
    earlier = encode(finished(begun(EARLIER, 9, 0)))
    await sealed.apply(
        [
            sealed.put(
                RecordId(USAGE, "current"),
                usage.encode(usage.Usage(1, lifecycle_kit.AT)),
                MUST_NOT_EXIST,
            ),
            sealed.put(RecordId(ADMIN, "one"), b"any", MUST_NOT_EXIST),
            sealed.put(RecordId(PROGRESS, EARLIER, "9"), earlier, MUST_NOT_EXIST),
        ]
    )
    return written


async def everything(store: Store) -> list[Record]:
    """Return every sealed record."""
    found: list[Record] = []
    for kind in sorted(SEALED_KINDS):
        after = None
        while True:
            page = await store.scan(kind, "", after, 1_000)
            found += page.items
            after = page.after
            if after is None:
                break
    return found


async def under(store: Store) -> Counter[int]:
    """Count the sealed records by the generation their headers name."""
    return Counter(header_generation(record.blob) for record in await everything(store))


async def plant(store: Store, record: Record, blob: bytes) -> None:
    """Put a blob into the place of a record past SPIKE: whoever writes the store knows no epoch."""
    present = await store.get(record.id)
    expected = MUST_NOT_EXIST if present is None else present.revision
    await store.put(Put(record.id, blob, record.generation, expected), fence=None)


def spoiled(record: Record) -> bytes:
    return record.blob[:-1] + bytes([record.blob[-1] ^ 1])


async def one(store: Store, kind: Kind, position: int = 3) -> Record:
    """Return some record of a kind."""
    return (await store.scan(kind, "", None, 100)).items[position]


async def checked(nexus: RunningNexus, written: dict[str, dict[str, str]]) -> None:
    """Assert that nothing is under the old key, everything is sound, and each secret what was acknowledged."""
    assert set(await under(nexus.store)) == {2}
    for path, values in written.items():
        assert await nexus.vault.opened.secrets.get(path, 0) == values
    run, _ = nexus.verifier.start("a test")
    await nexus.verifier.ended()
    assert (run.outcome, run.tally.named) == ("good", [])


def added_up(progress: Progress, total: int) -> None:
    """Assert that a walk beside which nobody wrote has counted every record once."""
    assert progress.ended
    assert progress.adds_up
    assert progress.scanned == total


class Between(Proxy):
    """A store in which something happens between the reading of a page of secrets and the writing of its batch."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.act: Callable[[Page[Record]], Awaitable[None]] | None = None

    async def scan(self, kind: Kind, prefix: str, after: Cursor | None, limit: int) -> Page[Record]:
        page = await self.real.scan(kind, prefix, after, limit)
        if self.act is not None and kind in {SECRET, SECRET_META} and page.items:
            act, self.act = self.act, None
            await act(page)
        return page
