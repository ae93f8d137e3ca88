"""The rules of slots: added, changed, removed; what is remembered; when a password is due. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import msgspec
import pytest

import lifecycle_kit
from spike.crypto.slot import SlotKey
from spike.lifecycle import keyring, slot_change
from spike.lifecycle.attempt import LAST_DELAY_S, AttemptDelay
from spike.lifecycle.birth import NewSlot
from spike.lifecycle.keyring import (
    Keyring,
    LifecycleOperation,
    RootGeneration,
    SealedRoot,
    SlotKind,
)
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.slot_due import due_at, is_overdue
from spike.lifecycle.slot_key import Act, ended
from spike.lifecycle.slot_retired import retired_with, still_opening
from spike.lifecycle.state import State, Transition, enter
from spike.memory.key_memory import KeyMemory

ACT = Act("2026-11-24T03:00:00Z", "spiffe://spike.ist/spike/pilot/role/recover", "a test")


def refused(reason: Reason) -> pytest.RaisesExc[RefusalError]:
    return pytest.raises(RefusalError, check=lambda error: error.reason is reason)


@pytest.fixture
def ring() -> Iterator[KeyRing]:
    made = lifecycle_kit.born().ring
    yield made
    made.wipe()


def new_slot(document: Keyring, name: str, slot_id: str) -> NewSlot:
    """Return a slot as a password's derivation gives it, from a random secret."""
    with KeyMemory.generate() as secret:
        key = SlotKey.from_slot_secret(
            secret, bytes.fromhex(document.store_id), bytes.fromhex(slot_id)
        )
    argon2 = lifecycle_kit.LEAST_ARGON2.phc()
    return NewSlot(name, argon2, secrets.token_bytes(16), key.public, key.auth)


def with_slot(ring: KeyRing, name: str) -> KeyRing:
    """Return the ring with one more slot, as its keyring is read back."""
    slot_id = secrets.token_hex(16)
    new = new_slot(ring.document, name, slot_id)
    following = slot_change.added(ring.document, ring.root, slot_id, new, ACT)
    confirmed = keyring.decode_untrusted(keyring.encode(following, ring.root)).confirmed_by(
        ring.root
    )
    assert confirmed == following
    key_name = slot_change.next_key_name(ring.document, slot_id)
    return ring.changed(following, {key_name: new.auth})


def changed(ring: KeyRing, name: str) -> KeyRing:
    old = slot_change.password_slot(ring.document, name)
    new = new_slot(ring.document, name, old.id)
    following = slot_change.changed(ring.document, ring.root, new, ACT)
    key_name = slot_change.next_key_name(ring.document, old.id)
    return ring.changed(following, {key_name: new.auth})


def test_each_change_is_an_epoch_a_revision_and_an_event(ring: KeyRing) -> None:
    before = ring.document
    for following, kind in (
        (with_slot(ring, "alice").document, "slot-add"),
        (changed(ring, "admin").document, "slot-change"),
        (slot_change.removed(with_slot(ring, "alice").document, "admin", ACT), "slot-remove"),
    ):
        assert following.epoch > before.epoch
        assert following.revision > before.revision
        assert following.outbox[-1].kind == kind
        assert following.outbox[-1].actor == ACT.actor
        keyring.encode(following, ring.root)


def test_a_ring_of_many_slots_opens_again_from_its_document(ring: KeyRing) -> None:
    present = with_slot(with_slot(ring, "alice"), "bob")
    present = changed(changed(present, "alice"), "alice")
    again = KeyRing.open(present.document, lifecycle_kit.copy_of(ring.root))
    assert again.mismatches() == present.mismatches() == ()
    for slot in present.document.slots:
        assert again.auth(slot.id).same_as(present.auth(slot.id))
    again.wipe()


