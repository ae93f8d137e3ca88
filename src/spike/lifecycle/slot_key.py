"""A slot's `backup-auth` key and its copy of the active root key: how they come into a keyring, and end. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from spike.lifecycle.keyring import Keyring, Slot, WrappedKey
from spike.lifecycle.ring import KeyName, check_of, wrap
from spike.lifecycle.slot import seal_root
from spike.lifecycle.state import LEGAL, State, Transition, enter
from spike.memory.key_memory import KeyMemory


class Act(NamedTuple):
    """Who did what: the moment (RFC 3339, UTC), the SPIFFE ID or `nexus`, and why."""

    at: str
    actor: str
    reason: str

    def enters(self, state: State) -> Transition:
        """Return the step of a key into a state."""
        return Transition(state=state, at=self.at, actor=self.actor, reason=self.reason)


def sealed_to(document: Keyring, root: KeyMemory, slot: Slot, auth: KeyMemory, at: str) -> Slot:
    """Return the slot with one copy, that of the active root key, authenticated with its `backup-auth` key."""
    active = document.active_root
    sealed = seal_root(
        root,
        store_id=document.store_id,
        lineage=document.lineage,
        slot=slot,
        auth=auth,
        generation=active.number,
        check=active.check,
        sealed_at=at,
    )
    return msgspec.structs.replace(slot, roots=(sealed,))


def wrapped_new(
    document: Keyring,
    root: KeyMemory,
    name: KeyName,
    key: KeyMemory,
    act: Act,
) -> WrappedKey:
    """Return a key as it is first written: wrapped under the active root key, and active."""
    generation = document.active_root.number
    made = act.enters(State.PRE_ACTIVATION)
    active = act.enters(State.ACTIVE)
    return WrappedKey(
        purpose=name.purpose,
        slot=name.slot,
        number=name.number,
        root=generation,
        check=check_of(document.store_id, name, key),
        wrapped=wrap(root, generation, document.store_id, name, key),
        history=enter(enter((), made), active),
    )


def ended(key: WrappedKey, act: Act) -> WrappedKey:
    """Return a key as destroyed. That it was there is never forgotten; what was wrapped of it is."""
    if not key.is_live:
        return key
    history = key.history
    # A key that is in use is deactivated first; one that is not, or is known to others, ends at once.
    if State.DESTROYED not in LEGAL[key.state]:
        history = enter(history, act.enters(State.DEACTIVATED))
    history = enter(history, act.enters(State.DESTROYED))
    return msgspec.structs.replace(key, wrapped=b"", history=history)
