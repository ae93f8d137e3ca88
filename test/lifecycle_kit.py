"""A store's first ring for tests, from a derived key instead of a password: Argon2id is tested where it is meant."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from spike.crypto.slot import Argon2Setting, SlotKey, derive_slot_secret
from spike.lifecycle import keyring
from spike.lifecycle.birth import NewSlot, Origin, first_ring
from spike.lifecycle.ring import KeyRing
from spike.memory.key_memory import KeyMemory

AT = "2026-11-23T12:00:00Z"
LEAST_ARGON2 = Argon2Setting(memory_kib=64 * 1024, passes=3, lanes=4)
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


def born(name: str = "admin", password: bytes | None = None) -> Born:
    """Return a new store with one slot, of a random slot secret or of a password at the least cost."""
    origin = Origin(secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(16), AT, ADMIN)
    salt = secrets.token_bytes(16)
    secret = (
        KeyMemory.generate()
        if password is None
        else derive_slot_secret(password, salt, LEAST_ARGON2)
    )
    slot_key = SlotKey.from_slot_secret(
        secret, bytes.fromhex(origin.store_id), bytes.fromhex(origin.slot_id)
    )
    secret.wipe()
    slot = NewSlot(name, LEAST_ARGON2.phc(), salt, slot_key.public, copy_of(slot_key.auth))
    ring = first_ring(origin, slot, KeyMemory.generate())
    return Born(ring, keyring.encode(ring.document, ring.root), slot_key)