def test_numbers_of_a_slot_s_keys_are_never_used_again(ring: KeyRing) -> None:
    present = ring
    for _ in range(3):
        present = changed(present, "admin")
    slot = present.document.slots[0]
    keys = [key for key in present.document.keys if key.slot == slot.id]
    assert [key.number for key in keys] == [1, 2, 3, 4]
    assert [key.state for key in keys] == [State.DESTROYED] * 3 + [State.ACTIVE]


def test_names_are_one_slot_s_alone(ring: KeyRing) -> None:
    with refused(Reason.SLOT_EXISTS):
        with_slot(ring, "admin")
    with refused(Reason.UNKNOWN_SLOT):
        changed(ring, "alice")
    with refused(Reason.UNKNOWN_SLOT):
        slot_change.removed(ring.document, "alice", ACT)


def test_nothing_begins_while_a_lifecycle_operation_is_in_progress(ring: KeyRing) -> None:
    operation = LifecycleOperation(
        id="0" * 32, kind="refresh", phase="p", started_at=ACT.at, actor=ACT.actor, detail={}
    )
    busy = ring.replaced(
        msgspec.structs.replace(with_slot(ring, "x").document, operation=operation)
    )
    with refused(Reason.BUSY):
        with_slot(busy, "alice")
    with refused(Reason.BUSY):
        slot_change.changed(busy.document, ring.root, new_slot(busy.document, "x", "0" * 32), ACT)
    with refused(Reason.BUSY):
        slot_change.removed(busy.document, "x", ACT)


def marked(document: Keyring, name: str, *, renew: bool = True) -> Keyring:
    slots = tuple(
        msgspec.structs.replace(slot, renew=renew) if slot.name == name else slot
        for slot in document.slots
    )
    return msgspec.structs.replace(document, slots=slots)


def test_the_last_slot_that_can_be_used_stays(ring: KeyRing) -> None:
    with refused(Reason.LAST_SLOT):
        slot_change.removed(ring.document, "admin", ACT)
    two = with_slot(ring, "alice").document
    assert [slot.name for slot in slot_change.removed(two, "admin", ACT).slots] == ["alice"]
    with refused(Reason.LAST_SLOT):  # the other one waits for a new password
        slot_change.removed(marked(two, "alice"), "admin", ACT)
    copies: tuple[SealedRoot, ...] = ()
    sealed_away = tuple(
        msgspec.structs.replace(slot, roots=copies) if slot.name == "alice" else slot
        for slot in two.slots
    )
    with refused(Reason.LAST_SLOT):  # the other one holds no copy of the active root key
        slot_change.removed(msgspec.structs.replace(two, slots=sealed_away), "admin", ACT)


def test_only_a_new_password_ends_that_a_slot_waits_for_one(ring: KeyRing) -> None:
    waiting = ring.replaced(marked(ring.document, "admin"))
    noted = slot_change.verified(waiting.document, waiting.document.slots[0].id, ACT)
    assert noted.slots[0].renew
    assert not slot_change.is_usable(noted, noted.slots[0])
    assert with_slot(waiting, "alice").document.slots[0].renew
    renewed = changed(waiting, "admin").document
    assert not renewed.slots[0].renew
    assert slot_change.is_usable(renewed, renewed.slots[0])


def test_a_verification_keeps_the_date_and_is_no_epoch(ring: KeyRing) -> None:
    slot = ring.document.slots[0]
    noted = slot_change.verified(ring.document, slot.id, ACT)
    assert (noted.epoch, noted.revision) == (ring.document.epoch, ring.document.revision + 1)
    assert noted.slots[0].verified_at == ACT.at
    assert noted.slots[0].roots == slot.roots
    assert noted.outbox[-1].kind == "slot-verify"


def two_generations(ring: KeyRing, state: State) -> Keyring:
    """Return a document with an older root key in some state, of which its slot holds a copy."""
    active = ring.document.active_root
    history = enter(active.history, Transition(State.SUSPENDED, ACT.at, "nexus", "a rotation"))
    if state in (State.DEACTIVATED, State.DESTROYED):
        history = enter(history, Transition(State.DEACTIVATED, ACT.at, "nexus", "a rotation"))
    if state is State.DESTROYED:
        history = enter(history, Transition(State.DESTROYED, ACT.at, "nexus", "a rotation"))
    older = msgspec.structs.replace(active, history=history)
    newer = RootGeneration(number=2, check="0" * 64, history=active.history)
    return msgspec.structs.replace(ring.document, roots=(older, newer))


