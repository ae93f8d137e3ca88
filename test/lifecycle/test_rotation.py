"""The keyrings a rotation passes through: each opens under its root key alone, and says no more than what is so."""

from __future__ import annotations

import msgspec
import pytest

import lifecycle_kit
from keyring_step_kit import LATER, emergency, incoming_for, plan, reread, states, to_end, to_flip
from lifecycle_kit import ADMIN, AT
from spike.lifecycle import keyring, preflight
from spike.lifecycle import rotation as rules
from spike.lifecycle.keyring import (
    Emergency,
    KeyPurpose,
    Phase,
    RotationKind,
    Scope,
    ShareMember,
    ShareSet,
)
from spike.lifecycle.preflight import Result
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.rotation_flip import flipped
from spike.lifecycle.rotation_plan import numbers_of, plan_of, require_startable
from spike.lifecycle.slot_retired import retired_with
from spike.lifecycle.state import State


@pytest.fixture
def ring() -> KeyRing:
    return lifecycle_kit.born().ring


def test_a_full_rotation_replaces_root_record_and_cipher_key(ring: KeyRing) -> None:
    after = to_flip(ring, plan())
    told = states(after.document)
    assert told["root 2"] == told["record 2"] == told["cipher 2"] == "active"
    assert told["root 1"] == told["record 1"] == told["cipher 1"] == "suspended"
    assert after.document.epoch == ring.document.epoch + 1
    ended = to_end(after)
    assert states(ended.document) == {
        "root 1": "destroyed",
        "root 2": "active",
        "record 1": "destroyed",
        "record 2": "active",
        "cipher 1": "deactivated",
        "cipher 2": "active",
        "audit 1": "active",
    }
    assert ended.document.rotation is None
    assert ended.document.epoch == ring.document.epoch + 2


def test_what_is_destroyed_leaves_nothing_to_unwrap(ring: KeyRing) -> None:
    ended = to_end(to_flip(ring, plan()))
    for key in ended.document.keys:
        assert (key.wrapped == b"") == (key.state is State.DESTROYED)
    assert not [key for key in ended.document.keys if key.purpose is KeyPurpose.ROOT]


@pytest.mark.parametrize("scope", [Scope.ROOT_ONLY, Scope.DATA_ONLY])
def test_half_a_rotation_replaces_its_half(ring: KeyRing, scope: Scope) -> None:
    ended = to_end(to_flip(ring, plan(scope)))
    told = states(ended.document)
    assert ("root 2" in told) == (scope is Scope.ROOT_ONLY)
    assert ("record 2" in told) == (scope is Scope.DATA_ONLY)
    assert ended.document.active_root.number == (2 if scope is Scope.ROOT_ONLY else 1)


def test_a_root_only_rotation_has_nothing_to_re_encrypt(ring: KeyRing) -> None:
    after = to_flip(ring, plan(Scope.ROOT_ONLY))
    assert after.document.rotation is not None
    assert after.document.rotation.phase is Phase.VERIFIED


@pytest.mark.parametrize("scope", list(Scope))
@pytest.mark.parametrize("is_verified", [False, True])
def test_a_rollback_brings_the_suspended_generations_back(
    ring: KeyRing, scope: Scope, is_verified: bool
) -> None:
    after = to_flip(ring, plan(scope))
    rotation = after.document.rotation
    assert rotation is not None
    if is_verified and rotation.phase is Phase.RE_ENCRYPTING:
        after = after.replaced(rules.verified(after.document, LATER, {}))
    back = to_flip(after, plan(scope, 2, kind=RotationKind.ROLLBACK, window_s=0))
    told = states(back.document)
    assert told["root 1"] == told["record 1"] == told["cipher 1"] == "active"
    ended = to_end(back)
    told = states(ended.document)
    assert told.get("root 2", "destroyed") == "destroyed"
    assert told.get("record 2", "destroyed") == "destroyed"
    # What was encrypted for others meanwhile stays readable.
    assert told.get("cipher 2", "deactivated") == "deactivated"
    assert ended.root is ring.root


def test_numbers_are_never_used_twice(ring: KeyRing) -> None:
    ended = to_end(to_flip(ring, plan()))
    back = to_flip(to_flip(ended, plan(number=2)), plan(number=3, kind=RotationKind.ROLLBACK))
    again = to_flip(to_end(back), plan(number=4))
    numbers = [root.number for root in again.document.roots]
    assert numbers == [1, 2, 3, 4]
    assert again.document.active_root.number == 4


def test_what_was_prepared_is_dropped_without_a_trace_but_its_numbers(ring: KeyRing) -> None:
    asked = plan()
    document = rules.prepared(
        ring, asked, numbers_of(ring.document, asked), incoming_for(ring, asked), LATER
    )
    ended = reread(rules.dropped(document, LATER, "a test"), ring.root)
    assert ended.rotation is None
    assert states(ended)["root 2"] == states(ended)["record 2"] == "destroyed"
    assert numbers_of(ended, plan(number=2)).root.after == 3
    assert numbers_of(ended, plan(number=2)).record.after == 3
    assert ended.slots == ring.document.slots


def test_what_was_interrupted_is_prepared_again_with_new_numbers_in_one_write(
    ring: KeyRing,
) -> None:
    asked = plan()
    first = rules.prepared(
        ring, asked, numbers_of(ring.document, asked), incoming_for(ring, asked), LATER
    )
    held = ring.replaced(first)
    assert first.rotation is not None
    again = plan_of(first.rotation)
    assert again == asked
    numbers = numbers_of(first, again)
    second = reread(
        rules.prepared(held, again, numbers, incoming_for(held, again), LATER), ring.root
    )
    assert second.rotation is not None
    assert (second.rotation.attempt, second.rotation.root.after) == (2, 3)
    assert states(second)["root 2"] == states(second)["record 2"] == "destroyed"
    assert second.revision > first.revision


def test_a_rollback_that_is_dropped_lets_the_rotation_go_on(ring: KeyRing) -> None:
    after = to_flip(ring, plan())
    asked = plan(number=2, kind=RotationKind.ROLLBACK, window_s=0)
    document = rules.prepared(
        after, asked, numbers_of(after.document, asked), incoming_for(after, asked), LATER
    )
    again = after.replaced(document)
    second = rules.prepared(
        again, asked, numbers_of(document, asked), incoming_for(again, asked), LATER
    )
    ended = reread(rules.dropped(second, LATER, "a test"), after.root)
    assert ended.rotation == after.document.rotation
    assert states(ended) == states(after.document)


def test_an_emergency_compromises_what_the_old_root_key_wrapped(ring: KeyRing) -> None:
    after = to_flip(ring, plan(window_s=0, emergency=emergency()))
    told = states(after.document)
    assert (
        told["root 1"] == told["record 1"] == told["cipher 1"] == told["audit 1"] == "compromised"
    )
    assert told["root 2"] == told["record 2"] == told["cipher 2"] == told["audit 2"] == "active"
    assert not [key for key in after.document.keys if key.purpose is KeyPurpose.ROOT]
    assert all(slot.renew for slot in after.document.slots)
    with pytest.raises(RefusalError, match="compromised"):
        require_startable(after.document, plan(number=2, kind=RotationKind.ROLLBACK))


def test_nothing_of_the_new_key_is_wrapped_under_a_leaked_one(ring: KeyRing) -> None:
    asked = plan(window_s=0, emergency=emergency())
    document = rules.prepared(
        ring, asked, numbers_of(ring.document, asked), incoming_for(ring, asked), LATER
    )
    assert document.rotation is not None
    assert {key.root for key in document.rotation.next_keys} == {2}


def test_an_emergency_begins_while_another_rotation_re_encrypts(ring: KeyRing) -> None:
    after = to_flip(ring, plan())
    third = to_flip(after, plan(number=2, window_s=0, emergency=emergency()))
    told = states(third.document)
    assert told["root 1"] == told["root 2"] == "compromised"
    assert told["record 1"] == told["record 2"] == "compromised"
    ended = to_end(third)
    told = states(ended.document)
    assert told["record 1"] == told["record 2"] == told["root 1"] == told["root 2"] == "destroyed"
    assert told["cipher 1"] == told["cipher 2"] == "compromised"


