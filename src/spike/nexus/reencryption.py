"""Re-encryption: every record that is sealed under one record key goes over to the active one, while requests go on.

    read a batch ─► tell apart by header ─► open, seal, open again, compare ─► compare-and-swap ─► the next
                                                                                 └ with the progress, in one write

* **Nothing is lost.** A record is replaced only at the revision it was read at. Where a writer was quicker, he has won:
  his record is looked at again, and the rest of the batch is written without it.
* **It goes on where it was.** Cursor and counts are one sealed record, written in the same `apply` as the batch. Killed
  or cancelled anywhere, also while a write is under way, a new one with the same id goes on from what the store holds.
* **A change of keys** refuses the batch by its epoch; it is written again under the keyring in force, or, if other keys
  are active, made anew.
* **The store not answering** is waited for, and told in `trouble`; whether an unanswered write was done is read.

What is behind the cursor is under the active key, or named: no honest writer of this process puts a record under the
old key there. Every write of a sealed record names the epoch of the ring it was sealed with (SealedStore.apply), the
flip raises the store's fence in the very write that makes the new key active, and from then on the store refuses what
names the epoch before. The only writes without an epoch stand beside a keyring (Vault.replace_keyring) and are bound to
the revision of the one before. So a record under the old key that appears behind the cursor was put there past SPIKE:
`sweep` names it and sets it aside. In front of the cursor such a row cannot be told from an honest one, and after
progress was deleted from the store neither: what tells an old row of a secret is its metadata, not its key.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import Final, TypeVar

from spike.error import (
    FenceError,
    FormatError,
    NotReadyError,
    OpenError,
    RefusedError,
    SettingError,
    SpikeError,
    StoreConflictError,
    StoreUnavailableError,
)
from spike.lifecycle.progress import (
    Progress,
    begun,
    decode_progress_untrusted,
    encode,
    finished,
    merged,
)
from spike.nexus.opened import Stop
from spike.nexus.record_check import SEALED_KINDS, header_generation
from spike.nexus.reencryption_batch import Batch, Position, Reader, position_of
from spike.nexus.reencryption_desk import ChildResealer
from spike.nexus.reencryption_pace import Limits, WalkPace
from spike.nexus.reencryption_seal import (
    DamagedKeyError,
    LocalResealer,
    Passage,
    Resealer,
    ResealerLostError,
    passage_of,
)
from spike.nexus.vault import Vault
from spike.storage.protocol import MUST_NOT_EXIST, PROGRESS, Put, RecordId, Revision

CHILD_FROM: Final = 2_000
"""So many records are worth a process of their own, which takes a third of a second to start."""
_LOST_LIMIT: Final = 3
_DELAY_S: Final = 0.02
_DELAY_LIMIT_S: Final = 5.0
_log = logging.getLogger("spike.nexus.reencryption")
_Result = TypeVar("_Result")
_Write = Callable[[], Awaitable[tuple[Revision, ...]]]
Perform = Callable[[_Write], Awaitable[tuple[Revision, ...]]]
"""Performs the write of one batch."""


async def _performed(write: _Write) -> tuple[Revision, ...]:
    return await write()


class Reencryption:
    """One walk, of one rotation. One at a time; `run` may be cancelled at any await."""

    def __init__(
        self,
        vault: Vault,
        rotation_id: str,
        before: int,
        limits: Callable[[], Limits],
        *,
        pace: WalkPace | None = None,
        child_from: int = CHILD_FROM,
        perform: Perform | None = None,
    ) -> None:
        """`before`: the generation of the record key that is being replaced. `limits` is asked for each batch."""
        self._vault = vault
        self._before = before
        self._pace = pace or WalkPace(lambda: vault.served, limits, time=_now_s)
        self._child_from = child_from
        self._perform = perform or _performed
        self._id = RecordId(PROGRESS, rotation_id, str(before))
        self._progress = begun(rotation_id, before, 0)
        self._revision: Revision | None = None
        self._resealer: Resealer | None = None
        self._lost = 0
        self._delay_s = _DELAY_S
        self.trouble = ""
        """Why it does not go on just now; empty while it does."""

    @property
    def progress(self) -> Progress:
        """How far it has come, as last written; look whenever you like."""
        return self._progress

    async def run(self) -> Progress:
        """Go on until everything has been looked at; return the progress then. An earlier run that ended with
        failures is begun anew.

        Raises:
            RefusedError: generation `before` is the active one.
            StoreCorruptError: the store cannot be read on.
            NotReadyError: the vault was closed.
        """
        await self._patient(self._load)
        try:
            while not self._progress.ended:
                try:
                    await self._walk()
                except (ResealerLostError, DamagedKeyError) as error:
                    await self._recover(error)
        finally:
            await self._let_go()
        return self._progress

    async def _load(self) -> None:
        found, self._revision = await self._stored()
        if found is None or (found.ended and found.failed):
            # What failed may have been put right since: then it is looked for anew.
            census = await self._vault.store.census()
            expected = sum(n for (kind, _), n in census.items() if kind in SEALED_KINDS)
            found = begun(self._id.key, self._before, expected)
        self._progress = found

    async def _stored(self) -> tuple[Progress | None, Revision | None]:
        """Return the progress as stored, and where it is; None for what nothing of SPIKE wrote."""
        sealed = self._vault.opened.sealed
        record = await sealed.fetch(self._id)
        if record is None:
            return None, None
        try:
            found = decode_progress_untrusted(sealed.open(record))
        except (OpenError, FormatError):
            found = None
        old = header_generation(record.blob) == self._before
        if found is None or old or (found.rotation, found.before) != (self._id.key, self._before):
            _log.critical("the progress of re-encryption %s is not what was written", self._id.key)
            return None, record.revision
        return found, record.revision

    async def _walk(self) -> None:
        """Go on with the keys in force until all is done or others are in force."""
        await self._writable()
        passage = self._passage()
        start = position_of(self._progress.kind, self._progress.cursor)
        if passage is None or start is None:
            await self._finish()
            return
        resealer = await self._resealer_for(passage)
        known = sorted(self._vault.opened.ring.record_generations)
        reader = Reader(self._vault.store, self._id, known)
        reading: asyncio.Task[Batch] | None = asyncio.create_task(
            self._read(reader, passage, start)
        )
        sealing: asyncio.Task[Batch] | None = None
        whole = False
        try:
            while reading is not None:
                read, before = await reading, sealing
                reading = self._reading_on(reader, read)
                sealing = asyncio.create_task(self._seal(reader, resealer, read))
                if before is not None and not await self._commit(reader, await before):
                    return
            whole = sealing is None or await self._commit(reader, await sealing)
        finally:
            await _dropped([reading, sealing])
            if not whole:
                await self._let_go()  # it may owe an answer to a question nobody asks any more

    def _reading_on(self, reader: Reader, read: Batch) -> asyncio.Task[Batch] | None:
        """Read one batch ahead of the one being sealed, and two ahead of the one being written.

        Each of the three is work for another thread or process.
        """
        if read.following is None:
            return None
        return asyncio.create_task(self._read(reader, read.passage, read.following))

    async def _read(self, reader: Reader, passage: Passage, position: Position) -> Batch:
        limit = await self._pace.permit()
        began = _now_s()
        batch = await self._patient(lambda: reader.read(passage, position, limit))
        batch.took_s = _now_s() - began
        return batch

    async def _seal(self, reader: Reader, resealer: Resealer, batch: Batch) -> Batch:
        await self._patient(lambda: reader.seal(resealer, batch))
        self._vault.seal_count.record[batch.passage.after] += len(batch.puts)
        return batch

    def _passage(self) -> Passage | None:
        document = self._vault.opened.document
        if self._vault.opened.ring.active_record.generation == self._before:
            raise RefusedError(f"record key {self._before} is the active one: nothing leaves it")
        return passage_of(document, self._before)

    async def _finish(self) -> None:
        """End the walk: there is no key any more that anything could be taken from."""
        while not self._progress.ended:
            await self._write(finished(self._progress), ())

    async def _commit(self, reader: Reader, batch: Batch) -> bool:
        """Write a batch together with the progress; False when the walk has to begin anew from the progress."""
        began = _now_s()
        while self._passage() == batch.passage:
            batch.count.re_encrypted = len(batch.puts)
            written = await self._write(self._after(batch), batch.puts)
            if written is _Written.DONE:
                self._pace.note(batch.count.scanned, batch.took_s + _now_s() - began)
                return True
            if written is _Written.ELSEWHERE:
                return False
            if written is _Written.OVERTAKEN:
                await self._patient(lambda: reader.step_aside(batch))
        return False

    def _after(self, batch: Batch) -> Progress:
        following = batch.following
        kind, cursor = ("", "") if following is None else (following.kind, following.cursor or "")
        rate = self._pace.rate_per_s or self._progress.rate_per_s
        after = merged(self._progress, batch.count, kind, cursor, rate)
        return finished(after) if following is None else after

    async def _write(self, after: Progress, puts: Sequence[Put]) -> _Written:
        """Try once to write records and progress. THE COMMIT LINE of each of these records."""
        await self._writable()
        opened = self._vault.opened
        expected = MUST_NOT_EXIST if self._revision is None else self._revision
        own = opened.sealed.put(self._id, encode(after), expected)
        try:
            # The progress last: where an engine writes one by one, it never says more than is true.
            revisions = await self._perform(lambda: opened.sealed.apply((*puts, own)))
        except FenceError as error:
            await self._vault.settled()
            if self._vault.opened.sealed is opened.sealed:
                await self._wait_out(error)  # not this process has raised it
            return _Written.NOT
        except StoreConflictError:
            return await self._patient(lambda: self._conflicting(after))
        except StoreUnavailableError as error:
            # Perhaps it was written and only the answer was lost: then the next attempt conflicts with itself.
            await self._wait_out(error)
            return _Written.NOT
        return self._take(after, revisions[-1])

    async def _conflicting(self, after: Progress) -> _Written:
        """Tell what a refused write met: another record, or a progress that is not the one it was to replace."""
        stored, revision = await self._stored()
        if revision == self._revision:
            return _Written.OVERTAKEN
        self._revision = revision
        if stored is None or revision is None or not _is_further(stored, self._progress):
            return _Written.NOT
        # Ours, whose answer was lost, or that of an earlier run which was cancelled while it was under way.
        self._take(stored, revision)
        same = (stored.kind, stored.cursor, stored.ended) == (after.kind, after.cursor, after.ended)
        return _Written.DONE if same else _Written.ELSEWHERE

    def _take(self, after: Progress, revision: Revision) -> _Written:
        self._progress, self._revision = after, revision
        self.trouble, self._delay_s = "", _DELAY_S
        return _Written.DONE

    async def _writable(self) -> None:
        """Wait while writes are stopped."""
        while stops := self._vault.stops:
            await self._wait_out(NotReadyError(f"writes are stopped: {', '.join(sorted(stops))}"))

    async def _patient(self, act: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do something that only reads, and again as long as the store does not answer."""
        while True:
            try:
                return await act()
            except StoreUnavailableError as error:
                await self._wait_out(error)

    async def _wait_out(self, error: SpikeError) -> None:
        """Wait, longer each time until something is written, and say why."""
        if self.trouble != error.message:
            _log.warning("re-encryption %s waits: %s", self._id.key, error.message)
        self.trouble = error.message
        await asyncio.sleep(self._delay_s)
        self._delay_s = min(2 * self._delay_s, _DELAY_LIMIT_S)

    async def _resealer_for(self, passage: Passage) -> Resealer:
        if self._resealer is not None and self._resealer.passage == passage:
            return self._resealer
        await self._let_go()
        left = self._progress.expected - self._progress.scanned
        if left >= self._child_from and self._lost < _LOST_LIMIT:
            try:
                self._resealer = await ChildResealer.start(passage, self._vault.opened.ring)
            except SettingError as error:
                _log.warning("re-encryption runs without a process of its own: %s", error.message)
        if self._resealer is None:
            self._resealer = LocalResealer(passage, lambda: self._vault.opened.ring)
        return self._resealer

    async def _recover(self, error: ResealerLostError | DamagedKeyError) -> None:
        await self._let_go()
        self._lost += 1
        if isinstance(error, DamagedKeyError) and self._vault.opened.ring.mismatches():
            self._vault.stop_writes(Stop.WRONG_KEY)
        await self._wait_out(error)

    async def _let_go(self) -> None:
        resealer, self._resealer = self._resealer, None
        if resealer is not None:
            await resealer.close()


class _Written(Enum):
    """What became of an attempt to write a batch."""

    DONE = auto()
    NOT = auto()
    """Nothing was written; the same may be tried again."""
    OVERTAKEN = auto()
    """Nothing was written: a record is not at the revision it was read at."""
    ELSEWHERE = auto()
    """Nothing was written: the progress is further than was known."""


async def _dropped(tasks: Sequence[asyncio.Task[Batch] | None]) -> None:
    """End tasks whose results nobody wants."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)


def _is_further(one: Progress, other: Progress) -> bool:
    return (one.scanned, one.ended) > (other.scanned, other.ended)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
