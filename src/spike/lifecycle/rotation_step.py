"""What every step of a rotation does to a keyring: a key enters a state, a revision later, with one event. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from spike.lifecycle.keyring import Event, Keyring, Phase, RootGeneration, Rotation, WrappedKey
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.state import Operation, State, Transition, enter, require

Part = TypeVar("Part", RootGeneration, WrappedKey)
LOOK = "see spike key status"


def require_rotation(document: Keyring) -> Rotation:
    if document.rotation is None:
        raise RefusalError(Reason.ROTATION, "no rotation is in progress", "see spike key history")
    return document.rotation


def require_phase(document: Keyring, phase: Phase) -> Rotation:
    rotation = require_rotation(document)
    if rotation.phase is not phase:
        raise wrong_phase(rotation)
    return rotation


def wrong_phase(rotation: Rotation) -> RefusalError:
    return RefusalError(
        Reason.ROTATION, f"{rotation.kind} {rotation.id} is {rotation.phase} now", LOOK
    )


def step(rotation: Rotation, state: State, at: str) -> Transition:
    reason, over = f"{rotation.kind} {rotation.id}", rotation.undone
    # The keys that an emergency brings in enter no state by its taking another one's place; those it replaces do.
    replaces = state is State.COMPROMISED or bool(rotation.flipped_at)
    if rotation.emergency is not None and over is not None and replaces:
        reason += f", which superseded {over.kind} {over.id}"
    return Transition(state=state, at=at, actor=rotation.actor, reason=reason)


def enter_key(key: WrappedKey, rotation: Rotation, at: str, state: State) -> WrappedKey:
    return msgspec.structs.replace(key, history=enter(key.history, step(rotation, state, at)))


def enter_root(root: RootGeneration, rotation: Rotation, at: str, state: State) -> RootGeneration:
    return msgspec.structs.replace(root, history=enter(root.history, step(rotation, state, at)))


def ended(key: WrappedKey, rotation: Rotation, at: str) -> WrappedKey:
    """Return a key that is destroyed: it is never forgotten, what was wrapped of it is."""
    if not key.is_live:
        return key
    if key.state in (State.ACTIVE, State.SUSPENDED):
        key = enter_key(key, rotation, at, State.DEACTIVATED)
    require(key.history, Operation.DESTROY)
    key = enter_key(key, rotation, at, State.DESTROYED)
    return msgspec.structs.replace(key, wrapped=b"")


def worth_naming(parts: Sequence[Part], name: Callable[[Part], object]) -> tuple[Part, ...]:
    """Return generations without those that never came into force, but for the highest number: it stays used.

    Whoever can make a rotation fail again and again, a Keeper for one, would fill the keyring with them. The history
    has them all.
    """
    highest = {name(part): part.number for part in sorted(parts, key=lambda part: part.number)}
    return tuple(
        part for part in parts if part.number == highest[name(part)] or not _is_unborn(part)
    )


def _is_unborn(part: RootGeneration | WrappedKey) -> bool:
    return {transition.state for transition in part.history} == {
        State.PRE_ACTIVATION,
        State.DESTROYED,
    }


def later(
    document: Keyring,
    at: str,
    rotation: Rotation | None,
    kind: str,
    detail: Mapping[str, str],
    *,
    actor: str = "",
    **changes: object,
) -> Keyring:
    """Return the keyring one revision later, with one event. What becomes true is told by the same write."""
    known = rotation or document.rotation
    identity = {} if known is None or "id" in detail else {"id": known.id}
    event = Event(
        sequence=document.next_event,
        at=at,
        kind=kind,
        actor=actor or ("nexus" if known is None else known.actor),
        detail={**identity, **detail},
    )
    whole = {
        "revision": document.revision + 1,
        "replaced_at": at,
        "rotation": rotation,
        "next_event": document.next_event + 1,
        "outbox": (*document.outbox, event),
        **changes,
    }
    return msgspec.structs.replace(document, **whole)
