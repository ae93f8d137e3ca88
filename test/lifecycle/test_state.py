"""States of a key generation: all 36 pairs, spelled out."""

from __future__ import annotations

import pytest

from spike.error import RefusedError
from spike.lifecycle.state import ALLOWED, LEGAL, Operation, State, Transition, enter, require

# From each state (row) to each state (column), in the order of `State`.
TRANSITIONS = {
    "pre-activation": ". A . . D C",
    "active": ". . S X . C",
    "suspended": ". A . X . C",
    "deactivated": ". . . . D C",
    "destroyed": ". . . . . .",
    "compromised": ". . . . D .",
}
# What each state allows: wrap, unwrap, split, confirm, back up, destroy.
OPERATIONS = {
    "pre-activation": "y n y y y y",
    "active": "y y y y y n",
    "suspended": "n y y y y n",
    "deactivated": "n y n y n y",
    "destroyed": "n n n n n n",
    "compromised": "n y n y n y",
}
STATES = list(State)


def step(state: State) -> Transition:
    return Transition(state=state, at="2026-11-23T12:00:00Z", actor="nexus", reason="test")


@pytest.mark.parametrize("before", STATES)
@pytest.mark.parametrize("after", STATES)
def test_each_of_the_36_pairs_is_legal_or_refused_as_the_table_says(
    before: State, after: State
) -> None:
    legal = TRANSITIONS[before].split()[STATES.index(after)] != "."
    history = (step(before),)
    if legal:
        assert enter(history, step(after)) == (*history, step(after))
    else:
        with pytest.raises(RefusedError, match=f"from {before} to {after}"):
            enter(history, step(after))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("operation", list(Operation))
def test_each_state_allows_what_the_table_says(state: State, operation: Operation) -> None:
    allowed = OPERATIONS[state].split()[list(Operation).index(operation)] == "y"
    if allowed:
        require((step(state),), operation)
    else:
        with pytest.raises(RefusedError, match=f"{state} key generation cannot {operation}"):
            require((step(state),), operation)


def test_a_generation_begins_as_pre_activation_and_as_nothing_else() -> None:
    assert enter((), step(State.PRE_ACTIVATION)) == (step(State.PRE_ACTIVATION),)
    for state in set(STATES) - {State.PRE_ACTIVATION}:
        with pytest.raises(RefusedError):
            enter((), step(state))


def test_both_tables_know_every_state() -> None:
    assert set(LEGAL) == set(ALLOWED) == set(State)