def test_a_leaked_slot_gets_nothing_sealed_to_it(ring: KeyRing) -> None:
    with pytest.raises(RefusalError, match="no slot would be left"):
        to_flip(ring, plan(window_s=0, emergency=emergency("slot:admin")))


def test_an_emergency_replaces_everything(ring: KeyRing) -> None:
    with pytest.raises(RefusalError) as caught:
        require_startable(ring.document, plan(Scope.ROOT_ONLY, emergency=emergency()))
    assert caught.value.reason is Reason.ROTATION


def test_one_rotation_at_a_time(ring: KeyRing) -> None:
    after = to_flip(ring, plan())
    for number in (2, 3):
        with pytest.raises(RefusalError) as caught:
            require_startable(after.document, plan(number=number))
        assert caught.value.reason is Reason.BUSY
    done = rules.verified(after.document, LATER, {})
    with pytest.raises(RefusalError, match="can still be rolled back"):
        require_startable(done, plan(number=4))


def test_the_flip_asks_for_a_copy_in_every_slot_and_for_the_keepers(ring: KeyRing) -> None:
    asked = plan()
    incoming = incoming_for(ring, asked)
    document = rules.prepared(ring, asked, numbers_of(ring.document, asked), incoming, LATER)
    unsealed = rules.backed_up(document, document.slots, 0, LATER)
    with pytest.raises(RefusalError, match="slot admin holds no copy"):
        flipped(unsealed, LATER, has_keepers=False)
    auth = {slot.id: ring.auth(slot.id) for slot in document.slots}
    slots = rules.sealed_slots(document, incoming.root, auth, LATER)
    sealed = rules.backed_up(document, slots, 0, LATER)
    with pytest.raises(RefusalError, match="Keepers hold no shares"):
        flipped(sealed, LATER, has_keepers=True)
    member = ShareMember(index=1, identity="", url="https://127.0.0.1:1", digest="0" * 64)
    wrong = ShareSet(id="a" * 32, generation=1, threshold=1, staged=True, members=(member,))
    with pytest.raises(RefusalError, match="Keepers hold no shares"):
        flipped(msgspec.structs.replace(sealed, share_sets=(wrong,)), LATER, has_keepers=True)
    right = msgspec.structs.replace(wrong, generation=2)
    held = msgspec.structs.replace(sealed, share_sets=(wrong, right))
    after = flipped(held, LATER, has_keepers=True)
    assert after.share_sets == (msgspec.structs.replace(right, staged=False),)


def test_a_pause_is_written_once(ring: KeyRing) -> None:
    after = to_flip(ring, plan())
    held = rules.held(after.document, AT, ADMIN, paused=True)
    assert held is not None
    assert held.rotation is not None
    assert held.rotation.paused
    assert rules.held(held, AT, ADMIN, paused=True) is None
    assert rules.held(held, AT, ADMIN, paused=False) is not None


def test_every_step_is_told_by_the_write_that_makes_it_true(ring: KeyRing) -> None:
    ended = to_end(to_flip(ring, plan()))
    kinds = [event.kind for event in ended.document.outbox]
    assert kinds == [
        "init",
        "rotation-started",
        "rotation-backed-up",
        "rotation-flipped",
        "rotation-verified",
        "rotation-finalizing",
        "rotation-finalized",
    ]
    assert {event.detail["id"] for event in ended.document.outbox[1:]} == {f"{1:032x}"}
    last = ended.document.outbox[-1]
    assert last.detail["destroyed"] == "root 1, record 1"


def test_a_rotation_that_fails_again_and_again_does_not_fill_the_keyring(ring: KeyRing) -> None:
    leaked = plan(number=99, emergency=Emergency(leaked=("root",)), window_s=0)
    sizes, numbers = set(), []
    for _ in range(8):
        incoming, following = incoming_for(ring, leaked), numbers_of(ring.document, leaked)
        numbers.append(following.root.after)
        document = rules.prepared(ring, leaked, following, incoming, LATER)
        ring = ring.replaced(msgspec.structs.replace(document, outbox=()))
        sizes.add(len(keyring.encode(ring.document, ring.root)) // 100)
    assert numbers == list(range(2, 10))
    assert max(sizes) - min(sizes) < 20
    ring = ring.replaced(rules.dropped(ring.document, LATER, "a test"))
    half = plan(Scope.DATA_ONLY, number=100)
    incoming, following = incoming_for(ring, half), numbers_of(ring.document, half)
    ring = ring.replaced(rules.prepared(ring, half, following, incoming, LATER))
    ring = ring.replaced(rules.dropped(ring.document, LATER, "a test"))
    again = numbers_of(ring.document, plan(number=101))
    assert again.root.after == 10
    assert again.record.after == following.record.after + 1
    assert {root.number for root in ring.document.roots} == {1, 9}


def test_an_emergency_that_is_dropped_lets_the_rotation_before_it_go_on(ring: KeyRing) -> None:
    after = to_flip(ring, plan())
    before = after.document.rotation
    leaked = plan(number=2, emergency=Emergency(leaked=("root",)), window_s=0)
    for _ in range(2):  # it is prepared, interrupted, and prepared again
        numbers = numbers_of(after.document, leaked)
        document = rules.prepared(after, leaked, numbers, incoming_for(after, leaked), LATER)
        after = after.replaced(reread(document, after.root))
    document = reread(rules.dropped(after.document, LATER, "a mistake"), after.root)
    assert document.rotation == before
    assert states(document)["record 1"] == State.SUSPENDED


def test_a_password_that_is_retired_in_the_window_is_remembered_for_the_way_back(
    ring: KeyRing,
) -> None:
    after = to_flip(ring, plan())
    document = reread(rules.verified(after.document, LATER, {}), after.root)
    slot = document.slots[0]
    assert [each.generation for each in retired_with(document, slot, LATER)] == [1, 2]
    newer = msgspec.structs.replace(slot, created_at="2027-01-01T00:00:00Z")
    assert [each.generation for each in retired_with(document, newer, LATER)] == [2]


def test_the_flip_leaves_no_root_key_that_nothing_brings_back(ring: KeyRing) -> None:
    bare = ring.replaced(msgspec.structs.replace(ring.document, slots=()))
    with pytest.raises(RefusalError, match="no slot would be left"):
        to_flip(bare, plan(without_keepers=True))


def test_a_keyring_that_fills_up_refuses_what_is_planned_and_leaves_room_for_emergencies() -> None:
    leaked = plan(emergency=Emergency(leaked=("root",)))
    limit = keyring.LIMIT_BYTES
    assert preflight.keyring_room(plan(), limit // 4).result is Result.OK
    assert preflight.keyring_room(plan(), limit // 2).result is Result.WARN
    assert preflight.keyring_room(plan(), limit * 3 // 4).result is Result.FAIL
    assert preflight.keyring_room(leaked, limit * 3 // 4).result is Result.WARN


@pytest.mark.parametrize("scope", [Scope.DATA_ONLY, Scope.FULL])
def test_a_pending_keyring_that_was_dropped_is_older_than_what_follows(
    ring: KeyRing, scope: Scope
) -> None:
    asked = plan(scope)
    incoming = incoming_for(ring, asked)
    begun = rules.prepared(ring, asked, numbers_of(ring.document, asked), incoming, LATER)
    auth = {slot.id: ring.auth(slot.id) for slot in begun.slots}
    ready = rules.backed_up(begun, rules.sealed_slots(begun, incoming.root, auth, LATER), 1, LATER)
    pending = flipped(ready, LATER, has_keepers=False)
    for phase in (begun, ready):
        assert pending.age < rules.dropped(phase, LATER, "a test").age
        again = ring.replaced(phase)
        following = incoming_for(again, asked)
        numbers = numbers_of(phase, asked)
        assert pending.age < rules.prepared(again, asked, numbers, following, LATER).age
