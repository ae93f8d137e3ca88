"""Refresh and reshape: a new polynomial for the same root key, in two phases. The keyrings they pass through. Pure.

A refresh deals it to the same Keepers; a reshape to others, or with another threshold.

1. `begun`: the keyring names the new set, staged, with a digest of each share. Nothing depends on it yet.
2. The shares are staged on the Keepers, read back, and the root key is rebuilt from what they hold.
3. `finished`: the new set is in force, one epoch higher; the old one is no longer named.
4. The Keepers commit the new set, which erases the old one there. Who is no member any more stands in `leaving` since
   3 and until it was seen to have erased its share.

Killed before 3 the old set serves and the new one is dropped; after it, the new one serves from wherever it lies,
staged or committed. There is no between.
"""

from __future__ import annotations

from typing import Final

import msgspec

from spike.lifecycle.keyring import (
    Event,
    Keyring,
    LeavingKeeper,
    LifecycleOperation,
    ShareMember,
    ShareSet,
)
from spike.lifecycle.operation import require_idle
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.state import State

REFRESH: Final = "refresh"
RESHAPE: Final = "reshape"
_PREPARED: Final = "prepared"
LEAVING_LIMIT: Final = 255


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


def begun(
    document: Keyring, incoming: ShareSet, at: str, actor: str, kind: str = REFRESH
) -> Keyring:
    """Return the keyring that reserves the new set. `incoming.staged` must be true; `kind` is REFRESH or RESHAPE.

    Raises:
        RefusalError: BUSY, another lifecycle operation is in progress.
    """
    require_idle(document)
    operation = LifecycleOperation(
        id=incoming.id, kind=kind, phase=_PREPARED, started_at=at, actor=actor, detail={}
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
    before = set_in_force(document)
    gone = () if before is None else leaving(before, incoming, at)
    following = _ended(document, at, operation, operation.kind, _shape(incoming))
    return msgspec.structs.replace(
        following,
        epoch=document.epoch + 1,
        share_sets=(*kept, msgspec.structs.replace(incoming, staged=False)),
        leaving=(*still_leaving(document.leaving, incoming), *gone)[-LEAVING_LIMIT:],
    )


def dropped(document: Keyring, at: str) -> Keyring:
    """Return the keyring in which the refresh never was. Keepers it would have brought in may hold a staged share."""
    operation, incoming = _in_progress(document)
    following = _ended(document, at, operation, f"{operation.kind} dropped", {})
    before = set_in_force(document)
    strange = () if before is None else leaving(incoming, before, at)
    return msgspec.structs.replace(
        following,
        share_sets=tuple(each for each in document.share_sets if each is not incoming),
        leaving=(*document.leaving, *strange)[-LEAVING_LIMIT:],
    )


def is_in_progress(document: Keyring) -> bool:
    """Return whether a refresh or reshape has begun and not ended."""
    return document.operation is not None and document.operation.kind in (REFRESH, RESHAPE)


def leaving(
    before: ShareSet, after: ShareSet, at: str, *, barred: frozenset[int] = frozenset()
) -> tuple[LeavingKeeper, ...]:
    """Return the members of a set that are none of the set after it. `barred` are indexes of those that had leaked."""
    return tuple(
        LeavingKeeper(
            set_id=before.id,
            generation=before.generation,
            index=member.index,
            identity=member.identity,
            url=member.url,
            since=at,
            barred=member.index in barred,
        )
        for member in before.members
        if not any(is_same_keeper(member, each) for each in after.members)
    )


def still_leaving(
    known: tuple[LeavingKeeper, ...], incoming: ShareSet
) -> tuple[LeavingKeeper, ...]:
    """Return the leaving Keepers that a set does not take back."""
    return tuple(
        each
        for each in known
        if not any(is_same_keeper(each, member) for member in incoming.members)
    )


def with_leaving(document: Keyring, gone: tuple[LeavingKeeper, ...], at: str) -> Keyring:
    """Return the keyring in which these Keepers leave, too."""
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        replaced_at=at,
        leaving=(*document.leaving, *gone)[-LEAVING_LIMIT:],
    )


def is_same_keeper(one: ShareMember | LeavingKeeper, other: ShareMember | LeavingKeeper) -> bool:
    """Return whether two entries name one Keeper: by its identity where both have one, else by its address."""
    if one.identity and other.identity:
        return one.identity == other.identity
    return one.url == other.url


def has_left(document: Keyring, erased: frozenset[LeavingKeeper], at: str) -> Keyring | None:
    """Return the keyring in which those that have erased their share leave no more; None where nothing changes.

    Nor does a share matter whose root-key generation is destroyed. Who is barred stays.
    """
    gone = {root.number for root in document.roots if root.state is State.DESTROYED}
    kept = tuple(
        each
        for each in document.leaving
        if each.barred or (each not in erased and each.generation not in gone)
    )
    if kept == document.leaving:
        return None
    return msgspec.structs.replace(
        document, revision=document.revision + 1, replaced_at=at, leaving=kept
    )


def _in_progress(document: Keyring) -> tuple[LifecycleOperation, ShareSet]:
    operation, incoming = document.operation, staged_set(document)
    if operation is None or not is_in_progress(document) or incoming is None:
        raise RefusalError(Reason.DAMAGED, "no refresh is in progress in this keyring")
    return operation, incoming


def _shape(share_set: ShareSet) -> dict[str, str]:
    return {"shares": str(len(share_set.members)), "threshold": str(share_set.threshold)}


def _ended(
    document: Keyring, at: str, operation: LifecycleOperation, kind: str, detail: dict[str, str]
) -> Keyring:
    event = Event(
        sequence=document.next_event,
        at=at,
        kind=kind,
        actor=operation.actor,
        detail={"set": operation.id, **detail},
    )
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        replaced_at=at,
        operation=None,
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )
