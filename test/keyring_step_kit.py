"""Rotations as keyrings alone: each step taken by the rules, each keyring written and read back."""

from __future__ import annotations

from lifecycle_kit import ADMIN, copy_of
from spike.lifecycle import keyring
from spike.lifecycle import rotation as rules
from spike.lifecycle.keyring import Emergency, KeyPurpose, Keyring, Phase, RotationKind, Scope
from spike.lifecycle.ring import KeyName, KeyRing
from spike.lifecycle.rotation import Incoming
from spike.lifecycle.rotation_flip import flipped
from spike.lifecycle.rotation_plan import Plan, numbers_of, plan_of, require_startable
from spike.memory.key_memory import KeyMemory

LATER = "2026-11-23T13:00:00Z"


def plan(scope: Scope = Scope.FULL, number: int = 1, **changes: object) -> Plan:
    whole: dict[str, object] = {
        "id": f"{number:032x}",
        "scope": scope,
        "actor": ADMIN,
        "reason": "a test",
        "window_s": 60,
        **changes,
    }
    return Plan(**whole)  # type: ignore[arg-type]


def incoming_for(ring: KeyRing, asked: Plan) -> Incoming:
    numbers = numbers_of(ring.document, asked)
    if asked.kind is RotationKind.ROLLBACK and numbers.root.after != numbers.root.before:
        return Incoming(ring.key(KeyName(KeyPurpose.ROOT, "", numbers.root.after)))
    root = ring.root if numbers.root.after == numbers.root.before else KeyMemory.generate()
    return Incoming(root, {name: KeyMemory.generate() for name in numbers.new_names})


def reread(document: Keyring, root: KeyMemory) -> Keyring:
    """Write a keyring and read it back, as every step does: only what is canonical and consistent passes."""
    again = keyring.decode_untrusted(keyring.encode(document, root)).confirmed_by(root)
    assert again == document
    return again


def to_flip(ring: KeyRing, asked: Plan) -> KeyRing:
    """Take a ring through every step up to the flip and return the ring after it. What was begun is begun again."""
    running = ring.document.rotation
    if running is None or plan_of(running) != asked:
        require_startable(ring.document, asked)
    incoming = incoming_for(ring, asked)
    numbers = numbers_of(ring.document, asked)
    document = reread(rules.prepared(ring, asked, numbers, incoming, LATER), ring.root)
    auth = {slot.id: ring.auth(slot.id) for slot in document.slots}
    slots = rules.sealed_slots(document, incoming.root, auth, LATER)
    document = reread(rules.backed_up(document, slots, 1, LATER), ring.root)
    following = flipped(document, LATER, has_keepers=False)
    reread(following, incoming.root)
    after = ring.succeeded(following, incoming.root, incoming.added)
    # It opens from what is stored with the new root key and nothing else.
    KeyRing.open(following, copy_of(incoming.root)).wipe()
    return after


def to_end(ring: KeyRing) -> KeyRing:
    document = ring.document
    if document.rotation is not None and document.rotation.phase is Phase.RE_ENCRYPTING:
        document = reread(rules.verified(document, LATER, {"bad": "0"}), ring.root)
    document = reread(rules.finalizing(document, LATER, ADMIN), ring.root)
    document = reread(rules.finalized(document, LATER, {}), ring.root)
    return ring.changed(document, {})


def states(document: Keyring) -> dict[str, str]:
    told = {f"root {root.number}": root.state.value for root in document.roots}
    return told | {
        f"{key.purpose} {key.number}": key.state.value
        for key in document.keys
        if key.purpose is not KeyPurpose.BACKUP_AUTH
    }


def emergency(*leaked: str) -> Emergency:
    return Emergency(leaked=leaked or ("root",))
