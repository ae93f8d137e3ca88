"""System backups out of an open vault: one moment of store, keyring and anchor, read part by part.

The moment is fixed while neither keys nor rights can change; all that was acknowledged before is in it. From then on
the snapshot of the engine shows it, whatever is written, also a rotation: both generations are in the file, and the
keyring that names both. Nothing is opened here: records leave as they are sealed.

A backup in progress holds the engine's space and a key derived for its manifest, so it ends: IDLE_S after the last
part was read, or when its reader is slower than LEAST_RATE_BYTES_S on the whole. What Nexus itself takes for a part,
and rests behind it, is not the reader's.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from spike.error import InputError, NotReadyError
from spike.lifecycle import backup
from spike.lifecycle.export import Copy
from spike.lifecycle.manifest import manifest_key
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import confirms_root
from spike.lifecycle.system_backup import Composer, HeldRecord, Moment
from spike.nexus.export_note import note_export
from spike.nexus.opened import Opened, Stop
from spike.nexus.vault import KEYRING_ID, Vault
from spike.storage.ability import CanSnapshot, Snapshot
from spike.storage.protocol import Record, Store

PART_BYTES: Final = 64 << 10
"""A part ends with the record that brings it to this size."""
IDLE_S: Final = 60.0
LEAST_RATE_BYTES_S: Final = 64 << 10
_ATTEMPTS: Final = 8
REST: Final = 8
"""Where others are served, so many times as long as a part took nothing is done: a fifth of a busy Nexus."""
_LONGEST_REST_S: Final = 1.0
_TURNS: Final = 3
_NOBODY_S: Final = 0.000_05
"""A turn of a loop with nothing else to do takes less (spike.nexus.pace)."""
_log: Final = logging.getLogger("spike.nexus.system_backup")


@dataclass(frozen=True, slots=True)
class Begun:
    """A backup that can be read; `size_bytes` is the store's size now."""

    session: str
    opened: Opened
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the file."""

    data: bytes
    last: bool


class SystemBackupDesk:
    """The backups of one vault: one at a time."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._lock = asyncio.Lock()
        self._running: _Running | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def begin(self, actor: str, place: str = "") -> Begun:
        """Fix the moment. What the same actor had begun before ends. The history is told where it goes (`place`).

        Raises:
            NotReadyError: there is no root key, or which keyring is in force is not known.
            RefusalError: BUSY, somebody else reads one; UNSUPPORTED, the engine takes no snapshots.
            StoreError: the store does not answer.
        """
        async with self._lock:
            if self._running is not None and self._running.actor != actor:
                raise RefusalError(
                    Reason.BUSY,
                    f"a system backup is being made for {self._running.actor}",
                    "try again when it is done",
                )
            await self._end()
            store = self._vault.store
            _requiring_snapshots(store)
            if self._vault.is_open:
                await note_export(self._vault, Copy.SYSTEM_BACKUP, place, actor)
            size_bytes = (await store.health()).size_bytes
            running = await self._fixed(_requiring_snapshots(store), actor)
            self._running = running
            self._wait()
            _log.warning("a system backup is being made for %s", actor)
            return Begun(running.session, running.opened, size_bytes)

    async def read(self, actor: str, session: str, part: int) -> Part:
        """Return the next part, or the last one once more.

        Raises:
            RefusalError: EXPIRED, there is no such backup of this actor, or it was read too slowly.
            InputError: another part.
            StoreError, NotReadyError: it cannot be read on; the backup has ended.
        """
        async with self._lock:
            running = self._running
            if running is None or (running.session, running.actor) != (session, actor):
                raise _expired()
            if running.is_overdue(time.monotonic()):
                await self._end()
                raise _expired()
            try:
                found = await running.part(part)
            except InputError:
                raise
            except BaseException:
                await self._end()
                raise
            self._wait()
        # Without the lock: who asks for something else does not wait for this.
        await running.rest()
        return found

    async def close(self) -> None:
        """End what is being read. Idempotent."""
        async with self._lock:
            await self._end()
        await asyncio.gather(*self._ending)

    async def _fixed(self, store: CanSnapshot, actor: str) -> _Running:
        for _ in range(_ATTEMPTS):
            await self._vault.settled()
            opened = self._vault.opened
            if not confirms_root(opened.document, opened.ring.root):
                # What a wrong key authenticates could never be restored.
                self._vault.stop_writes(Stop.WRONG_KEY)
                raise NotReadyError(f"no backup is made: {Stop.WRONG_KEY}")
            async with opened.policies.unchanging():
                running = _Running(actor, opened, await store.snapshot(), self._vault.moment())
            # A keyring that was being written in that moment may be in the snapshot and not in memory yet.
            await self._vault.settled()
            if self._vault.opened.keyring_raw == opened.keyring_raw:
                return running
            await running.close()
        raise NotReadyError("the keys change faster than a moment can be fixed")

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self._expire)

    def _expire(self) -> None:
        task = asyncio.ensure_future(self.close_if_idle())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def close_if_idle(self) -> None:
        """End what nobody has read on for IDLE_S."""
        async with self._lock:
            # A part may have been read while this waited for the lock.
            if self._running is not None and self._running.is_idle(time.monotonic()):
                _log.warning("a system backup was not read on; it has ended")
                await self._end()

    async def _end(self) -> None:
        running, self._running = self._running, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if running is not None:
            await running.close()


