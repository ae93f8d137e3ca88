"""Restore by password: two calls, so that a person sees what is about to be brought back before it is.

`preview` does everything that can fail and changes nothing; what it opened waits in locked memory under a token.
`complete` commits it. The steps are those of spike.lifecycle.restore.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from spike.error import FormatError, OpenError, StoreConflictError, StoreCorruptError
from spike.lifecycle import anchor as anchors
from spike.lifecycle import backup
from spike.lifecycle import restore as rules
from spike.lifecycle.attempt import AttemptDelay
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.restore import Candidate, ChosenSlot
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.slot import header_of
from spike.memory.key_memory import KeyMemory
from spike.nexus.password_child import Derive
from spike.nexus.password_desk import PasswordSession
from spike.nexus.policy_book import PolicyBook
from spike.nexus.sealed import SealedStore
from spike.nexus.vault import KEYRING_ID, Opened, Vault
from spike.storage.protocol import MUST_NOT_EXIST, Change, Put, Record, RecordId

PREVIEW_LIFE_S: Final = 120
_REPLACED: Final = "replaced"
_UNCONFIRMED: Final = (
    "no anchor confirms that this is the newest copy: an old one would look the same"
)


@dataclass(frozen=True, slots=True)
class RestoreInput:
    """What a restore is asked with. `backup` is a key backup handed in, `anchors` what the caller had seen."""

    sealed_password: bytes
    slot_name: str
    backup: bytes | None
    anchors: tuple[bytes, ...]
    actor: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a confirmed restore would bring back, all of it authenticated; `remarks` are for the person who decides."""

    token: str
    confirmed: Keyring
    slot_name: str
    sealed_at: str
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Pending:
    """A restore that waits for its confirmation. Owns the ring."""

    preview: Preview
    ring: KeyRing
    policies: PolicyBook
    slot_id: str
    stored: Record | None
    actor: str


