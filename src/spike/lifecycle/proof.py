"""Proof that a recovery would work: how it ended, when it is due, and how the keyring notes it. Pure.

    what        by whom                how often
    rehearsal   nobody; from Keepers   every hour, and after every change of keys or shares
    drill       nobody; from a backup  every 7 days
    person      with a password        every 90 days
    practised   whoever says so        a runbook that people went through; never due by itself

A drill is an event and a mark in the keyring. A rehearsal is so only where its outcome changes to the worse or back:
the keyring is not replaced each hour.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from spike.lifecycle.keyring import Event, Keyring, Proof, ProofMark

REHEARSAL_S: Final = 3600.0
DRILL_DAYS: Final = 7
PERSON_DAYS: Final = 90
RETRY: Final = timedelta(days=1)
"""How soon after one that did not succeed the next drill is made."""


class Outcome(StrEnum):
    """How a proof ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    INTERRUPTED = "interrupted"
    """Nothing follows: the keys were changed meanwhile, again and again."""


class DrillKind(StrEnum):
    """Who made a drill."""

    AUTOMATIC = "drill"
    PERSON = "person-drill"
    PRACTISED = "practised"


class Due(NamedTuple):
    """When the next one is due, and whether that has passed."""

    at: str
    overdue: bool


class Noted(NamedTuple):
    """What is noted of a proof: its end, when, by whom, and more. Texts of `detail` have at most 500 characters."""

    outcome: Outcome
    at: str
    actor: str
    detail: dict[str, str]


def drilled(document: Keyring, kind: DrillKind, noted: Noted) -> Keyring:
    """Return the keyring in which a drill is noted."""
    mark = ProofMark(at=noted.at, outcome=noted.outcome.value)
    proof = document.proof or Proof()
    match kind:
        case DrillKind.AUTOMATIC:
            proof = msgspec.structs.replace(proof, drill=mark)
        case DrillKind.PERSON:
            proof = msgspec.structs.replace(proof, person=mark)
        case DrillKind.PRACTISED:
            pass
    return _with(document, proof, kind.value, noted)


def verified(document: Keyring, slot_name: str, noted: Noted) -> Keyring:
    """Return the keyring in which a slot was opened by who is noted, and when; with an empty name the same."""
    return msgspec.structs.replace(
        document,
        slots=tuple(
            msgspec.structs.replace(slot, verified_at=noted.at, verified_by=noted.actor)
            if slot.name == slot_name
            else slot
            for slot in document.slots
        ),
    )


def rehearsed(document: Keyring, noted: Noted) -> Keyring | None:
    """Return the keyring in which a rehearsal is noted, or None where it says what the last one said."""
    proof = document.proof or Proof()
    before = Outcome.SUCCEEDED if proof.rehearsal is None else Outcome(proof.rehearsal.outcome)
    if noted.outcome in (before, Outcome.INTERRUPTED):
        return None
    good = noted.outcome is Outcome.SUCCEEDED
    mark = None if good else ProofMark(at=noted.at, outcome=noted.outcome.value)
    return _with(document, msgspec.structs.replace(proof, rehearsal=mark), "rehearsal", noted)


def drill_due(document: Keyring, now: str) -> Due:
    """Return when the next drill by itself is due; `now` as documents write moments."""
    return _due(None if document.proof is None else document.proof.drill, document, DRILL_DAYS, now)


def person_due(document: Keyring, now: str) -> Due:
    """Return when the next drill with a person's password is due."""
    mark = None if document.proof is None else document.proof.person
    return _due(mark, document, PERSON_DAYS, now)


def is_wanted(document: Keyring, now: str) -> bool:
    """Return whether Nexus should make a drill now: it is due, or the last one failed a day ago or longer."""
    mark = None if document.proof is None else document.proof.drill
    if mark is None:
        return True
    since = _read(now) - _read(mark.at)
    wait = RETRY if mark.outcome != Outcome.SUCCEEDED else timedelta(days=DRILL_DAYS)
    # A clock that went back makes one, too: nothing is known of what it showed before.
    return since >= wait or since < -RETRY


def _due(mark: ProofMark | None, document: Keyring, days: int, now: str) -> Due:
    begun = document.created_at if mark is None else mark.at
    at = _read(begun) + timedelta(days=days)
    failed = mark is not None and mark.outcome != Outcome.SUCCEEDED
    return Due(_written(at), failed or _read(now) > at)


def _with(document: Keyring, proof: Proof, kind: str, noted: Noted) -> Keyring:
    event = Event(
        sequence=document.next_event,
        at=noted.at,
        kind=kind,
        actor=noted.actor,
        detail={"outcome": noted.outcome.value, **noted.detail},
    )
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        replaced_at=noted.at,
        proof=None if proof == Proof() else proof,
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )


def _read(moment: str) -> datetime:
    return datetime.fromisoformat(moment)


def _written(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
