"""Restoring a store from a system backup: records in parts, the keyring last.

    preview (by password or shards): keyring, anchor and manifest authenticated under the root key; nothing is changed
      │ confirmed
      ▼
    receive, part 0: room is made (spike.nexus.store_room)     killed from here on: the same command begins again
      │ part 1 … n: records, as they are sealed                     nothing is served: there is no keyring
      ▼
    receive, the last part: every byte was the one the manifest names; access list and one record of each kind open
      │
      ▼
    COMMIT: the keyring of the new lineage, and the mark gone, in one write; then the vault is open

Who confirmed the preview is asked nothing more. The keys wait in locked memory, for IDLE_S between two parts.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from spike.error import FormatError, InputError, StoreConflictError
from spike.lifecycle.manifest import Manifest
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.system_backup import HeldRecord
from spike.lifecycle.system_backup_reader import Parser
from spike.lifecycle.system_restore import ROTATION_REASON, Arrival, brought_up
from spike.nexus.examination import Examined, examine_store
from spike.nexus.opened import Opened
from spike.nexus.place_lineage import keep_foreign
from spike.nexus.policy_book import PolicyBook
from spike.nexus.restore_flow import RestoreDesk, raised_list
from spike.nexus.sealed import SealedStore
from spike.nexus.store_room import MARK_ID, Mark, make_room
from spike.nexus.vault import KEYRING_ID, Vault
from spike.storage.protocol import CHANGE_LIMIT, MUST_NOT_EXIST, Delete, Put, Store

PART_LIMIT_BYTES: Final = 512 << 10
"""The most one part brings, so that a request with it stays below the least limit of bodies that is usual."""
IDLE_S: Final = 60.0
BeginRotation = Callable[[str], Awaitable[str | None]]
"""Begins a rotation with a reason; returns its id, or None when none can begin now."""
_log: Final = logging.getLogger("spike.nexus.system_restore")


@dataclass(frozen=True, slots=True)
class Received:
    """How far it is. `aside`: the name of what was set aside; `opened` and `rotation` once the store is up."""

    bytes_so_far: int
    aside: str = ""
    opened: Opened | None = None
    rotation: str = ""


async def no_rotation(_reason: str) -> str | None:
    """Begin none: for a Nexus in which nothing rotates by itself."""
    return None


class SystemRestoreDesk:
    """Receives the file of one restore at a time."""

    def __init__(
        self, vault: Vault, restores: RestoreDesk, begin_rotation: BeginRotation = no_rotation
    ) -> None:
        self._vault = vault
        self._restores = restores
        self._begin_rotation = begin_rotation
        self._running: _Receiving | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._done: tuple[str, int, Received] | None = None
        vault.on_new_state.append(self.forget)

    async def receive(self, actor: str, token: str, part: int, data: bytes, last: bool) -> Received:
        """Take the next part of the file; with the last one, bring the store up.

        Raises:
            RefusalError: with the reason: EXPIRED, begin again; DAMAGED, it is not the file that was previewed.
            InputError: another part.
            StoreError: the store failed; the same restore can be begun again.
        """
        async with self._vault.lock:
            if self._done is not None and self._done[:2] == (token, part):
                return self._done[2]  # the answer was lost
            self._restores.require_locked()
            if part == 0:
                self.forget()
                found = self._restores.take(token, actor)
                self._running = _Receiving(token, found)
            running = self._running
            if running is None or (running.token, running.found.actor) != (token, actor):
                raise _expired()
            try:
                received = await self._taken(running, part, data, last)
            except InputError:
                raise
            except BaseException:
                self.forget()
                raise
        if received.opened is None:
            self._wait()
            return received
        received = await self._followed(received)
        self._done = (token, part, received)
        return received

    def forget(self) -> None:
        """Drop what is being received and wipe its keys, unless they are in force. Idempotent."""
        running, self._running = self._running, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if running is not None and not running.is_committed:
            running.found.ring.wipe()

    def _wait(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(IDLE_S, self.forget)

    async def _taken(self, running: _Receiving, part: int, data: bytes, last: bool) -> Received:
        if part == running.part and part >= 0:
            return running.received
        if part != running.part + 1 or len(data) > PART_LIMIT_BYTES:
            raise InputError("a system backup is brought part by part")
        store, found = self._vault.store, running.found
        told = running.manifest
        if part == 0:
            mark = Mark(told.store_id, told.digest)
            running.aside = await make_room(
                store, mark, self._vault.moment(), set_aside=running.set_aside
            )
            _log.warning("a system backup is being restored for %s", found.actor)
        try:
            for records in running.parser.feed(data):
                await _put(store, records)
        except (FormatError, StoreConflictError) as error:
            raise _another_file(error.message) from error
        running.part, running.size_bytes = part, running.size_bytes + len(data)
        running.received = Received(running.size_bytes, running.aside)
        if last:
            opened = await self._commit(running)
            running.received = Received(running.size_bytes, running.aside, opened)
        return running.received

    async def _commit(self, running: _Receiving) -> Opened:
        """Hold all of the file against the manifest that was authenticated, and begin the new life."""
        vault, found = self._vault, running.found
        try:
            summary = running.parser.summary()
        except FormatError as error:
            raise _another_file(error.message) from error
        if summary.manifest.raw != running.manifest_raw:
            raise _another_file("its manifest is another one")
        await examine_store(SealedStore(vault.store, found.ring))
        mark = await vault.store.get(MARK_ID)
        if mark is None:
            raise RefusalError(Reason.BUSY, "the store was changed meanwhile", "run it again")
        arrival = Arrival(
            vault.moment(), found.actor, found.tried.chosen.slot, secrets.token_hex(16)
        )
        following = brought_up(found.ring, running.manifest, arrival, found.accepted)
        ring = found.ring.replaced(following)
        sealed = SealedStore(vault.store, ring)
        policies = await PolicyBook.load(sealed)
        raised = raised_list(found, policies, sealed)
        for state in vault.places:
            await keep_foreign(state.place, following.store_id, following.lineage)
        try:
            revision, raw = await vault.replace_keyring(
                ring, MUST_NOT_EXIST, beside=(*raised, Delete(mark.id, mark.revision))
            )
        except StoreConflictError as error:
            raise RefusalError(
                Reason.BUSY, "the store was changed meanwhile", "run it again"
            ) from error
        running.is_committed = True
        for each in found.accepted:
            _log.critical("%s has accepted an older store: %s", found.actor, each.message)
        if raised:
            policies = await PolicyBook.load(sealed)
        return await vault.open_with(ring, revision, raw, policies)

    async def _followed(self, received: Received) -> Received:
        """Let a rotation follow. What keeps it from beginning does not take back what was restored."""
        try:
            begun = await self._begin_rotation(ROTATION_REASON)
        except Exception:  # noqa: BLE001  the store is up, whatever this meets
            _log.exception("the rotation that follows a restore did not begin")
            begun = None
        return Received(received.bytes_so_far, received.aside, received.opened, begun or "")


class _Receiving:
    """One restore while its file comes. Owns the ring of `found` until it is committed."""

    def __init__(self, token: str, found: Examined) -> None:
        system = found.system
        assert system is not None  # `RestoreDesk.take` gives nothing else
        self.token = token
        self.found = found
        self.manifest: Manifest = system.manifest
        self.manifest_raw = system.manifest_raw
        self.set_aside = system.set_aside
        self.parser = Parser()
        self.part = -1
        self.size_bytes = 0
        self.aside = ""
        self.received = Received(0)
        self.is_committed = False


async def _put(store: Store, records: Sequence[HeldRecord]) -> None:
    puts = [
        Put(each.id, each.blob, each.generation, MUST_NOT_EXIST)
        for each in records
        if each.id not in (KEYRING_ID, MARK_ID)
    ]
    for begin in range(0, len(puts), CHANGE_LIMIT):
        await store.apply(puts[begin : begin + CHANGE_LIMIT], fence=None)


def _another_file(why: str) -> RefusalError:
    return RefusalError(
        Reason.DAMAGED,
        f"this is not the file that was previewed: {why}",
        "run the same command again; nothing is served until it has ended",
    )


def _expired() -> RefusalError:
    return RefusalError(Reason.EXPIRED, "this restore is no longer awaited", "run it again")
