"""What a leaked key has protected, and what an emergency rotation ends: sentences for the person who decides. Pure."""

from __future__ import annotations

from spike.lifecycle.keyring import Emergency, KeyPurpose, Keyring
from spike.lifecycle.rotation_plan import leaks
from spike.lifecycle.state import State


def exposure(document: Keyring, emergency: Emergency | None, records: int) -> tuple[str, ...]:
    """Return what is exposed if the active root key is known to somebody, and what the rotation does about it.

    `records` is how many records the store holds.
    """
    active = document.active_root
    since = next(step.at for step in active.history if step.state is State.ACTIVE)
    ciphers = sorted(
        key.number for key in document.keys if key.purpose is KeyPurpose.CIPHER and key.is_live
    )
    kept = [slot.name for slot in document.slots if not leaks(emergency, slot)]
    gone = [slot.name for slot in document.slots if leaks(emergency, slot)]
    known = ", ".join(map(str, ciphers))
    told = [
        (
            f"root key {active.number} has been active since {since}: whoever has it and a copy of the "
            f"store reads all {records} records as they were in that copy."
        ),
        (
            f"what was encrypted for others under cipher keys {known} counts as known: it stays readable, "
            "and should be encrypted anew (spike cipher rewrap)."
        ),
        (
            "every key backup, export and system backup made since then opens to this root key: destroy "
            "them once new ones are there."
        ),
        (
            "the root, record, cipher and audit keys are replaced; nothing new is wrapped under the old "
            "ones; there is no way back."
        ),
    ]
    if gone:
        told.append(f"slots removed, because they leaked: {', '.join(gone)}")
    if kept:
        told.append(
            f"slots that need a new password before the rotation counts as complete: {', '.join(kept)}"
        )
    return tuple(told)
