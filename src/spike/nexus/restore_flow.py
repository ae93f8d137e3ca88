"""Restore by password: two calls, so that a person sees what is about to be brought back before it is.

`preview` does everything that can fail and changes nothing; what it opened waits in locked memory under a token.
`complete` commits it. The steps are those of spike.lifecycle.restore.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeGuard

from spike.error import SpikeError, StoreConflictError, StoreCorruptError
from spike.lifecycle import restore as rules
from spike.lifecycle import staleness
from spike.lifecycle.attempt import AttemptDelay
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.slot import header_of
from spike.memory.key_memory import KeyMemory
from spike.nexus.examination import (
    Asked,
    Examined,
    Tried,
    Witnesses,
    examine,
    no_witness,
    slots_in_places,
)
from spike.nexus.opened import Opened
from spike.nexus.password_child import Derive
from spike.nexus.password_desk import PasswordSession
from spike.nexus.place_search import with_newest
from spike.nexus.policy_book import PolicyBook
from spike.nexus.sealed import SealedStore
from spike.nexus.store_room import require_room
from spike.nexus.vault import KEYRING_ID, Vault
from spike.storage.protocol import MUST_NOT_EXIST, Change, Put, Record, RecordId

PREVIEW_LIFE_S: Final = 120
BeginRotation = Callable[[str], Awaitable[str | None]]
_REPLACED: Final = "replaced"
_log = logging.getLogger("spike.nexus.restore")


@dataclass(frozen=True, slots=True)
class RestoreInput:
    """What a restore by password is asked with. An empty `slot_name` is the first slot."""

    sealed_password: bytes
    slot_name: str
    asked: Asked


@dataclass(frozen=True, slots=True)
class Preview:
    """What a confirmed restore would bring back, all of it authenticated."""

    token: str
    found: Examined


class RestoreDesk:
    """Restores of one vault; at most one waits for confirmation."""

    def __init__(self, vault: Vault, witnesses: Witnesses = no_witness) -> None:
        self._vault = vault
        self._witnesses = witnesses
        self._delay = AttemptDelay()
        self._pending: Preview | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.begin_rotation: BeginRotation | None = None
        """Begins a rotation for a reason and returns its id, or None where it cannot begin now."""
        # What `complete` brings back no longer waits by then.
        vault.on_new_state.append(self.forget)

    async def preview(self, session: PasswordSession, given: RestoreInput) -> Preview:
        """Open what would be restored and check all of it. Changes nothing.

        Raises:
            RefusalError: with the reason; see spike.lifecycle.refusal.
            StoreUnavailableError: the store does not answer.
        """
        async with self._vault.lock:
            self.require_locked()
            try:
                stored = await self.stored_for(given.asked)
                asked = await with_newest(self._vault, stored, given.asked)
                raw = None if stored is None else stored.blob
                candidate = rules.choose(raw, asked.backup)
                chosen = rules.choose_slot(candidate.held, given.slot_name)
                tried = Tried(candidate, chosen, stored)
                root = await self._open_slot(session, given.sealed_password, tried)
                found = await self.examined(root, tried, asked)
            except StoreCorruptError as error:
                raise RefusalError(Reason.DAMAGED, error.message, error.next_step) from error
            return self.hold(found)

    async def stored_for(self, asked: Asked) -> Record | None:
        """Return the store's keyring, or None where a system backup is to come into its place.

        Raises:
            RefusalError: STORE_NOT_EMPTY or UNSUPPORTED, there is no room for that one.
        """
        if asked.system is None:
            return await self._vault.store.get(KEYRING_ID)
        await require_room(self._vault.store, set_aside=asked.system.set_aside)
        return None

    async def examined(self, root: KeyMemory, tried: Tried, asked: Asked) -> Examined:
        """Check all that a restore with this root key depends on. Takes over `root`. Hold the vault's lock.

        Raises what `spike.nexus.examination.examine` does.
        """
        return await examine(self._vault, root, tried, asked, self._witnesses)

    def hold(self, found: Examined) -> Preview:
        """Let what was found wait for its confirmation, in the place of what waits now."""
        self.forget()
        self._pending = Preview(secrets.token_hex(16), found)
        self._timer = asyncio.get_running_loop().call_later(PREVIEW_LIFE_S, self.forget)
        return self._pending

    async def complete(self, token: str, actor: str) -> Opened:
        """Commit the previewed restore and open the vault.

        Raises:
            RefusalError: EXPIRED (no such preview), ALREADY_OPEN, or BUSY (the store was changed meanwhile).
            StoreError: the store failed; nothing was restored.
        """
        async with self._vault.lock:
            self.require_locked()
            pending = self._pending
            if not _is_awaited(pending, token, actor) or pending.found.system is not None:
                raise _expired()
            self._pending = None
            self.forget()
            return await self.finish(pending.found)

    def take(self, token: str, actor: str) -> Examined:
        """Give the previewed restore of a system backup to who receives its file, who owns its ring from then on.

        Raises:
            RefusalError: EXPIRED.
        """
        pending = self._pending
        if not _is_awaited(pending, token, actor) or pending.found.system is None:
            raise _expired()
        self._pending = None
        self.forget()
        return pending.found

    async def finish(self, found: Examined) -> Opened:
        """Commit what was found and open the vault. Takes its ring over. Hold the vault's lock.

        Raises:
            RefusalError: BUSY, the store was changed meanwhile.
            StoreError: the store failed; nothing was restored.
        """
        try:
            return await self._commit(found)
        except BaseException:
            if not self._vault.is_open:
                found.ring.wipe()
            raise

    async def rotation_remarks(self) -> tuple[str, ...]:
        """Begin the rotation that is due after this restore, if one is; return what there is to say about it.

        The restore is not undone by a rotation that does not begin. Call it without the vault's lock.
        """
        due = self._vault.opened.document.rotation_due
        if not due:
            return ()
        begun = None
        if self.begin_rotation is not None:
            try:
                begun = await self.begin_rotation(due)
            except SpikeError as error:
                _log.error("the rotation that is due does not begin: %s", error.message)
        return (rotation_remark(due) if begun is None else f"{due}: rotation {begun} has begun",)

    def forget(self) -> None:
        """Drop and wipe a restore that was not confirmed. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending is not None:
            self._pending.found.ring.wipe()
            self._pending = None

    def require_locked(self) -> None:
        """Return if there is something to restore.

        Raises:
            RefusalError: ALREADY_OPEN.
        """
        if self._vault.is_open:
            raise RefusalError(
                Reason.ALREADY_OPEN, "there is nothing to restore: the root key is in memory", ""
            )

    def require_no_delay(self, slot_id: str, name: str) -> None:
        """Return if an attempt on this slot may be made now.

        Raises:
            RefusalError: TOO_SOON.
        """
        wait_s = self._delay.wait_s(slot_id, time.monotonic())
        if wait_s > 0:
            raise RefusalError(
                Reason.TOO_SOON,
                f"after wrong attempts the next one on slot {name!r} has to wait",
                f"try again in {math.ceil(wait_s)} s",
            )

    def note_wrong(self, slot_id: str) -> None:
        """Take note of a wrong attempt on a slot."""
        self._delay.wrong(slot_id, time.monotonic())

    def note_right(self, slot_id: str) -> None:
        """Take note that a slot was opened."""
        self._delay.right(slot_id)

    async def _open_slot(
        self, session: PasswordSession, sealed_password: bytes, tried: Tried
    ) -> KeyMemory:
        hint = tried.candidate.held.hint
        slot, sealed = tried.chosen.slot, tried.chosen.sealed
        self.require_no_delay(slot.id, slot.name)
        public = await session.derive(
            Derive(
                sealed_password=sealed_password,
                argon2=slot.argon2,
                salt=slot.salt,
                store_id=bytes.fromhex(hint.store_id),
                slot_id=bytes.fromhex(slot.id),
                judge=None,
            )
        )
        if public != slot.public:
            self.note_wrong(slot.id)
            raise await self._wrong_password(tried)
        header = header_of(hint, slot, sealed)
        root = await session.open(header, sealed.sealed, bytes.fromhex(sealed.tag))
        self.note_right(slot.id)
        return root

    async def _wrong_password(self, tried: Tried) -> RefusalError:
        """Say so; and if a backup place remembers this slot otherwise, say that too."""
        slot = tried.chosen.slot
        store_id = tried.candidate.held.hint.store_id
        for copy, path in await slots_in_places(self._vault, store_id):
            if copy.name != slot.name:
                continue
            if (copy.salt, copy.public, copy.argon2) != (slot.salt, slot.public, slot.argon2):
                return RefusalError(
                    Reason.PLANTED,
                    f"slot {slot.name!r} in {tried.candidate.origin} differs from the one in the backup place: "
                    "the password is wrong, or somebody changed the slot",
                    f"restore from the backup place: spike restore --backup {path}",
                )
        return RefusalError(
            Reason.WRONG_PASSWORD,
            f"the password does not open slot {slot.name!r}",
            "try again, or name another slot with --slot",
        )

    async def _commit(self, found: Examined) -> Opened:
        confirmed, slot, stored = found.confirmed, found.tried.chosen.slot, found.tried.stored
        following = rules.recovered(
            confirmed,
            self._vault.moment(),
            found.actor,
            slot.id,
            by=slot.kind.value,
            accepted=found.accepted,
        )
        ring = found.ring.replaced(following)
        sealed = SealedStore(self._vault.store, ring)
        expected = MUST_NOT_EXIST if stored is None else stored.revision
        assert (
            found.policies is not None
        )  # `complete` and `finish` are for stores that hold their records
        raised = raised_list(found, found.policies, sealed)
        try:
            revision, raw = await self._vault.replace_keyring(
                ring, expected, beside=(*_kept_aside(found), *raised)
            )
        except StoreConflictError as error:
            raise RefusalError(
                Reason.BUSY, "the store was changed meanwhile", "run it again"
            ) from error
        for each in found.accepted:
            _log.critical("%s has accepted an older store: %s", found.actor, each.message)
        policies = await PolicyBook.load(sealed) if raised else found.policies
        return await self._vault.open_with(ring, revision, raw, policies)


