"""A store's first ring for tests, from a derived key instead of a password: Argon2id is tested where it is meant."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import msgspec

from spike.crypto.slot import Argon2Setting, SlotKey, derive_slot_secret
from spike.lifecycle import keyring
from spike.lifecycle.birth import NewSlot, Origin, first_ring
from spike.lifecycle.keyring import KeyPurpose, Keyring, WrappedKey
from spike.lifecycle.ring import KeyName, KeyRing, check_of, wrap
from spike.lifecycle.state import State, Transition, enter
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


def with_next_cipher(ring: KeyRing) -> KeyRing:
    """Return a ring one keyring later, whose cipher key has one more generation. The keys are copies."""
    return _with_next(ring, KeyPurpose.CIPHER, State.DEACTIVATED)


def with_next_record(ring: KeyRing) -> KeyRing:
    """Return a ring one keyring later that seals records under one more generation. The keys are copies."""
    return _with_next(ring, KeyPurpose.RECORD, State.SUSPENDED)


def _with_next(ring: KeyRing, purpose: KeyPurpose, after: State) -> KeyRing:
    document = ring.document
    old = document.active_key(purpose)
    number = old.number + 1
    with KeyMemory.generate() as key:
        name = KeyName(purpose, "", number)
        new = WrappedKey(
            purpose=purpose,
            slot="",
            number=number,
            root=document.active_root.number,
            check=check_of(document.store_id, name, key),
            wrapped=wrap(ring.root, document.active_root.number, document.store_id, name, key),
            history=enter(enter((), _step(State.PRE_ACTIVATION)), _step(State.ACTIVE)),
        )
    ended = msgspec.structs.replace(old, history=enter(old.history, _step(after)))
    keys = tuple(ended if each is old else each for each in document.keys)
    return KeyRing.open(_next(document, keys=(*keys, new)), copy_of(ring.root))


def accepting_from(ring: KeyRing, oldest_cipher: int) -> KeyRing:
    """Return a ring one keyring later that decrypts nothing older than a generation."""
    return ring.replaced(_next(ring.document, oldest_cipher=oldest_cipher))


def _next(document: Keyring, **changes: object) -> Keyring:
    later = {"revision": document.revision + 1, "epoch": document.epoch + 1, **changes}
    return msgspec.structs.replace(document, **later)


def _step(state: State) -> Transition:
    return Transition(state=state, at=AT, actor=ADMIN, reason="a test")


def born(name: str = "admin", password: bytes | None = None, at: str = AT) -> Born:
    """Return a new store with one slot, of a random slot secret or of a password at the least cost."""
    origin = Origin(secrets.token_hex(16), secrets.token_hex(16), secrets.token_hex(16), at, ADMIN)
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
