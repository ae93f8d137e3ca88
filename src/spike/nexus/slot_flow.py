"""Slots added, given a new password, removed; each by one compare-and-swap, after everything that can fail was done.

Somebody without the recover role shows an existing slot's password in the same request, and it really opens that slot.
A new slot is opened with its password, in the child, from the very bytes that are written, before they are written. No
old password is needed to make the copy: that takes the public half alone.

A password that was changed or removed still opens old copies. So a rotation of the root key follows, unless whoever
asks says that nobody else knew the password.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from spike.crypto.slot import SALT_BYTES, Argon2Setting
from spike.error import NotReadyError, SpikeError
from spike.lifecycle import keyring as keyrings
from spike.lifecycle import slot_change
from spike.lifecycle.birth import NewSlot
from spike.lifecycle.keyring import Keyring, Slot, UnconfirmedKeyring
from spike.lifecycle.operation import require_idle
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.slot_key import Act
from spike.nexus.opened import Opened
from spike.nexus.password_child import Derive, Former
from spike.nexus.password_desk import PasswordDesk, PasswordSession
from spike.nexus.restore_flow import RestoreDesk
from spike.nexus.ring_commit import commit
from spike.nexus.slot_proof import SealedPassword, derive_known, what_is_wrong
from spike.nexus.vault import Vault

BeginRotation = Callable[[str], Awaitable[str | None]]
"""Begins a rotation of the root key for a reason, and returns its id; None where that cannot be done here."""
Copies = Callable[[], Awaitable[Sequence[tuple[str, UnconfirmedKeyring]]]]
"""Reads every copy of the keyring there is, each with its name."""

_OVERTAKEN_LIMIT: Final = 8
_log = logging.getLogger("spike.nexus.slot")


async def no_rotation(_reason: str) -> None:
    """Begin nothing: the operator has to."""


@dataclass(frozen=True, slots=True)
class Shown:
    """An existing slot's password; an empty name is the first slot."""

    slot_name: str
    password: SealedPassword


@dataclass(frozen=True, slots=True)
class SlotWish:
    """Who asks for what: `shown` where the role alone is not enough, `rotate`: replace the root key after it."""

    actor: str
    slot_name: str
    shown: Shown | None = None
    rotate: bool = True


@dataclass(frozen=True, slots=True)
class SlotDone:
    """What came of it. `rotation` has begun, or `rotation_due` says why one should follow."""

    opened: Opened
    rotation: str | None = None
    rotation_due: str = ""


@dataclass(frozen=True, slots=True)
class _Named:
    """The slot that a new password is for; `former`: what it is opened with now, if it is there."""

    name: str
    id: str
    former: Former | None = None