def _is_awaited(pending: Preview | None, token: str, actor: str) -> TypeGuard[Preview]:
    return pending is not None and pending.token == token and pending.found.actor == actor


def _expired() -> RefusalError:
    return RefusalError(Reason.EXPIRED, "this restore is no longer awaited", "run it again")


def rotation_remark(due: str) -> str:
    """Return what an operator is told while a rotation is due for this reason."""
    return f"{due}: a rotation is due, so that root and data keys are fresh (spike key rotate)"


def raised_list(found: Examined, policies: PolicyBook, sealed: SealedStore) -> tuple[Change, ...]:
    """Take the access list above every anchor that was accepted, so that these hold against it from now on."""
    seen = staleness.above(found.confirmed, found.accepted).access_generation
    if seen <= policies.access_generation:
        return ()
    return (policies.raised_above(seen, sealed),)


def _kept_aside(found: Examined) -> tuple[Change, ...]:
    """Keep a keyring that was not authentic, for whoever wants to know what happened; nothing is overwritten."""
    stored = found.tried.stored
    if stored is None or _is_same(stored.blob, found.confirmed):
        return ()
    # A name nobody can take beforehand, and no number of the storage writer's: neither may stop a restore.
    aside = RecordId(KEYRING_ID.kind, f"{_REPLACED}-{secrets.token_hex(8)}")
    return (Put(aside, stored.blob, 0, MUST_NOT_EXIST),)


def _is_same(stored: bytes, confirmed: Keyring) -> bool:
    try:
        return rules.read_stored(stored).hint == confirmed
    except RefusalError:
        return False
