"""A store's first ring for tests, from a derived key instead of a password: Argon2id is tested where it is meant."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from spike.crypto.slot import SlotKey
from spike.lifecycle import keyring
from spike.lifecycle.birth import NewSlot, Origin, first_ring
from spike.lifecycle.ring import KeyRing
from spike.memory.key_memory import KeyMemory

AT = "2026-11-23T12:00:00Z"
ADMIN = "spiffe://spike.ist/spike/pilot/role/superuser"


@dataclass
class Born:
    """A newborn store: its ring, its encoded keyring and what opens its slot."""

    ring: KeyRing
    raw: bytes
    slot_key: SlotKey


def copy_of(key: KeyMemory) -> KeyMemory:
    """Return another memory with the same bytes."""
    own = KeyMemory.allocate(32)
    with key.view() as source, own.view() as target:
        target[:] = source
    return own


def born(name: str = "admin") -> Born:
    """Return a new store with one slot."""
    origin = Origin(secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(16), AT, ADMIN)
    slot_key = SlotKey.from_slot_secret(
        KeyMemory.generate(), bytes.fromhex(origin.store_id), bytes.fromhex(origin.slot_id)
    )
    slot = NewSlot(
        name,
        "$argon2id$v=19$m=262144,t=3,p=4",
        secrets.token_bytes(16),
        slot_key.public,
        copy_of(slot_key.auth),
    )
    ring = first_ring(origin, slot, KeyMemory.generate())
    return Born(ring, keyring.encode(ring.document, ring.root), slot_key)
