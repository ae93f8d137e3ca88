"""Copies that leave SPIKE: told in the history, so that the report of a rotation can name what it cannot erase.

Pure.
"""

from __future__ import annotations

import unicodedata
from enum import StrEnum
from typing import Final

import msgspec

from spike.error import InputError
from spike.lifecycle.keyring import Event, Keyring

PLACE_LIMIT: Final = 300
"""In characters."""


class Copy(StrEnum):
    """What left; the kind of its event."""

    KEY_BACKUP = "key-backup-exported"
    SYSTEM_BACKUP = "system-backup-created"


def check_place(place: str) -> None:
    """Check where a copy is said to go: nothing, or up to 300 characters on one line.

    Raises:
        InputError: it is longer, or has an invisible character.
    """
    if len(place) > PLACE_LIMIT:
        raise InputError(f"a place has at most {PLACE_LIMIT} characters")
    if any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in place):
        raise InputError("a place has a control character or a line break")


def exported(document: Keyring, copy: Copy, place: str, at: str, actor: str) -> Keyring:
    """Return the keyring with an event that tells of the copy, one revision later.

    What the copy holds is the keyring of right after it: with the keys of these generations.
    """
    keys = {key.purpose.value: key.number for key in document.keys if key.state == "active"}
    event = Event(
        sequence=document.next_event,
        at=at,
        kind=copy.value,
        actor=actor,
        detail={
            "place": place,
            "epoch": str(document.epoch),
            "root": str(document.active_root.number),
            "record": str(keys["record"]),
        },
    )
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        replaced_at=at,
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )
