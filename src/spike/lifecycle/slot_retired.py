"""What an old password still opens. Pure.

A copy of the backup that somebody kept opens with the password of its day, whatever is changed afterwards, and gives
the root key of its day. So the keyring remembers, for each slot that was changed or removed, which generations that
were; the memory ends with the generation.
"""

from __future__ import annotations

from spike.lifecycle.keyring import Keyring, RetiredSlot, RootGeneration, Slot
from spike.lifecycle.state import State


def still_opening(document: Keyring) -> tuple[RetiredSlot, ...]:
    """Return what was retired and still opens a root key that is not destroyed."""
    live = {root.number for root in document.roots if root.state is not State.DESTROYED}
    return tuple(each for each in document.retired if each.generation in live)


def retired_with(document: Keyring, slot: Slot | None, at: str) -> tuple[RetiredSlot, ...]:
    """Return what is to be remembered once a slot is no longer opened as it is now; nothing new for None.

    Of one slot and generation the last date is kept: the list cannot outgrow the keyring.
    """
    kept = still_opening(document)
    if slot is None:
        return kept
    opened = {root.number for root in document.roots if _was_sealed_to(slot, root)}
    kept = tuple(e for e in kept if not (e.name == slot.name and e.generation in opened))
    new = (RetiredSlot(name=slot.name, kind=slot.kind, generation=n, at=at) for n in sorted(opened))
    return (*kept, *new)


def _was_sealed_to(slot: Slot, root: RootGeneration) -> bool:
    """Return whether copies give a person with a slot this root key: it was in force while the slot was there.

    Within a rollback window that is the former one, too, though the keyring holds no copy of it any more: a rollback
    brings it into force again.
    """
    states = [step.state for step in root.history]
    if State.DESTROYED in states:
        return False
    if any(sealed.generation == root.number for sealed in slot.roots):
        return True
    ends = [step.at for step in root.history if step.state is State.SUSPENDED]
    return State.ACTIVE in states and (
        states[-1] is State.ACTIVE or slot.created_at <= max(ends, default="")
    )
