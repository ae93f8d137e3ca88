"""A slot's sealed copies of the root key, and what authenticates them.

The root key is sealed (HPKE) to the slot's public key, with the slot's header as `info`. Anyone can seal to a public
key, so the sealed copy also carries a MAC under the slot's `backup-auth` key, over header and copy: a storage writer
who plants a root key of his own cannot make it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from spike.crypto.mac import mac, mac_matches
from spike.crypto.slot import seal_to
from spike.lifecycle.keyring import Keyring, SealedRoot, Slot, SlotKind
from spike.memory.key_memory import KeyMemory

HEADER_FORMAT: Final = 1


class SlotHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a sealed copy is bound to; its canonical JSON is HPKE's `info` and covered by the MAC."""

    format: int
    store_id: str
    lineage: str
    slot_id: str
    name: str
    kind: SlotKind
    argon2: str
    salt: bytes
    public: bytes
    generation: int
    check: str
    sealed_at: str
    pending: bool


def header_of(keyring: Keyring, slot: Slot, sealed: SealedRoot) -> bytes:
    """Return the canonical header of one sealed copy."""
    return _header(keyring.store_id, keyring.lineage, slot, sealed)


def _header(store_id: str, lineage: str, slot: Slot, sealed: SealedRoot) -> bytes:
    return msgspec.json.encode(
        SlotHeader(
            format=HEADER_FORMAT,
            store_id=store_id,
            lineage=lineage,
            slot_id=slot.id,
            name=slot.name,
            kind=slot.kind,
            argon2=slot.argon2,
            salt=slot.salt,
            public=slot.public,
            generation=sealed.generation,
            check=sealed.check,
            sealed_at=sealed.sealed_at,
            pending=sealed.pending,
        )
    )


def seal_root(
    root: KeyMemory,
    *,
    store_id: str,
    lineage: str,
    slot: Slot,
    auth: KeyMemory,
    generation: int,
    check: str,
    sealed_at: str,
    pending: bool = False,
) -> SealedRoot:
    """Seal a root-key generation to a slot; needs nobody's password."""
    unsealed = SealedRoot(
        generation=generation,
        check=check,
        sealed_at=sealed_at,
        pending=pending,
        sealed=b"",
        tag="0" * 64,
    )
    header = _header(store_id, lineage, slot, unsealed)
    with root.view() as view:
        sealed = seal_to(slot.public, header, view)
    return msgspec.structs.replace(unsealed, sealed=sealed, tag=_tag(auth, header, sealed))


def is_authentic(auth: KeyMemory, header: bytes, sealed: SealedRoot) -> bool:
    """Return whether the sealed copy was made by an owner of the slot's `backup-auth` key."""
    return mac_matches(auth, covered(header, sealed.sealed), bytes.fromhex(sealed.tag))


def _tag(auth: KeyMemory, header: bytes, sealed: bytes) -> str:
    return mac(auth, covered(header, sealed)).hex()


def covered(header: bytes, sealed: bytes) -> bytes:
    """Return what the MAC of a sealed copy covers."""
    return b"spike-sealed-root 1\n" + len(header).to_bytes(4, "big") + header + sealed