class SlotDesk:
    """Changes the slots of one vault."""

    def __init__(
        self,
        vault: Vault,
        passwords: PasswordDesk,
        attempts: RestoreDesk,
        begin_rotation: BeginRotation = no_rotation,
        argon2: Argon2Setting | None = None,
    ) -> None:
        self._vault = vault
        self._passwords = passwords
        self._attempts = attempts
        self._begin_rotation = begin_rotation
        self._argon2 = argon2 or Argon2Setting()

    async def add(self, wish: SlotWish, password: SealedPassword) -> SlotDone:
        """Add a slot for a new password.

        Raises:
            NotReadyError: the vault is not open, or writes are stopped.
            RefusalError: with the reason; see spike.lifecycle.refusal. Nothing was changed.
            StoreError: the store failed.
        """
        slot_id, name = secrets.token_hex(16), wish.slot_name
        async with self._session(wish, password) as session, self._vault.lock:
            present = await self._require_healthy()
            slot_change.require_free_name(present.document, name)
            await self._require_shown(wish, present)
            slot = _Named(name, slot_id)
            new = await self._derived(session, password, present.document, slot)
            opened = await self._committed(
                present,
                session,
                new,
                lambda at: slot_change.added(
                    present.document,
                    present.ring.root,
                    slot_id,
                    new,
                    Act(at, wish.actor, "a slot was added"),
                ),
            )
        _log.warning("slot %s was added by %s", name, wish.actor)
        return SlotDone(opened)

    async def change(self, wish: SlotWish, password: SealedPassword) -> SlotDone:
        """Give a slot a new password; a slot marked `renew` can be used again then.

        Raises what `add` does.
        """
        async with self._session(wish, password) as session, self._vault.lock:
            present = await self._require_healthy()
            old = slot_change.password_slot(present.document, wish.slot_name)
            await self._require_shown(wish, present)
            slot = _Named(old.name, old.id, Former(old.argon2, old.salt, old.public))
            new = await self._derived(session, password, present.document, slot)
            opened = await self._committed(
                present,
                session,
                new,
                lambda at: slot_change.changed(
                    present.document,
                    present.ring.root,
                    new,
                    Act(at, wish.actor, "the slot has a new password"),
                ),
            )
        _log.warning("the password of slot %s was changed by %s", old.name, wish.actor)
        return await self._followed(opened, wish, f"the password of slot {old.name} was changed")

    async def remove(self, wish: SlotWish) -> SlotDone:
        """Remove a slot.

        Raises what `add` does.
        """
        async with self._vault.lock:
            present = self._vault.require_writable()
            act = Act(self._vault.moment(), wish.actor, "the slot was removed")
            following = slot_change.removed(present.document, wish.slot_name, act)
            await self._require_shown(wish, present)
            opened = await commit(self._vault, present, present.ring.changed(following, {}))
        _log.warning("slot %s was removed by %s", wish.slot_name, wish.actor)
        return await self._followed(opened, wish, f"slot {wish.slot_name} was removed")

    async def verify(
        self, actor: str, slot_name: str, password: SealedPassword, copies: Copies
    ) -> tuple[Slot, Mapping[str, str]]:
        """Open the copies of the keyring with a slot's password; note the date if every one of them opens.

        Returns the slot as it is then, and of each copy, by its name, what is wrong with it or "".

        Raises:
            NotReadyError: the vault is not open, or writes are stopped.
            RefusalError: WRONG_PASSWORD, TOO_SOON, UNKNOWN_SLOT or EXPIRED.
            StoreError: the date could not be written.
        """
        async with (
            closing(self._passwords.take(password.session, actor)) as session,
            self._vault.lock,
        ):
            present = self._vault.require_writable()
            slot = slot_change.password_slot(present.document, slot_name)
            await derive_known(session, password.sealed, present.document, slot, self._attempts)
            told = await self._opened(session, slot, copies)
            if told and not any(told.values()):
                act = Act(self._vault.moment(), actor, "the slot was opened with its password")
                opened = await self._vault.change(
                    lambda ring: ring.replaced(slot_change.verified(ring.document, slot.id, act))
                )
                slot = slot_change.password_slot(opened.document, slot.name)
        return slot, told

    async def _opened(
        self, session: PasswordSession, slot: Slot, copies: Copies
    ) -> Mapping[str, str]:
        """Open every copy with a slot whose keys were derived; again where the keyring was replaced meanwhile."""
        for _ in range(_OVERTAKEN_LIMIT):
            present = self._vault.require_writable()
            told = {
                name: await what_is_wrong(session, held, slot, present.ring.root)
                for name, held in await copies()
            }
            if self._vault.opened.keyring_raw == present.keyring_raw or not any(told.values()):
                return told
        raise NotReadyError("the keyring is replaced faster than its copies can be opened")

    def _session(
        self, wish: SlotWish, password: SealedPassword
    ) -> AbstractAsyncContextManager[PasswordSession]:
        return closing(self._passwords.take(password.session, wish.actor))

    async def _require_healthy(self) -> Opened:
        """Return what is open if it is well: nobody should rely on a way in that was made while something was wrong."""
        present = self._vault.require_writable()
        require_idle(present.document)
        fault = (await self._vault.store.health()).fault
        wrong = present.ring.mismatches()
        if fault or wrong:
            what = fault or f"a key in memory is not what it was ({', '.join(wrong)})"
            raise RefusalError(
                Reason.UNHEALTHY, f"the system is not well: {what}", "see: spike status"
            )
        return present

    async def _require_shown(self, wish: SlotWish, present: Opened) -> None:
        """Return if the existing slot's password that was given, if one was, opens its slot."""
        shown = wish.shown
        if shown is None:
            return
        async with closing(self._passwords.take(shown.password.session, wish.actor)) as session:
            slot = slot_change.password_slot(present.document, shown.slot_name)
            sealed = shown.password.sealed
            await derive_known(session, sealed, present.document, slot, self._attempts)
            held = keyrings.decode_untrusted(present.keyring_raw)
            wrong = await what_is_wrong(session, held, slot, present.ring.root)
        if wrong:
            raise RefusalError(
                Reason.DAMAGED, wrong, "show another slot's password: --with-slot NAME"
            )

    async def _derived(
        self,
        session: PasswordSession,
        password: SealedPassword,
        document: Keyring,
        slot: _Named,
    ) -> NewSlot:
        salt, argon2 = secrets.token_bytes(SALT_BYTES), self._argon2.phc()
        public = await session.derive(
            Derive(
                sealed_password=password.sealed,
                argon2=argon2,
                salt=salt,
                store_id=bytes.fromhex(document.store_id),
                slot_id=bytes.fromhex(slot.id),
                judge=(slot.name,),
                former=slot.former,
            )
        )
        return NewSlot(slot.name, argon2, salt, public, session.take_auth())

    async def _committed(
        self,
        present: Opened,
        session: PasswordSession,
        new: NewSlot,
        follow: Callable[[str], Keyring],
    ) -> Opened:
        """Open the new slot as a restore would, from the bytes that are about to be written, and write them."""
        try:
            following = follow(self._vault.moment())
            held = keyrings.decode_untrusted(keyrings.encode(following, present.ring.root))
            slot = slot_change.password_slot(following, new.name)
            wrong = await what_is_wrong(session, held, slot, present.ring.root)
            if wrong:
                raise RefusalError(Reason.DAMAGED, f"the copy that was made is not good: {wrong}")  # noqa: TRY301  (the new key has to be wiped)
            name = slot_change.next_key_name(present.document, slot.id)
            ring = present.ring.changed(following, {name: new.auth})
        except BaseException:
            new.auth.wipe()
            raise
        return await commit(self._vault, present, ring)

    async def _followed(self, opened: Opened, wish: SlotWish, reason: str) -> SlotDone:
        """Begin the rotation that ends what the old password opens. The change is made, whatever comes of it."""
        if not wish.rotate:
            return SlotDone(opened)
        try:
            rotation = await self._begin_rotation(reason)
        except SpikeError as error:
            _log.error("%s, and the root key could not be replaced: %s", reason, error.message)
            return SlotDone(opened, rotation_due=error.message)
        if rotation is None:
            return SlotDone(opened, rotation_due=f"{reason}: old copies still open with it")
        return SlotDone(opened, rotation=rotation)


@asynccontextmanager
async def closing(session: PasswordSession) -> AsyncIterator[PasswordSession]:
    """Give a session, and end its child whatever happens."""
    try:
        yield session
    finally:
        await session.close()
