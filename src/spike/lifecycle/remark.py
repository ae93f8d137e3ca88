"""An operator's remark on a rotation, for its history and its report. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

import msgspec

from spike.lifecycle.keyring import Event, Keyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.report import NOTE

TEXT_LIMIT: Final = 500
"""In characters."""


def check_remark(text: str) -> None:
    """Return if a text can be a remark: 1 to 500 characters that a person sees, on one line.

    Raises:
        RefusalError: REMARK, and what is wrong with it.
    """
    if not text.strip():
        raise RefusalError(Reason.REMARK, "the remark is empty", "say what is to be remembered")
    if len(text) > TEXT_LIMIT:
        told = f"the remark has {len(text)} characters, {TEXT_LIMIT} are the most"
        raise RefusalError(Reason.REMARK, told, "make it shorter, or make two of it")
    # Control and format characters could steer a terminal, or turn around what stands beside them; the line and
    # paragraph separators break a line.
    if any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Zl", "Zp") for each in text):
        told = "the remark has a control character or a line break"
        raise RefusalError(Reason.REMARK, told, "write it on one line, without invisible ones")


def remarked(document: Keyring, rotation_id: str, text: str, at: str, actor: str) -> Keyring:
    """Return the keyring with an event that holds the remark, one revision later."""
    event = Event(
        sequence=document.next_event,
        at=at,
        kind=NOTE,
        actor=actor,
        detail={"id": rotation_id, "text": text},
    )
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        replaced_at=at,
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )
