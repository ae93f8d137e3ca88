"""A rotation ends in the history, whatever ends it, by the very write that does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import lifecycle_kit
from keyring_step_kit import LATER, emergency, incoming_for, plan, reread, to_end, to_flip
from lifecycle_kit import ADMIN
from spike.lifecycle import rotation as rules
from spike.lifecycle.keyring import RotationKind
from spike.lifecycle.report import ENDS as ENDING_KINDS
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.rotation_plan import Plan, numbers_of
from spike.lifecycle.state import State


@pytest.fixture
def ring() -> KeyRing:
    return lifecycle_kit.born().ring


ENDS = {kind.removeprefix("rotation-") for kind in ENDING_KINDS}


def to_prepared(ring: KeyRing, asked: Plan) -> KeyRing:
    numbers = numbers_of(ring.document, asked)
    return ring.replaced(
        reread(rules.prepared(ring, asked, numbers, incoming_for(ring, asked), LATER), ring.root)
    )


def to_verified(ring: KeyRing) -> KeyRing:
    return ring.replaced(reread(rules.verified(ring.document, LATER, {}), ring.root))


def to_finalizing(ring: KeyRing) -> KeyRing:
    after = to_verified(ring)
    return after.replaced(reread(rules.finalizing(after.document, LATER, ADMIN), ring.root))


def to_drop(ring: KeyRing) -> KeyRing:
    return ring.replaced(reread(rules.dropped(ring.document, LATER, "a test"), ring.root))


def leaked(number: int) -> Plan:
    return plan(number=number, window_s=0, emergency=emergency())


def back(number: int) -> Plan:
    return plan(number=number, window_s=0, kind=RotationKind.ROLLBACK)


WAYS: dict[str, tuple[Callable[[KeyRing], KeyRing], list[tuple[int, str]]]] = {
    "finalized": (lambda ring: to_end(to_flip(ring, plan())), [(1, "finalized")]),
    "aborted": (lambda ring: to_drop(to_prepared(ring, plan())), [(1, "dropped")]),
    "a try of it": (
        lambda ring: to_prepared(to_prepared(ring, plan()), plan()),
        [(1, "dropped")],
    ),
    "rolled back": (
        lambda ring: to_flip(to_flip(ring, plan()), back(2)),
        [(1, "rolled-back")],
    ),
    "a rollback that is dropped": (
        lambda ring: to_drop(to_prepared(to_flip(ring, plan()), back(2))),
        [(2, "dropped")],
    ),
    "an emergency while it re-encrypts": (
        lambda ring: to_flip(to_flip(ring, plan()), leaked(2)),
        [(1, "superseded")],
    ),
    "an emergency in its window": (
        lambda ring: to_flip(to_verified(to_flip(ring, plan())), leaked(2)),
        [(1, "superseded")],
    ),
    "an emergency while it is finalized": (
        lambda ring: to_flip(to_finalizing(to_flip(ring, plan())), leaked(2)),
        [(1, "superseded")],
    ),
    "an emergency that is prepared again": (
        lambda ring: to_flip(to_prepared(to_flip(ring, plan()), leaked(2)), leaked(2)),
        [(2, "dropped"), (1, "superseded")],
    ),
    "an emergency that is dropped": (
        lambda ring: to_drop(to_prepared(to_flip(ring, plan()), leaked(2))),
        [(2, "dropped")],
    ),
    "an emergency over an emergency": (
        lambda ring: to_end(to_flip(to_flip(to_flip(ring, plan()), leaked(2)), leaked(3))),
        [(1, "superseded"), (2, "superseded"), (3, "finalized")],
    ),
    "an emergency over a rollback": (
        lambda ring: to_end(to_flip(to_flip(to_flip(ring, plan()), back(2)), leaked(3))),
        [(1, "rolled-back"), (2, "superseded"), (3, "finalized")],
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_rotation_ends_without_its_end_in_the_history(ring: KeyRing, way: str) -> None:
    act, wanted = WAYS[way]
    after = act(ring).document
    told = [
        (int(event.detail["id"], 16), event.kind.removeprefix("rotation-"))
        for event in after.outbox
        if event.kind.removeprefix("rotation-") in ENDS
    ]
    assert told == wanted
    numbers = [event.sequence for event in after.outbox]
    assert numbers == list(range(numbers[0], after.next_event))


def test_the_end_of_what_an_emergency_replaces_is_in_the_very_write_of_its_flip(
    ring: KeyRing,
) -> None:
    first = to_verified(to_flip(ring, plan()))
    prepared = to_prepared(first, leaked(2)).document
    assert prepared.rotation is not None
    assert prepared.rotation.undone == first.document.rotation
    after = to_flip(first, leaked(2)).document
    flip, end = after.outbox[-2:]
    assert (flip.kind, flip.detail["id"]) == ("rotation-flipped", f"{2:032x}")
    assert end.kind == "rotation-superseded"
    assert end.actor == ADMIN
    assert end.detail == {
        "id": f"{1:032x}",
        "by": f"{2:032x}",
        "phase": "verified",
        "why": f"superseded by emergency {2:032x}",
        "old_keys": "root 1 compromised, record 1 compromised, cipher 1 compromised",
    }
    assert after.rotation is not None
    assert after.rotation.undone is not None
    assert after.rotation.undone.id == f"{1:032x}"


def test_a_key_says_that_the_rotation_which_replaced_it_was_superseded(ring: KeyRing) -> None:
    ended = to_end(to_flip(to_flip(ring, plan()), leaked(2))).document
    why = f"rotation {2:032x}, which superseded rotation {1:032x}"
    for number in (1, 2):
        root = next(root for root in ended.roots if root.number == number)
        assert [step.reason for step in root.history if step.state is State.COMPROMISED] == [why]
        assert root.history[-1].reason == why
    assert {step.reason for step in ended.active_root.history} == {f"rotation {2:032x}"}


def test_many_emergencies_one_over_the_other_do_not_fill_the_keyring(ring: KeyRing) -> None:
    for number in range(1, 5):
        ring = to_flip(ring, leaked(number))
    rotation = ring.document.rotation
    assert rotation is not None
    assert rotation.undone is not None
    assert rotation.undone.undone is None
