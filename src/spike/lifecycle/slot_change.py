"""Slots for passwords: added, given a new password, removed. Pure: each function returns the keyring that follows.

* Adding and changing seal the root key to a public key that the password gave; nobody's old password is needed.
* After a removal at least one slot that can be used is left.
* A slot marked `renew` can be used again only after a new password: the key that authenticates its copies is known.
* What was opened before stays openable in old copies (spike.lifecycle.slot_retired); a rotation ends that.
"""

from __future__ import annotations

import msgspec

from spike.lifecycle.birth import NewSlot
from spike.lifecycle.keyring import Event, KeyPurpose, Keyring, Slot, SlotKind, WrappedKey
from spike.lifecycle.operation import require_idle
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyName
from spike.lifecycle.slot_key import Act, ended, sealed_to, wrapped_new
from spike.lifecycle.slot_retired import retired_with
from spike.memory.key_memory import KeyMemory

_WAYS_IN = (SlotKind.PASSWORD, SlotKind.SHARDS)


def is_usable(document: Keyring, slot: Slot) -> bool:
    """Return whether a person could bring the active root key back through a slot, and be sure of it."""
    active = document.active_root
    has_copy = any((s.generation, s.check) == (active.number, active.check) for s in slot.roots)
    return slot.kind in _WAYS_IN and not slot.renew and has_copy


def require_free_name(document: Keyring, name: str) -> None:
    """Return if no slot has this name.

    Raises:
        RefusalError: SLOT_EXISTS.
    """
    if document.slot_named(name) is not None:
        raise RefusalError(
            Reason.SLOT_EXISTS,
            f"there is a slot named {name!r} already",
            f"take another name, or change its password: spike backup slot change-password {name}",
        )


def password_slot(document: Keyring, name: str) -> Slot:
    """Return the password slot of this name; for an empty name the first one.

    Raises:
        RefusalError: UNKNOWN_SLOT.
    """
    slots = [slot for slot in document.slots if slot.kind is SlotKind.PASSWORD]
    found = next((slot for slot in slots if not name or slot.name == name), None)
    if found is None:
        raise _unknown(name, "password slot", slots)
    return found


def next_key_name(document: Keyring, slot_id: str) -> KeyName:
    """Return the name of the next `backup-auth` key of a slot: its first one where there is none."""
    numbers = [
        key.number
        for key in document.keys
        if key.purpose is KeyPurpose.BACKUP_AUTH and key.slot == slot_id
    ]
    return KeyName(KeyPurpose.BACKUP_AUTH, slot_id, max(numbers, default=0) + 1)


def added(document: Keyring, root: KeyMemory, slot_id: str, new: NewSlot, act: Act) -> Keyring:
    """Return the keyring with one more password slot.

    Raises:
        RefusalError: SLOT_EXISTS, or BUSY: another lifecycle operation is in progress.
    """
    require_idle(document)
    require_free_name(document, new.name)
    name = next_key_name(document, slot_id)
    slot = sealed_to(document, root, _unsealed(slot_id, new, act.at, act.at), new.auth, act.at)
    key = wrapped_new(document, root, name, new.auth, act)
    return _followed(
        document,
        act,
        "slot-add",
        new.name,
        keys=(*document.keys, key),
        slots=(*document.slots, slot),
    )


def changed(document: Keyring, root: KeyMemory, new: NewSlot, act: Act) -> Keyring:
    """Return the keyring whose slot named `new.name` is opened by a new password, and is no longer marked `renew`.

    Raises:
        RefusalError: UNKNOWN_SLOT, or BUSY: another lifecycle operation is in progress.
    """
    require_idle(document)
    old = password_slot(document, new.name)
    name = next_key_name(document, old.id)
    slot = sealed_to(
        document, root, _unsealed(old.id, new, old.created_at, act.at), new.auth, act.at
    )
    key = wrapped_new(document, root, name, new.auth, act)
    keys = _without(document, old, act)
    return _followed(
        document,
        act,
        "slot-change",
        old.name,
        keys=(*keys, key),
        slots=tuple(slot if each is old else each for each in document.slots),
        retired=retired_with(document, old, act.at),
    )


def removed(document: Keyring, name: str, act: Act) -> Keyring:
    """Return the keyring without a slot, whatever its kind.

    Raises:
        RefusalError: UNKNOWN_SLOT, LAST_SLOT, or BUSY: another lifecycle operation is in progress.
    """
    require_idle(document)
    slot = document.slot_named(name)
    if slot is None:
        raise _unknown(name, "slot", document.slots)
    left = tuple(each for each in document.slots if each is not slot)
    if not any(is_usable(document, each) for each in left):
        raise RefusalError(
            Reason.LAST_SLOT,
            f"without slot {name!r} nothing would be left that opens the backup",
            "add another slot first: spike backup slot add NAME",
        )
    return _followed(
        document,
        act,
        "slot-remove",
        name,
        keys=_without(document, slot, act),
        slots=left,
        retired=retired_with(document, slot, act.at),
    )


def verified(document: Keyring, slot_id: str, act: Act) -> Keyring:
    """Return the keyring that notes that a slot was opened with its password. No epoch: it may be lost again."""
    name = next(slot.name for slot in document.slots if slot.id == slot_id)
    slots = tuple(
        msgspec.structs.replace(slot, verified_at=act.at, verified_by=act.actor)
        if slot.id == slot_id
        else slot
        for slot in document.slots
    )
    noted = _followed(document, act, "slot-verify", name, slots=slots)
    return msgspec.structs.replace(noted, epoch=document.epoch)


def _unsealed(slot_id: str, new: NewSlot, created_at: str, at: str) -> Slot:
    return Slot(
        id=slot_id,
        name=new.name,
        kind=SlotKind.PASSWORD,
        argon2=new.argon2,
        salt=new.salt,
        public=new.public,
        created_at=created_at,
        verified_at=at,
        renew=False,
        roots=(),
    )


def _without(document: Keyring, slot: Slot, act: Act) -> tuple[WrappedKey, ...]:
    return tuple(ended(key, act) if key.slot == slot.id else key for key in document.keys)


def _followed(document: Keyring, act: Act, kind: str, slot_name: str, **changes: object) -> Keyring:
    event = Event(
        sequence=document.next_event,
        at=act.at,
        kind=kind,
        actor=act.actor,
        detail={"slot": slot_name},
    )
    common: dict[str, object] = {
        "revision": document.revision + 1,
        "epoch": document.epoch + 1,
        "replaced_at": act.at,
        "next_event": document.next_event + 1,
        "outbox": (*document.outbox, event),
    }
    return msgspec.structs.replace(document, **{**common, **changes})


def _unknown(name: str, what: str, known: tuple[Slot, ...] | list[Slot]) -> RefusalError:
    names = ", ".join(slot.name for slot in known) or "none"
    return RefusalError(
        Reason.UNKNOWN_SLOT, f"there is no {what} named {name!r}", f"known ones: {names}"
    )
