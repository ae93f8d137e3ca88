"""When a proof of recovery is due, how it is noted, and from which shares a rehearsal rebuilds."""

from __future__ import annotations

import math
from itertools import combinations

import msgspec
import pytest

import lifecycle_kit
from spike.lifecycle import keyring
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.proof import (
    DrillKind,
    Noted,
    Outcome,
    drill_due,
    drilled,
    is_wanted,
    person_due,
    rehearsed,
)
from spike.lifecycle.rehearsal import SUBSET_LIMIT, subsets

AT = lifecycle_kit.AT
ADMIN = lifecycle_kit.ADMIN
LATER = "2026-11-30T12:00:00Z"
MUCH_LATER = "2027-02-21T12:00:01Z"


@pytest.fixture
def document() -> Keyring:
    return lifecycle_kit.born().ring.document


def noted(outcome: Outcome, at: str = AT) -> Noted:
    return Noted(outcome, at, ADMIN, {"records": "5"})


@pytest.mark.parametrize("count", range(1, 12))
def test_every_choice_is_tried_while_there_are_few_and_then_each_share_once(count: int) -> None:
    indexes = tuple(range(1, count + 1))
    for threshold in range(1, count + 1):
        chosen = subsets(indexes, threshold)
        assert all(len(set(choice)) == threshold for choice in chosen)
        assert {index for choice in chosen for index in choice} == set(indexes)
        if math.comb(count, threshold) <= SUBSET_LIMIT:
            assert set(chosen) == set(combinations(indexes, threshold))
        else:
            assert len(chosen) == math.ceil(count / threshold)


def test_fewer_shares_than_the_threshold_are_no_choice() -> None:
    with pytest.raises(ValueError, match="fewer"):
        subsets((1, 2), 3)


def test_a_drill_is_an_event_and_a_mark(document: Keyring) -> None:
    done = drilled(document, DrillKind.AUTOMATIC, noted(Outcome.SUCCEEDED))
    assert done.proof is not None
    assert done.proof.drill == keyring.ProofMark(AT, "succeeded")
    assert done.proof.person is None
    event = done.outbox[-1]
    assert (event.kind, event.actor) == ("drill", ADMIN)
    assert event.detail == {"outcome": "succeeded", "records": "5"}
    assert done.revision == document.revision + 1
    assert done.epoch == document.epoch
    person = drilled(done, DrillKind.PERSON, noted(Outcome.FAILED))
    assert person.proof is not None
    assert person.proof.drill == done.proof.drill
    assert person.proof.person == keyring.ProofMark(AT, "failed")
    practised = drilled(person, DrillKind.PRACTISED, noted(Outcome.SUCCEEDED))
    assert practised.proof == person.proof
    assert practised.outbox[-1].kind == "practised"


def test_a_rehearsal_is_noted_only_when_it_says_something_else_than_the_last(
    document: Keyring,
) -> None:
    assert rehearsed(document, noted(Outcome.SUCCEEDED)) is None
    assert rehearsed(document, noted(Outcome.INTERRUPTED)) is None
    failed = rehearsed(document, noted(Outcome.FAILED))
    assert failed is not None
    assert failed.proof is not None
    assert failed.proof.rehearsal == keyring.ProofMark(AT, "failed")
    assert rehearsed(failed, noted(Outcome.FAILED, LATER)) is None
    good = rehearsed(failed, noted(Outcome.SUCCEEDED, LATER))
    assert good is not None
    assert good.proof is None
    assert [event.detail["outcome"] for event in good.outbox[-2:]] == ["failed", "succeeded"]


@pytest.mark.parametrize(
    ("mark", "now", "wanted", "overdue"),
    [
        (None, AT, True, False),
        (None, "2026-11-30T12:00:01Z", True, True),
        ((AT, Outcome.SUCCEEDED), "2026-11-30T11:59:59Z", False, False),
        ((AT, Outcome.SUCCEEDED), LATER, True, False),
        ((AT, Outcome.SUCCEEDED), "2026-11-30T12:00:01Z", True, True),
        ((AT, Outcome.FAILED), "2026-11-24T11:59:59Z", False, True),
        ((AT, Outcome.TIMED_OUT), "2026-11-24T12:00:00Z", True, True),
        ((LATER, Outcome.SUCCEEDED), AT, True, False),
    ],
)
def test_a_drill_is_made_every_seven_days_and_a_day_after_one_that_failed(
    document: Keyring, mark: tuple[str, Outcome] | None, now: str, wanted: bool, overdue: bool
) -> None:
    if mark is not None:
        at, outcome = mark
        document = drilled(document, DrillKind.AUTOMATIC, noted(outcome, at))
    assert is_wanted(document, now) is wanted
    assert drill_due(document, now).overdue is overdue


def test_a_person_is_due_ninety_days_after_the_last_one_or_the_birth(document: Keyring) -> None:
    due = person_due(document, AT)
    assert (due.at, due.overdue) == ("2027-02-21T12:00:00Z", False)
    assert person_due(document, MUCH_LATER).overdue
    done = drilled(document, DrillKind.PERSON, noted(Outcome.SUCCEEDED, MUCH_LATER))
    assert not person_due(done, MUCH_LATER).overdue


def test_a_keyring_with_proofs_is_read_back_as_written() -> None:
    born = lifecycle_kit.born()
    done = drilled(born.ring.document, DrillKind.PERSON, noted(Outcome.SUCCEEDED))
    raw = keyring.encode(done, born.ring.root)
    assert keyring.decode_untrusted(raw).confirmed_by(born.ring.root) == done
    assert raw.startswith(b"spike-keyring 2\n")
    plain = msgspec.structs.replace(done, proof=None)
    assert keyring.encode(plain, born.ring.root).startswith(b"spike-keyring 1\n")
