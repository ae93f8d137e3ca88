"""States of a key generation, the legal transitions between them, and what each state allows.

The states are those of NIST SP 800-57 part 1 revision 5, section 7, with *suspended* for the rollback window:

    pre-activation ──► active ◄──► suspended ──► deactivated ──► destroyed
           │              └────────────────────────▲                ▲
           └──(dropped)─────────────────────────────────────────────┤
      any of these but destroyed ──► compromised ───────────────────┘

Destroyed is final. Every transition records when, by whom and why, and is never forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from spike.error import RefusedError


class State(StrEnum):
    """The state of one generation of one key."""

    PRE_ACTIVATION = "pre-activation"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DEACTIVATED = "deactivated"
    DESTROYED = "destroyed"
    COMPROMISED = "compromised"


class Operation(StrEnum):
    """What can be done with a root key."""

    WRAP = "wrap"
    UNWRAP = "unwrap"
    SPLIT = "split"
    CONFIRM = "confirm"
    BACK_UP = "back up"
    DESTROY = "destroy"


LEGAL: Final[Mapping[State, frozenset[State]]] = {
    State.PRE_ACTIVATION: frozenset({State.ACTIVE, State.DESTROYED, State.COMPROMISED}),
    State.ACTIVE: frozenset({State.SUSPENDED, State.DEACTIVATED, State.COMPROMISED}),
    State.SUSPENDED: frozenset({State.ACTIVE, State.DEACTIVATED, State.COMPROMISED}),
    State.DEACTIVATED: frozenset({State.DESTROYED, State.COMPROMISED}),
    State.COMPROMISED: frozenset({State.DESTROYED}),
    State.DESTROYED: frozenset(),
}

ALLOWED: Final[Mapping[State, frozenset[Operation]]] = {
    # The next keyring is composed under a generation that is not active yet: it wraps, nothing more depends on it.
    State.PRE_ACTIVATION: frozenset(Operation) - {Operation.UNWRAP},
    State.ACTIVE: frozenset(Operation) - {Operation.DESTROY},
    # A rollback splits and backs up the suspended generation again before it becomes active.
    State.SUSPENDED: frozenset(Operation) - {Operation.WRAP, Operation.DESTROY},
    State.DEACTIVATED: frozenset({Operation.UNWRAP, Operation.CONFIRM, Operation.DESTROY}),
    State.COMPROMISED: frozenset({Operation.UNWRAP, Operation.CONFIRM, Operation.DESTROY}),
    State.DESTROYED: frozenset(),
}


class Transition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step in a generation's life. `at` is RFC 3339 in UTC; `actor` a SPIFFE ID or `nexus`."""

    state: State
    at: str
    actor: str
    reason: str


def state_of(history: Sequence[Transition]) -> State:
    """Return the present state: the last one entered."""
    return history[-1].state


def enter(history: tuple[Transition, ...], step: Transition) -> tuple[Transition, ...]:
    """Return the history with one more step.

    Raises:
        RefusedError: the step is not a legal transition.
    """
    if not history:
        if step.state is not State.PRE_ACTIVATION:
            raise RefusedError(
                f"a key generation begins as {State.PRE_ACTIVATION}, not {step.state}"
            )
        return (step,)
    if step.state not in LEGAL[state_of(history)]:
        raise RefusedError(f"a key generation cannot go from {state_of(history)} to {step.state}")
    return (*history, step)


def require(history: Sequence[Transition], operation: Operation) -> None:
    """Return if the present state allows the operation.

    Raises:
        RefusedError: it does not.
    """
    if operation not in ALLOWED[state_of(history)]:
        raise RefusedError(f"a {state_of(history)} key generation cannot {operation}")
