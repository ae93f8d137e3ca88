"""A slot opened by its password while the vault is open: what shows that somebody knows it, or that a copy is good."""

from __future__ import annotations

from dataclasses import dataclass

from spike.lifecycle.keyring import Keyring, Slot, UnconfirmedKeyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.slot import header_of
from spike.memory.key_memory import KeyMemory
from spike.nexus.password_child import Derive
from spike.nexus.password_desk import PasswordSession
from spike.nexus.restore_flow import RestoreDesk


@dataclass(frozen=True, slots=True)
class SealedPassword:
    """A password as it came in: sealed to the one-time key of a session."""

    session: str
    sealed: bytes


async def derive_known(
    session: PasswordSession, sealed: bytes, document: Keyring, slot: Slot, attempts: RestoreDesk
) -> None:
    """Derive the slot's keys in the child; return if they are this slot's.

    Raises:
        RefusalError: TOO_SOON, WRONG_PASSWORD, or EXPIRED.
    """
    attempts.require_no_delay(slot.id, slot.name)
    public = await session.derive(
        Derive(
            sealed_password=sealed,
            argon2=slot.argon2,
            salt=slot.salt,
            store_id=bytes.fromhex(document.store_id),
            slot_id=bytes.fromhex(slot.id),
            judge=None,
        )
    )
    if public != slot.public:
        attempts.note_wrong(slot.id)
        raise RefusalError(
            Reason.WRONG_PASSWORD,
            f"the password does not open slot {slot.name!r}",
            "try again, or name another slot",
        )
    attempts.note_right(slot.id)


async def what_is_wrong(
    session: PasswordSession, held: UnconfirmedKeyring, slot: Slot, root: KeyMemory
) -> str:
    """Open a slot's copy of the root key from one copy of the keyring; return why that fails, or "".

    The session has derived the slot's keys. What comes out must be `root`, and must authenticate the keyring.
    """
    hint = held.hint
    there = next((each for each in hint.slots if each.id == slot.id), None)
    if there is None:
        return f"it has no slot {slot.name!r}"
    if (there.argon2, there.salt, there.public) != (slot.argon2, slot.salt, slot.public):
        return f"it wants another password for slot {slot.name!r}"
    active = hint.active_root
    sealed = next((s for s in there.roots if s.generation == active.number), None)
    if sealed is None:
        return f"slot {slot.name!r} holds no copy of root-key generation {active.number}"
    try:
        opened = await session.open(
            header_of(hint, there, sealed), sealed.sealed, bytes.fromhex(sealed.tag)
        )
    except RefusalError as refusal:
        if refusal.reason not in (Reason.PLANTED, Reason.DAMAGED):
            raise
        return refusal.message
    with opened:
        if not opened.same_as(root):
            return f"slot {slot.name!r} opens, and gives another root key than the active one"
        return "" if held.confirmed_by(opened) is not None else "its keyring is not authentic"