@pytest.mark.parametrize("state", [State.SUSPENDED, State.DEACTIVATED])
def test_what_an_old_password_opens_is_remembered_until_the_root_key_is_destroyed(
    ring: KeyRing, state: State
) -> None:
    slot = ring.document.slots[0]
    held = two_generations(ring, state)
    retired = retired_with(held, slot, ACT.at)
    assert [(e.name, e.kind, e.generation, e.at) for e in retired] == [
        ("admin", SlotKind.PASSWORD, 1, ACT.at),
        ("admin", SlotKind.PASSWORD, 2, ACT.at),
    ]
    later = msgspec.structs.replace(held, retired=retired)
    assert still_opening(later) == retired
    ended_root = msgspec.structs.replace(two_generations(ring, State.DESTROYED), retired=retired)
    assert [e.generation for e in still_opening(ended_root)] == [2]
    assert [e.generation for e in retired_with(ended_root, None, ACT.at)] == [2]


def test_the_memory_of_one_slot_and_root_key_is_one_entry(ring: KeyRing) -> None:
    present = ring
    for _ in range(5):
        present = changed(present, "admin")
    assert len(present.document.retired) == 1
    raw = keyring.encode(present.document, ring.root)
    assert raw.startswith(b"spike-keyring 2\n"), "format 1 has no word for it"


@pytest.mark.parametrize(
    "steps", [(), (State.SUSPENDED,), (State.DEACTIVATED,), (State.COMPROMISED,)]
)
def test_a_key_in_any_state_can_be_ended_and_nothing_wrapped_is_left(
    ring: KeyRing, steps: tuple[State, ...]
) -> None:
    key = next(k for k in ring.document.keys if k.slot)
    for state in steps:
        history = enter(key.history, Transition(state, ACT.at, "nexus", "a test"))
        key = msgspec.structs.replace(key, history=history)
    gone = ended(key, ACT)
    assert (gone.state, gone.wrapped, gone.number) == (State.DESTROYED, b"", key.number)
    assert ended(gone, ACT) == gone


def test_a_password_is_due_ninety_days_after_it_was_shown(ring: KeyRing) -> None:
    slot = ring.document.slots[0]
    assert slot.verified_at == "2026-11-23T12:00:00Z"
    assert due_at(slot) == "2027-02-21T12:00:00Z"
    assert not is_overdue(slot, "2027-02-21T11:59:59Z")
    assert is_overdue(slot, "2027-02-21T12:00:00Z")
    shards = msgspec.structs.replace(slot, kind=SlotKind.SHARDS)
    assert due_at(shards) is None
    assert not is_overdue(shards, "2099-01-01T00:00:00Z")


def test_a_thousand_wrong_passwords_wait_a_minute_each_and_lock_nobody_out() -> None:
    """On a fake clock: the delay doubles up to 60 s, stays there, is each slot's own, and ends with a right one."""
    delay, now_s, waits = AttemptDelay(), 0.0, []
    for _ in range(1000):
        wait_s = delay.wait_s("alice", now_s)
        waits.append(wait_s)
        assert delay.wait_s("bob", now_s) == 0
        assert delay.wait_s("alice", now_s + wait_s) == 0, "after the wait the next one is let in"
        now_s += wait_s
        delay.wrong("alice", now_s)
    assert waits[:8] == [0, 1, 2, 4, 8, 16, 32, 60]
    assert set(waits[7:]) == {LAST_DELAY_S}
    assert now_s < 1000 * 60
    delay.right("alice")
    assert delay.wait_s("alice", now_s) == 0