class _Running:
    """One backup while it is read."""

    def __init__(self, actor: str, opened: Opened, snapshot: Snapshot, at: str) -> None:
        document, root = opened.document, opened.ring.root
        self.session = secrets.token_hex(16)
        self.actor = actor
        self.opened = opened
        self._snapshot = snapshot
        self._moment = Moment(at, document, opened.policies.access_generation, snapshot.fence)
        self._key_backup = backup.encode(
            opened.keyring_raw, opened.anchor_raw(), at, document, root
        )
        self._key = manifest_key(root, document)
        self._composer = Composer()
        self._began = self._read_at = time.monotonic()
        self._sent_bytes = 0
        self._number = -1
        self._part = Part(b"", last=False)
        self._worked_s = self._own_s = 0.0
        self._was_busy = False

    def is_overdue(self, now: float) -> bool:
        """Tell whether it is read too slowly."""
        return now - self._began - self._own_s > IDLE_S + self._sent_bytes / LEAST_RATE_BYTES_S

    def is_idle(self, now: float) -> bool:
        """Tell whether nobody has read a part for IDLE_S."""
        return now - self._read_at >= IDLE_S

    async def part(self, number: int) -> Part:
        """See SystemBackupDesk.read."""
        if number == self._number:
            return self._part
        if number != self._number + 1 or self._part.last:
            raise InputError("a system backup is read part by part")
        began = time.monotonic()
        await self._look_around()
        self._part = await self._next()
        await self._look_around()
        self._worked_s = time.monotonic() - began
        self._own_s += self._worked_s
        self._number = number
        self._sent_bytes += len(self._part.data)
        self._read_at = time.monotonic()
        if self._part.last:
            await self.close()
        return self._part

    async def rest(self) -> None:
        """Wait as is due after a part that was made beside other requests; not at all where there were none."""
        rest_s, self._worked_s = self._worked_s * REST * self._was_busy, 0.0
        self._was_busy = False
        if rest_s:
            began = time.monotonic()
            await asyncio.sleep(min(rest_s, _LONGEST_REST_S))
            self._own_s += time.monotonic() - began

    async def _look_around(self) -> None:
        """Let the others have their turn, and note whether there were any."""
        for _ in range(_TURNS):
            now = time.monotonic()
            await asyncio.sleep(0)
            self._was_busy |= time.monotonic() - now > _NOBODY_S

    async def _next(self) -> Part:
        if self._number < 0:
            return Part(self._composer.head(self._key_backup), last=False)
        records = await self._snapshot.read(PART_BYTES)
        if not records:
            return Part(self._composer.end(self._moment, self._key), last=True)
        self._require_keyring(records)
        # In another thread: to copy and to digest takes longer than a request should wait.
        return Part(await asyncio.to_thread(self._composed, records), last=False)

    def _composed(self, records: Sequence[Record]) -> bytes:
        return self._composer.records([HeldRecord(r.id, r.generation, r.blob) for r in records])

    def _require_keyring(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.id == KEYRING_ID and record.blob != self.opened.keyring_raw:
                raise NotReadyError(
                    "the keyring in the store is not the one in force", "see spike status"
                )

    async def close(self) -> None:
        """Let go of the snapshot and wipe the key. Idempotent."""
        self._key.wipe()
        await self._snapshot.close()


def _requiring_snapshots(store: Store) -> CanSnapshot:
    if not isinstance(store, CanSnapshot):
        raise RefusalError(
            Reason.UNSUPPORTED,
            "this storage engine shows no single moment of a store",
            "back the engine up by its own means, and keep the key backup beside it",
        )
    return store


def _expired() -> RefusalError:
    return RefusalError(
        Reason.EXPIRED, "this system backup is over, or was read too slowly", "begin again"
    )
