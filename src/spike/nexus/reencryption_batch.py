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
_PAGE_BYTES: Final = 128 << 10
"""And so many bytes, where records are large."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk goes on: behind `cursor` in `kind`; None for the beginning of the kind."""

    kind: Kind
    cursor: Cursor | None


@dataclass(slots=True)
class Batch:
    """Records of one kind: `old` as read under the old key, or `puts` that replace them; `count` of the others.

    `following` is where the walk goes on; None behind the last record of the last kind.
    """

    passage: Passage
    following: Position | None
    old: list[Record] = field(default_factory=list)
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
        self._wanted = 1

    async def read(self, passage: Passage, position: Position, limit: int) -> Batch:
        """Return the batch of at most `limit` records that follows a position, told apart and not sealed yet.

        Raises:
            StoreError: the store cannot be read.
        """
        batch = Batch(passage, position)
        at: Position | None = position
        while at is not None:
            if at.cursor is None:
                self._wanted = 1  # of this kind nothing is known yet
            wanted = min(limit - batch.count.scanned, self._wanted)
            page = await self._store.scan(at.kind, "", at.cursor, wanted)
            for record in page.items:
                self._tell_apart(record, batch)
            self._adapt(page.items)
            batch.following = _following(at.kind, page.after)
            await asyncio.sleep(0)
            at = None if _is_full(batch, at.kind, limit) else batch.following
        return batch

    def _adapt(self, items: Sequence[Record]) -> None:
        """Choose how many records make a page of the right size, as far as those of the last one tell."""
        if items:
            size_bytes = sum(len(record.blob) for record in items)
            fitting = _PAGE_BYTES * len(items) // max(1, size_bytes)
            self._wanted = max(1, min(_PAGE_RECORDS, 2 * self._wanted, fitting))

    def _tell_apart(self, record: Record, batch: Batch) -> None:
        """Judge a record by the header of its blob, never by the column of the store."""
        batch.count.scanned += 1
        batch.count.size_bytes += len(record.blob)
        generation = header_generation(record.blob)
        if generation == batch.passage.before and record.id != self._own:
            batch.old.append(record)
        else:
            self._note(record.id, generation, batch.passage, batch.count)

    async def seal(self, resealer: Resealer, batch: Batch) -> None:
        """Make what is to be written in the place of a batch's old records. After a failure it can be done again.

        Raises:
            StoreError: the store cannot be read.
            DamagedKeyError, ResealerLostError: see Resealer.
        """
        if not batch.old:
            return
        done = await resealer.reseal(batch.old[0].id.kind, batch.old)
        after, count = batch.passage.after, batch.count.copy()
        puts: list[Put] = []
        for at, (record, found) in enumerate(zip(batch.old, done, strict=True)):
            if at % _PAGE_RECORDS == 0:
                await asyncio.sleep(0)
            if isinstance(found, Reason):
                again = await self._store.get(record.id)
                self._note_failed(record, again, found, batch.passage, count)
            else:
                puts.append(Put(record.id, found, after, record.revision))
        batch.puts, batch.count, batch.old = puts, count, []

    def _note_failed(
        self,
        record: Record,
        again: Record | None,
        reason: Reason,
        passage: Passage,
        count: BatchCount,
    ) -> None:
        """Call a record failed only if it is still the one that was read."""
        if again is not None and again.revision == record.revision:
            count.note(Outcome.FAILED, reason, *_name(record.id))
        else:
            self._note_changed(record.id, again, passage, count)

    async def step_aside(self, batch: Batch) -> None:
        """Take out of a batch what others have changed since it was read. After a failure it can be done again.

        Raises:
            StoreError: the store cannot be read.
        """
        kept: list[Put] = []
        count = batch.count.copy()
        for position, put in enumerate(batch.puts):
            if position % _PAGE_RECORDS == 0:
                await asyncio.sleep(0)
            again = await self._store.get(put.id)
            if again is not None and again.revision == put.expected:
                kept.append(put)
            else:
                self._note_changed(put.id, again, batch.passage, count)
        batch.puts, batch.count = kept, count

    def _note_changed(
        self, record_id: RecordId, again: Record | None, passage: Passage, count: BatchCount
    ) -> None:
        if again is None:
            count.note(Outcome.VANISHED, Reason.REMOVED, *_name(record_id))
        else:
            self._note(record_id, header_generation(again.blob), passage, count)

    def _note(
        self, record_id: RecordId, generation: int, passage: Passage, count: BatchCount
    ) -> None:
        """Count a record that is not re-encrypted here, by the generation it is under."""
        name = _name(record_id)
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


def _name(record_id: RecordId) -> tuple[str, str, str]:
    return (record_id.kind, record_id.key, record_id.version)


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
