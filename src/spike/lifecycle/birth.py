"""The first keyring of a store: one active root key, the keys below it, one password slot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from spike.crypto.purpose import check_value
from spike.lifecycle.keyring import (
    Event,
    KeyPurpose,
    Keyring,
    RootGeneration,
    ShareSet,
    Slot,
    SlotKind,
    WrappedKey,
)
from spike.lifecycle.ring import KeyName, KeyRing, check_of, wrap
from spike.lifecycle.slot import seal_root
from spike.lifecycle.state import State, Transition, enter
from spike.memory.key_memory import KeyMemory

FIRST: Final = 1


@dataclass(frozen=True, slots=True)
class Origin:
    """What a store is born with: fresh random identifiers, the moment (RFC 3339, UTC) and who asked."""

    store_id: str
    lineage: str
    slot_id: str
    at: str
    actor: str


@dataclass(frozen=True, slots=True)
class NewSlot:
    """A slot as the password's derivation gave it: public key, its `backup-auth` key, and how to derive them again."""

    name: str
    argon2: str
    salt: bytes
    public: bytes
    auth: KeyMemory


def first_ring(
    origin: Origin, new: NewSlot | None, root: KeyMemory, shares: ShareSet | None = None
) -> KeyRing:
    """Return the ring of a new store. Takes over `root` and the slot's key, also when it fails.

    Only a store that keeps nothing is born without a slot: there is nothing its key could bring back. `shares` is the
    set that the Keepers already hold, if there are any; with the first keyring it is in force.
    """
    keys = {
        KeyName(KeyPurpose.RECORD, "", FIRST): KeyMemory.generate(),
        KeyName(KeyPurpose.CIPHER, "", FIRST): KeyMemory.generate(),
        KeyName(KeyPurpose.AUDIT, "", FIRST): KeyMemory.generate(),
    }
    if new is not None:
        keys[KeyName(KeyPurpose.BACKUP_AUTH, origin.slot_id, FIRST)] = new.auth
    try:
        return KeyRing(_first_document(origin, new, root, keys, shares), root, keys)
    except BaseException:
        for key in (*keys.values(), root):
            key.wipe()
        raise


def _first_document(
    origin: Origin,
    new: NewSlot | None,
    root: KeyMemory,
    keys: dict[KeyName, KeyMemory],
    shares: ShareSet | None,
) -> Keyring:
    born = _born(origin)
    check = check_value(root, bytes.fromhex(origin.store_id), FIRST).hex()
    return Keyring(
        store_id=origin.store_id,
        lineage=origin.lineage,
        revision=1,
        epoch=1,
        created_at=origin.at,
        replaced_at=origin.at,
        roots=(RootGeneration(number=FIRST, check=check, history=born),),
        keys=tuple(
            WrappedKey(
                purpose=name.purpose,
                slot=name.slot,
                number=name.number,
                root=FIRST,
                check=check_of(origin.store_id, name, key),
                wrapped=wrap(root, FIRST, origin.store_id, name, key),
                history=born,
            )
            for name, key in keys.items()
        ),
        slots=() if new is None else (_first_slot(origin, new, root, check),),
        share_sets=() if shares is None else (msgspec.structs.replace(shares, staged=False),),
        operation=None,
        oldest_cipher=FIRST,
        next_event=2,
        outbox=(Event(sequence=1, at=origin.at, kind="init", actor=origin.actor, detail={}),),
        audit_head="",
    )


def _first_slot(origin: Origin, new: NewSlot, root: KeyMemory, check: str) -> Slot:
    unsealed = Slot(
        id=origin.slot_id,
        name=new.name,
        kind=SlotKind.PASSWORD,
        argon2=new.argon2,
        salt=new.salt,
        public=new.public,
        created_at=origin.at,
        verified_at=origin.at,
        renew=False,
        roots=(),
    )
    sealed = seal_root(
        root,
        store_id=origin.store_id,
        lineage=origin.lineage,
        slot=unsealed,
        auth=new.auth,
        generation=FIRST,
        check=check,
        sealed_at=origin.at,
    )
    return msgspec.structs.replace(unsealed, roots=(sealed,))


def _born(origin: Origin) -> tuple[Transition, ...]:
    reason = "the store was initialized"
    made = Transition(state=State.PRE_ACTIVATION, at=origin.at, actor=origin.actor, reason=reason)
    active = Transition(state=State.ACTIVE, at=origin.at, actor=origin.actor, reason=reason)
    return enter(enter((), made), active)
