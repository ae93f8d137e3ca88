"""Whether changes may be made: the rules of `Store.apply` as pure functions. For engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

from spike.error import FenceError, InputError, StoreConflictError
from spike.storage.protocol import (
    CHANGE_BYTE_LIMIT,
    CHANGE_LIMIT,
    MUST_NOT_EXIST,
    Change,
    Delete,
    Put,
    RecordId,
    Revision,
    SetFence,
    check_epoch,
)


def check_changes(changes: Sequence[Change], fence: int | None) -> None:
    """Refuse what no store could apply, whatever it holds.

    Raises:
        InputError: none or too many changes, too many bytes, or one record or the fence named
            twice.
    """
    if not 1 <= len(changes) <= CHANGE_LIMIT:
        raise InputError(f"one apply takes 1 to {CHANGE_LIMIT} changes")
    if fence is not None:
        check_epoch(fence)
    if len(changes) == 1:
        return
    named = {None if isinstance(change, SetFence) else change.id for change in changes}
    if len(named) != len(changes):
        raise InputError("one apply names each record, and the fence, at most once")
    if sum(len(change.blob) for change in changes if isinstance(change, Put)) > CHANGE_BYTE_LIMIT:
        raise InputError(f"the blobs of one apply have at most {CHANGE_BYTE_LIMIT} bytes")


def check_fence(expected: int | None, present: int) -> None:
    """Refuse changes that were sealed under another epoch than the store's.

    Raises:
        FenceError: `expected` is not None and not the present fence.
    """
    if expected is not None and expected != present:
        raise FenceError(f"the change was sealed under epoch {expected}; the store is at {present}")


def check_expectations(
    changes: Sequence[Change], present_fence: int, present: Callable[[RecordId], Revision | None]
) -> None:
    """Refuse the changes if one of them expects what is not so. `present` gives the revision a
    record is at.

    The changes were checked by `check_changes`: no two touch the same record, so all are judged by
    the state before.

    Raises:
        FenceError: a SetFence would lower the fence.
        StoreConflictError: a record is not at the expected revision. Of several, the first change's
            error.
    """
    for change in changes:
        match change:
            case Put() | Delete():
                found = present(change.id)
                if found != (None if change.expected is MUST_NOT_EXIST else change.expected):
                    raise _conflict(change, found)
            case SetFence():
                if change.epoch < present_fence:
                    raise FenceError(
                        f"the fence is at epoch {present_fence}; it never falls to {change.epoch}"
                    )
            case _:
                assert_never(change)


def _conflict(change: Put | Delete, found: Revision | None) -> StoreConflictError:
    name = f"{change.id.kind} record {change.id.key!r}"
    if found is None:
        return StoreConflictError(
            f"the {name} is gone; it was expected at revision {change.expected}"
        )
    if change.expected is MUST_NOT_EXIST:
        return StoreConflictError(f"the {name} exists already, at revision {found}")
    return StoreConflictError(f"the {name} is at revision {found}; expected was {change.expected}")
