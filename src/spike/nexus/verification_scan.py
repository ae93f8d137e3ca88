"""What every part of a verification does: read in small pages, give way to requests, count each record once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection
from typing import Final

from spike.lifecycle.census import BadReason, Tally
from spike.lifecycle.keyring import Keyring
from spike.nexus.pace import Pace
from spike.nexus.record_check import (
    GONE,
    Outcome,
    Sound,
    Unsound,
    examine,
    finding_of,
    record_generations,
)
from spike.nexus.sealed import SealedStore
from spike.nexus.vault import Vault
from spike.storage.protocol import Kind, Record, RecordId, Store

_PAGE_BYTES: Final = 64 << 10
_PAGE_RECORDS: Final = 64


class Scan:
    """The store, the keys in force and the tally of one pass.

    `sealed` gives the store as it is to be opened; without it with the keys of the vault as they are at each moment.
    """

    def __init__(
        self,
        vault: Vault,
        tally: Tally,
        pace: Pace,
        sealed: Callable[[], SealedStore] | None = None,
    ) -> None:
        self.vault = vault
        self.tally = tally
        self.pace = pace
        self._sealed = sealed or (lambda: vault.opened.sealed)
        self._known: Collection[int] = record_generations(vault.opened.document)

    @property
    def store(self) -> Store:
        """The store itself."""
        return self.vault.store

    async def settled_document(self) -> Keyring:
        """Return the keyring in force, when none is taking another's place."""
        await self.vault.settled()
        return self.vault.opened.document

    async def records(self, kind: Kind) -> AsyncIterator[Record]:
        """Give every record of a kind in the order of keys and versions, as it was when its page was read."""
        after, limit = None, 1
        while True:
            page = await self.store.scan(kind, "", after, limit)
            for record in page.items:
                await self.pace.give_way()
                yield record
            after = page.after
            if after is None:
                return
            limit = _next_limit(page.items, limit)

    async def fetch(self, record_id: RecordId) -> Record | None:
        """Read one record again."""
        return await self.store.get(record_id)

    async def examine(self, record: Record) -> Outcome:
        """Look at a record; count it if it is bad, and in the census. Who calls counts what is sound or gone."""
        found = await examine(self._sealed, record)
        if found is GONE:
            return found
        self.tally.note_generation(
            record.id.kind, found.generation, self._known, len(found.record.blob)
        )
        if isinstance(found, Unsound):
            self.tally.note_bad(found.finding)
        return found

    async def judge(self, record: Record) -> Outcome:
        """Look at a record that another one is held against, and count nothing."""
        return await examine(self._sealed, record)

    async def count(self, record: Record) -> Sound | None:
        """Look at a record of which nothing more is wanted, and count it. None unless it is sound."""
        found = await self.examine(record)
        if found is GONE:
            self.tally.note_vanished()
        elif isinstance(found, Sound):
            self.tally.note_good()
            return found
        return None

    def bad(self, record_id: RecordId, reason: BadReason, detail: str) -> None:
        """Count a record as bad."""
        self.tally.note_bad(finding_of(record_id, reason, detail))


def _next_limit(items: Collection[Record], limit: int) -> int:
    """Return how many records make a page of a size that is read in less than a slice."""
    size_bytes = sum(len(record.blob) for record in items)
    if not items or not size_bytes:
        return limit
    return max(1, min(_PAGE_RECORDS, 2 * limit, _PAGE_BYTES * len(items) // size_bytes))