class RestoreDesk:
    """Restores of one vault; at most one waits for confirmation."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._delay = AttemptDelay()
        self._pending: _Pending | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def preview(self, session: PasswordSession, asked: RestoreInput) -> Preview:
        """Open what would be restored and check all of it. Changes nothing.

        Raises:
            RefusalError: with the reason; see spike.lifecycle.refusal.
            StoreUnavailableError: the store does not answer.
        """
        async with self._vault.lock:
            self._require_locked()
            try:
                pending = await self._prepared(session, asked)
            except StoreCorruptError as error:
                raise RefusalError(Reason.DAMAGED, error.message, error.next_step) from error
            self.forget()
            self._pending = pending
            self._timer = asyncio.get_running_loop().call_later(PREVIEW_LIFE_S, self.forget)
            return pending.preview

    async def _prepared(self, session: PasswordSession, asked: RestoreInput) -> _Pending:
        stored = await self._vault.store.get(KEYRING_ID)
        candidate = rules.choose(None if stored is None else stored.blob, asked.backup)
        chosen = rules.choose_slot(candidate.held, asked.slot_name)
        root = await self._open_slot(session, asked, candidate, chosen)
        return await self._examined(root, candidate, chosen, stored, asked)

    async def complete(self, token: str, actor: str) -> Opened:
        """Commit the previewed restore and open the vault.

        Raises:
            RefusalError: EXPIRED (no such preview), ALREADY_OPEN, or BUSY (the store was changed meanwhile).
            StoreError: the store failed; nothing was restored.
        """
        async with self._vault.lock:
            self._require_locked()
            pending = self._pending
            if pending is None or pending.preview.token != token or pending.actor != actor:
                raise RefusalError(
                    Reason.EXPIRED, "this restore is no longer awaited", "run it again"
                )
            self._pending = None
            self.forget()
            try:
                return await self._commit(pending)
            except BaseException:
                if not self._vault.is_open:
                    pending.ring.wipe()
                raise

    def forget(self) -> None:
        """Drop and wipe a restore that was not confirmed. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._pending is not None:
            self._pending.ring.wipe()
            self._pending = None

    def _require_locked(self) -> None:
        if self._vault.is_open:
            raise RefusalError(
                Reason.ALREADY_OPEN, "there is nothing to restore: the root key is in memory", ""
            )

    async def _open_slot(
        self,
        session: PasswordSession,
        asked: RestoreInput,
        candidate: Candidate,
        chosen: ChosenSlot,
    ) -> KeyMemory:
        slot, sealed = chosen.slot, chosen.sealed
        wait_s = self._delay.wait_s(slot.id, time.monotonic())
        if wait_s > 0:
            raise RefusalError(
                Reason.TOO_SOON,
                f"after wrong passwords the next attempt on slot {slot.name!r} has to wait",
                f"try again in {math.ceil(wait_s)} s",
            )
        public = await session.derive(
            Derive(
                sealed_password=asked.sealed_password,
                argon2=slot.argon2,
                salt=slot.salt,
                store_id=bytes.fromhex(candidate.held.hint.store_id),
                slot_id=bytes.fromhex(slot.id),
                judge=None,
            )
        )
        if public != slot.public:
            self._delay.wrong(slot.id, time.monotonic())
            raise await self._wrong_password(candidate, chosen)
        header = header_of(candidate.held.hint, slot, sealed)
        root = await session.open(header, sealed.sealed, bytes.fromhex(sealed.tag))
        self._delay.right(slot.id)
        return root

    async def _wrong_password(self, candidate: Candidate, chosen: ChosenSlot) -> RefusalError:
        """Say so; and if a backup place remembers this slot otherwise, say that too."""
        slot = chosen.slot
        for state in self._vault.places:
            raw = await asyncio.to_thread(state.place.read_backup, candidate.held.hint.store_id)
            if raw is None:
                continue
            try:
                copy = rules.choose_slot(rules.choose(None, raw).held, slot.name).slot
            except RefusalError:
                continue
            if (copy.salt, copy.public, copy.argon2) != (slot.salt, slot.public, slot.argon2):
                path = state.place.backup_path(candidate.held.hint.store_id)
                return RefusalError(
                    Reason.PLANTED,
                    f"slot {slot.name!r} in {candidate.origin} differs from the one in the backup place: "
                    "the password is wrong, or somebody changed the slot",
                    f"restore from the backup place: spike restore --backup {path}",
                )
        return RefusalError(
            Reason.WRONG_PASSWORD,
            f"the password does not open slot {slot.name!r}",
            "try again, or name another slot with --slot",
        )

    async def _examined(
        self,
        root: KeyMemory,
        candidate: Candidate,
        chosen: ChosenSlot,
        stored: Record | None,
        asked: RestoreInput,
    ) -> _Pending:
        try:
            confirmed = rules.confirm(candidate, root)
            if candidate.backup is not None:
                rules.compare_copies(confirmed, None if stored is None else stored.blob, root)
            weighed = anchors.weigh_untrusted(
                await self._anchors(candidate, confirmed, asked.anchors), confirmed, root
            )
            ring = _open_ring(confirmed, root)
        except BaseException:
            root.wipe()
            raise
        try:
            policies = await _examine_store(SealedStore(self._vault.store, ring))
            rules.require_current(confirmed, policies.access_generation, weighed.valid)
            rules.require_fence(confirmed, (await self._vault.store.health()).fence)
        except BaseException:
            ring.wipe()
            raise
        preview = Preview(
            token=secrets.token_hex(16),
            confirmed=confirmed,
            slot_name=chosen.slot.name,
            sealed_at=chosen.sealed.sealed_at,
            remarks=weighed.rejected if weighed.valid else (*weighed.rejected, _UNCONFIRMED),
        )
        return _Pending(preview, ring, policies, chosen.slot.id, stored, asked.actor)

    async def _anchors(
        self, candidate: Candidate, confirmed: Keyring, given: Sequence[bytes]
    ) -> list[bytes]:
        found = [raw for raw in given if raw]
        if candidate.backup is not None:
            found.append(candidate.backup.anchor_raw)
        for state in self._vault.places:
            raw = await asyncio.to_thread(state.place.read_anchor, confirmed.store_id)
            if raw is not None:
                found.append(raw)
            # A crash may have come between the two files.
            held = await asyncio.to_thread(state.place.read_backup, confirmed.store_id)
            if held is not None:
                with contextlib.suppress(FormatError):
                    found.append(backup.decode_untrusted(held).anchor_raw)
        return found

    async def _commit(self, pending: _Pending) -> Opened:
        next_document = rules.recovered(
            pending.preview.confirmed, self._vault.moment(), pending.actor, pending.slot_id
        )
        ring = pending.ring.replaced(next_document)
        stored = pending.stored
        expected = MUST_NOT_EXIST if stored is None else stored.revision
        try:
            revision, raw = await self._vault.replace_keyring(
                ring, expected, beside=self._kept_aside(pending)
            )
        except StoreConflictError as error:
            raise RefusalError(
                Reason.BUSY, "the store was changed meanwhile", "run it again"
            ) from error
        return await self._vault.open_with(ring, revision, raw, pending.policies)

    def _kept_aside(self, pending: _Pending) -> tuple[Change, ...]:
        """Keep a keyring that was not authentic, for whoever wants to know what happened; nothing is overwritten."""
        stored = pending.stored
        if stored is None or _is_same(stored.blob, pending.preview.confirmed):
            return ()
        # A name nobody can take beforehand, and no number of the storage writer's: neither may stop a restore.
        aside = RecordId(KEYRING_ID.kind, f"{_REPLACED}-{secrets.token_hex(8)}")
        return (Put(aside, stored.blob, 0, MUST_NOT_EXIST),)


def _is_same(stored: bytes, confirmed: Keyring) -> bool:
    try:
        return rules.read_stored(stored).hint == confirmed
    except RefusalError:
        return False


def _open_ring(confirmed: Keyring, root: KeyMemory) -> KeyRing:
    try:
        return KeyRing.open(confirmed, root)
    except (OpenError, FormatError) as error:
        raise RefusalError(Reason.DAMAGED, f"the keyring is damaged: {error.message}") from error


async def _examine_store(sealed: SealedStore) -> PolicyBook:
    """Open the access list and one record of each kind.

    Raises:
        RefusalError: FOREIGN when a record does not open: it is of another store, or was moved or changed.
    """
    try:
        policies = await PolicyBook.load(sealed)
        async for record in sealed.samples():
            sealed.open(record)
    except (OpenError, FormatError) as error:
        raise RefusalError(
            Reason.FOREIGN,
            f"the root key does not open what the store holds ({error.message}): "
            "the records are of another store, or were changed",
            "put the right store beside its keyring, then try again",
        ) from error
    return policies
