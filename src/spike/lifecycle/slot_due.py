"""Who has opened a slot last, and when its password has to be shown again. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from spike.lifecycle.keyring import Keyring, Slot, SlotKind

DUE_AFTER: Final = timedelta(days=90)


def due_at(slot: Slot) -> str | None:
    """Return the moment (RFC 3339, UTC) from which a verification is overdue; None for a slot without a password."""
    if slot.kind is not SlotKind.PASSWORD:
        return None
    moment = datetime.fromisoformat(slot.verified_at) + DUE_AFTER
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def is_overdue(slot: Slot, now: str) -> bool:
    """Return whether a slot's password was last shown longer ago than it may be. Moments sort as text."""
    due = due_at(slot)
    return due is not None and now >= due


def verified_by(document: Keyring, slot: Slot) -> str:
    """Return who opened a slot at `verified_at`: who made it, where nobody has since; "" where that was not kept."""
    if slot.verified_by:
        return slot.verified_by
    made = (key.history[0] for key in document.keys if key.slot == slot.id)
    return next((first.actor for first in made if first.at == slot.verified_at), "")
