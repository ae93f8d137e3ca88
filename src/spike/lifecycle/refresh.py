"""Refresh: a new polynomial for the same root key, on all Keepers, in two phases. The keyrings it passes through. Pure.

1. `begun`: the keyring names the new set, staged, with a digest of each share. Nothing depends on it yet.
2. The shares are staged on the Keepers, read back, and the root key is rebuilt from what they hold.
3. `finished`: the new set is in force, one epoch higher; the old one is no longer named.
4. The Keepers commit the new set, which erases the old one there.

Killed before 3 the old set serves and the new one is dropped; after it, the new one serves from wherever it lies,
staged or committed. There is no between.
"""

from __future__ import annotations

from typing import Final

import msgspec

from spike.lifecycle.keyring import Event, Keyring, LifecycleOperation, ShareSet
from spike.lifecycle.operation import require_idle
from spike.lifecycle.refusal import Reason, RefusalError

KIND: Final = "refresh"
_PREPARED: Final = "prepared"


def set_in_force(document: Keyring) -> ShareSet | None:
    """Return the share set of the active root key that Keepers must hold, or None without Keepers."""
    active = document.active_root.number
    return next(
        (each for each in document.share_sets if not each.staged and each.generation == active),
        None,
    )


def staged_set(document: Keyring) -> ShareSet | None:
    """Return the share set that is being brought in, or None."""
    return next((each for each in document.share_sets if each.staged), None)


def begun(document: Keyring, incoming: ShareSet, at: str, actor: str) -> Keyring:
    """Return the keyring that reserves the new set. `incoming.staged` must be true.

    Raises:
        RefusalError: BUSY, another lifecycle operation is in progress.
    """
    require_idle(document)
    operation = LifecycleOperation(
        id=incoming.id, kind=KIND, phase=_PREPARED, started_at=at, actor=actor, detail={}
    )
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        replaced_at=at,
        share_sets=(*document.share_sets, incoming),
        operation=operation,
    )


def finished(document: Keyring, at: str) -> Keyring:
    """Return the keyring in which the staged set is in force and the one before it is gone."""
    operation, incoming = _in_progress(document)
    kept = tuple(
        each
        for each in document.share_sets
        if not each.staged and each.generation != incoming.generation
    )
    following = _ended(document, at, operation, "refresh")
    return msgspec.structs.replace(
        following,
        epoch=document.epoch + 1,
        share_sets=(*kept, msgspec.structs.replace(incoming, staged=False)),
    )


def dropped(document: Keyring, at: str) -> Keyring:
    """Return the keyring in which the refresh never was."""
    operation, incoming = _in_progress(document)
    following = _ended(document, at, operation, "refresh dropped")
    return msgspec.structs.replace(
        following, share_sets=tuple(each for each in document.share_sets if each is not incoming)
    )


def is_in_progress(document: Keyring) -> bool:
    """Return whether a refresh has begun and not ended."""
    return document.operation is not None and document.operation.kind == KIND


def _in_progress(document: Keyring) -> tuple[LifecycleOperation, ShareSet]:
    operation, incoming = document.operation, staged_set(document)
    if operation is None or operation.kind != KIND or incoming is None:
        raise RefusalError(Reason.DAMAGED, "no refresh is in progress in this keyring")
    return operation, incoming


def _ended(document: Keyring, at: str, operation: LifecycleOperation, kind: str) -> Keyring:
    event = Event(
        sequence=document.next_event,
        at=at,
        kind=kind,
        actor=operation.actor,
        detail={"set": operation.id},
    )
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        replaced_at=at,
        operation=None,
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )
