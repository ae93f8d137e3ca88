"""Sealed records: what the store holds is opened and what goes to it is sealed here, and nowhere else.

Every write names the keyring epoch it was sealed under, so a write that was overtaken by a change of keys is refused by
the store itself.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final

from spike.crypto.record import RecordContext, generation_of_untrusted, open_untrusted, seal
from spike.lifecycle.ring import KeyRing
from spike.nexus.key_life import SealCount
from spike.storage.protocol import (
    ACCESS_LIST,
    ADMIN,
    HISTORY,
    PAGE_LIMIT,
    POLICY,
    PROGRESS,
    SECRET,
    SECRET_META,
    USAGE,
    Change,
    Expected,
    Kind,
    Put,
    Record,
    RecordId,
    Revision,
    Store,
)

_FIELD: Final = "value"


@dataclass(frozen=True, slots=True)
class OpenedRecord:
    """The plain text of a record, and the revision it was read at."""

    plaintext: bytes
    revision: Revision

    def __repr__(self) -> str:
        return f"OpenedRecord(revision={self.revision})"


class SealedStore:
    """A store seen through one key ring."""

    def __init__(self, store: Store, ring: KeyRing, count: SealCount | None = None) -> None:
        """See `store` through `ring`; what is sealed is counted in `count`."""
        self._count = SealCount() if count is None else count
        self._store = store
        self._ring = ring
        self._store_id = bytes.fromhex(ring.document.store_id)
        self._epoch = ring.document.epoch

    @property
    def generations(self) -> frozenset[int]:
        """The generations of the record key that open something here."""
        return self._ring.record_generations

    async def read(self, record_id: RecordId) -> OpenedRecord | None:
        """Return a record opened, or None when there is none.

        Raises:
            OpenError, FormatError: what is stored there is not this record.
        """
        record = await self._store.get(record_id)
        return None if record is None else OpenedRecord(self.open(record), record.revision)

    async def fetch(self, record_id: RecordId) -> Record | None:
        """Return a record as it is stored, still sealed, or None when there is none."""
        return await self._store.get(record_id)

    async def head(self, record_id: RecordId) -> Revision | None:
        """Return the revision of a record without opening it, or None when there is none."""
        record = await self._store.get(record_id)
        return None if record is None else record.revision

    def open(self, record: Record) -> bytes:
        """Return the plain text of a record.

        Raises:
            OpenError, FormatError: what is stored there is not this record.
        """
        key = self._ring.record(generation_of_untrusted(record.blob))
        return open_untrusted(key, self._context(record.id), record.blob)

    def put(self, record_id: RecordId, plaintext: bytes, expected: Expected) -> Put:
        """Return the change that stores `plaintext` under the active record key."""
        active = self._ring.active_record
        blob = seal(active.key, active.generation, self._context(record_id), plaintext)
        self._count.record[active.generation] += 1
        return Put(record_id, blob, active.generation, expected)

    async def apply(self, changes: Sequence[Change]) -> tuple[Revision, ...]:
        """Make all changes or none, if the keyring is still the one they were sealed under."""
        return await self._store.apply(changes, fence=self._epoch)

    async def scan(self, kind: Kind) -> AsyncIterator[tuple[Record, bytes]]:
        """Give every record of a kind, opened, in key order.

        Raises:
            OpenError, FormatError: one of them is not what it is stored as.
        """
        after = None
        while True:
            page = await self._store.scan(kind, "", after, PAGE_LIMIT)
            for record in page.items:
                yield record, self.open(record)
            after = page.after
            if after is None:
                return

    async def samples(self) -> AsyncIterator[Record]:
        """Give one record of each sealed kind the store holds, unopened."""
        for kind in _SEALED:
            page = await self._store.scan(kind, "", None, 1)
            for record in page.items:
                yield record

    def _context(self, record_id: RecordId) -> RecordContext:
        return record_context(self._store_id, record_id.kind, record_id.key, record_id.version)


def record_context(store_id: bytes, kind: str, key: str, version: str) -> RecordContext:
    """Return what the sealed record of this name is bound to. `store_id`: 16 bytes."""
    return RecordContext(store_id=store_id, kind=kind, key=key, version=version, field=_FIELD)


# All kinds but the keyring, which is a document of its own. A list, because to ask the store for the kinds it holds
# costs a look at every record.
_SEALED: Final = (ACCESS_LIST, ADMIN, HISTORY, POLICY, PROGRESS, SECRET, SECRET_META, USAGE)
