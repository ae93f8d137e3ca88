"""One batch of a re-encryption: read from the store, told apart by header, sealed anew; judged again where it lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from spike.lifecycle.census import UNKNOWN_GENERATION
from spike.lifecycle.progress import BatchCount, Outcome, Reason
from spike.nexus.record_check import SEALED_KINDS, header_generation
from spike.nexus.reencryption_pace import BATCH_BYTES
from spike.nexus.reencryption_seal import Passage, Resealer
from spike.storage.protocol import Cursor, Kind, Put, Record, RecordId, Store

WALKED: Final[tuple[Kind, ...]] = tuple(sorted(SEALED_KINDS))
"""The kinds a re-encryption goes through, in this order: every one that is sealed."""
_PAGE_RECORDS: Final = 64
"""A page is read in one piece on the event loop: so many records take a third of a millisecond."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk goes on: behind `cursor` in `kind`; None for the beginning of the kind."""

    kind: Kind
    cursor: Cursor | None


@dataclass(slots=True)
class Batch:
    """Records of one kind. `puts` replace those that were under the old key; `count` is what became of the others.

    `following` is where the walk goes on; None behind the last record of the last kind.
    """

    passage: Passage
    following: Position | None
    puts: list[Put] = field(default_factory=list)
    count: BatchCount = field(default_factory=BatchCount)
    took_s: float = 0.0


class Reader:
    """Reads batches. `own` is the record that keeps the progress itself: it is written with each batch anyway."""

    def __init__(self, store: Store, own: RecordId, known: Sequence[int]) -> None:
        """`known`: every generation of the record key that is at hand."""
        self._store = store
        self._own = own
        self._known = frozenset(known)

    async def read(self, resealer: Resealer, position: Position, limit: int) -> Batch:
        """Return the batch of at most `limit` records that follows a position, ready to be written.

        Raises:
            StoreError: the store cannot be read.
            DamagedKeyError, ResealerLostError: see Resealer.
        """
        batch = Batch(resealer.passage, position)
        old: list[Record] = []
        at: Position | None = position
        while at is not None:
            wanted = min(limit - batch.count.scanned, _PAGE_RECORDS)
            page = await self._store.scan(at.kind, "", at.cursor, wanted)
            for record in page.items:
                self._tell_apart(record, batch, old)
            batch.following = _following(at.kind, page.after)
            await asyncio.sleep(0)
            at = None if _is_full(batch, at.kind, limit) else batch.following
        await self._reseal(resealer, old, batch)
        return batch

    def _tell_apart(self, record: Record, batch: Batch, old: list[Record]) -> None:
        """Judge a record by the header of its blob, never by the column of the store."""
        batch.count.scanned += 1
        batch.count.size_bytes += len(record.blob)
        generation = header_generation(record.blob)
        if generation == batch.passage.before and record.id != self._own:
            old.append(record)
        else:
            self._note(record.id, generation, batch)

    async def _reseal(self, resealer: Resealer, old: Sequence[Record], batch: Batch) -> None:
        if not old:
            return
        done = await resealer.reseal(old[0].id.kind, old)
        for record, found in zip(old, done, strict=True):
            if isinstance(found, Reason):
                await self._judge_failed(record, found, batch)
            else:
                put = Put(record.id, found, batch.passage.after, record.revision)
                batch.puts.append(put)

    async def _judge_failed(self, record: Record, reason: Reason, batch: Batch) -> None:
        """Call a record failed only if it is still the one that was read."""
        again = await self._store.get(record.id)
        if again is not None and again.revision == record.revision:
            note_failed(batch.count, record.id, reason)
        else:
            self._note_changed(record.id, again, batch)

    async def step_aside(self, batch: Batch) -> bool:
        """Take out of a batch what others have changed since it was read; return whether there was anything."""
        kept: list[Put] = []
        for position, put in enumerate(batch.puts):
            if position % _PAGE_RECORDS == 0:
                await asyncio.sleep(0)
            again = await self._store.get(put.id)
            if again is not None and again.revision == put.expected:
                kept.append(put)
            else:
                self._note_changed(put.id, again, batch)
        lost = len(kept) < len(batch.puts)
        batch.puts = kept
        return lost

    def _note_changed(self, record_id: RecordId, again: Record | None, batch: Batch) -> None:
        name = (record_id.kind, record_id.key, record_id.version)
        if again is None:
            batch.count.note(Outcome.VANISHED, Reason.REMOVED, *name)
        else:
            self._note(record_id, header_generation(again.blob), batch)

    def _note(self, record_id: RecordId, generation: int, batch: Batch) -> None:
        """Count a record that is not re-encrypted here, by the generation it is under."""
        passage, count = batch.passage, batch.count
        name = (record_id.kind, record_id.key, record_id.version)
        if generation == passage.after or record_id == self._own:
            count.already_current += 1
        elif generation == UNKNOWN_GENERATION:
            count.note(Outcome.FAILED, Reason.MALFORMED, *name)
        elif generation == passage.before:
            count.note(Outcome.SKIPPED, Reason.CHANGED_UNDER_OLD_KEY, *name)
        elif generation in self._known:
            count.note(Outcome.SKIPPED, Reason.OTHER_GENERATION, *name)
        else:
            count.note(Outcome.SKIPPED, Reason.NO_KEY, *name)


def note_failed(count: BatchCount, record_id: RecordId, reason: Reason) -> None:
    """Count a record that could not be re-encrypted."""
    count.note(Outcome.FAILED, reason, record_id.kind, record_id.key, record_id.version)


def _is_full(batch: Batch, kind: Kind, limit: int) -> bool:
    """Whether a batch takes no more: it is of one kind, and bounded in records and bytes."""
    count, following = batch.count, batch.following
    ends = following is None or (following.kind != kind and count.scanned > 0)
    return ends or count.scanned >= limit or count.size_bytes >= BATCH_BYTES


def _following(kind: Kind, after: Cursor | None) -> Position | None:
    if after is not None:
        return Position(kind, after)
    later = [each for each in WALKED if each > kind]
    return Position(later[0], None) if later else None


def position_of(kind: str, cursor: str) -> Position | None:
    """Return the position that progress names; where its kind is not walked, the kind that follows in order."""
    if kind in WALKED:
        return Position(Kind(kind), Cursor(cursor) if cursor else None)
    later = [each for each in WALKED if each > kind]
    return Position(later[0], None) if later else None
