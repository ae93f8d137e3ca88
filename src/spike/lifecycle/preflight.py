"""What has to be so before a rotation, and again after it: named checks, each with result, reason and what to do. Pure.

A failed check stops a planned rotation. An emergency goes on past what it can do without: a leaked key that stays in
force is worse than a Keeper or a place that lacks the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from spike.lifecycle.keyring import LIMIT_BYTES, Keyring, SlotKind
from spike.lifecycle.operation import require_idle
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.rotation_plan import Plan, require_startable

VERIFY_PASSWORD_EVERY: Final = timedelta(days=90)
_CLOCK_LEAP: Final = timedelta(days=1)
_LEAST_ROOM_BYTES: Final = 64 << 20
_KEYRING_BYTES: Final = LIMIT_BYTES * 5 // 8
_KEY_PAGES: Final = 64 << 10
"""Locked memory that the incoming keys, shares and one child process take at most."""


class Result(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(NamedTuple):
    """One check: what was looked at, how it is, and what to do about it."""

    name: str
    result: Result
    detail: str
    next_step: str = ""


def ok(name: str, detail: str) -> Check:
    """Return a check that passed."""
    return Check(name, Result.OK, detail)


def startable(document: Keyring, plan: Plan) -> Check:
    """See that the keys are where the plan can begin."""
    try:
        require_startable(document, plan)
    except RefusalError as error:
        return Check("operation", Result.FAIL, error.message, error.next_step)
    return ok("operation", "no other lifecycle operation is in progress")


def idle(document: Keyring) -> Check:
    """See that nothing is in progress any more."""
    try:
        require_idle(document)
    except RefusalError as error:
        return Check("operation", Result.WARN, error.message, error.next_step)
    return ok("operation", "no lifecycle operation is in progress")


def keepers(
    plan: Plan, threshold: int, good: Sequence[str], bad: Sequence[str], *, force: bool
) -> Check:
    """See that enough Keepers answer and hold what they should; `bad` says of each other one what is wrong.

    Who is left out by name is in neither. Planned: all the others. Emergency, or with some left out: the threshold
    and one more, unless forced.
    """
    total = len(good) + len(bad) + len(plan.left_out)
    if not total:
        return ok("keepers", "this Nexus has no Keepers; the slots alone bring the key back")
    told = f"{len(good)} of {total} Keepers are current, {threshold} bring the key back"
    if bad:
        told = f"{told}; {'; '.join(bad)}"
    if plan.without_keepers:
        return Check(
            "keepers", Result.WARN, f"left out: the slots alone will bring the key back; {told}"
        )
    look = "see spike keeper status; go on without one: --without-keeper NAME"
    if bad and plan.emergency is None:
        return Check("keepers", Result.FAIL, told, look)
    if len(good) < threshold:
        step = "bring them back; in an emergency go on with the slots alone: --without-keepers"
        return Check("keepers", Result.FAIL, told, step)
    is_bare = len(good) == threshold and total > threshold
    if is_bare and not force and (plan.left_out or plan.emergency is not None):
        step = "bring one more back, or go on with no margin: --force"
        return Check("keepers", Result.FAIL, f"{told}: none of them could fail", step)
    return Check("keepers", Result.WARN if bad or is_bare else Result.OK, told)


def places(plan: Plan, good: int, faults: Sequence[str]) -> Check:
    """See that each backup place holds the present key backup, read and confirmed."""
    if not good and not faults:
        return Check(
            "backup",
            Result.WARN,
            "no backup place is configured: the keyring's only copy is in the store",
            "name one in SPIKE_NEXUS_BACKUP_DIR",
        )
    told = f"{good} of {good + len(faults)} places hold the present key backup"
    if not faults:
        return ok("backup", told)
    told = f"{told}; {'; '.join(faults)}"
    if plan.emergency is not None:
        return Check("backup", Result.WARN, told, "mend the place after the rotation")
    return Check("backup", Result.FAIL, told, "mend the place, or take it out of the setting")


def room(free_bytes: int | None, size_bytes: int) -> Check:
    """See that the disk takes what a rotation writes: each batch beside what it replaces, and the log."""
    needed = max(_LEAST_ROOM_BYTES, size_bytes // 4)
    if free_bytes is None:
        return ok("disk", "the engine has no disk of its own")
    told = f"{free_bytes >> 20} MiB free, {needed >> 20} MiB wanted"
    if free_bytes < needed:
        return Check("disk", Result.FAIL, told, "make room on the store's disk")
    return ok("disk", told)


def keyring_room(plan: Plan, size_bytes: int) -> Check:
    """See that the keyring takes one more rotation: it names every generation that was in force, and before a flip
    holds each key that lives twice. A planned one leaves room for emergencies.
    """
    told = f"the keyring has {size_bytes >> 10} KiB; a planned rotation begins up to {_KEYRING_BYTES >> 10} KiB"
    if size_bytes <= _KEYRING_BYTES // 2:
        return ok("keyring", told)
    step = "rotate less often: spike key schedule set"
    full = size_bytes > _KEYRING_BYTES and plan.emergency is None
    return Check("keyring", Result.FAIL if full else Result.WARN, told, step)


def storage(fault: str) -> Check:
    """See that the store answers and takes writes; `fault` says why not."""
    if fault:
        return Check("storage", Result.FAIL, fault, "see spike status")
    return ok("storage", "the store answers and takes writes")


def memory(lock_room_bytes: int | None, unprotected: Sequence[str]) -> Check:
    """See that more keys can be locked in memory; None: without limit. `unprotected` names measures not in force."""
    if lock_room_bytes is not None and lock_room_bytes < _KEY_PAGES:
        told = f"{lock_room_bytes >> 10} KiB can still be locked, {_KEY_PAGES >> 10} KiB are wanted"
        return Check("memory", Result.FAIL, told, "raise RLIMIT_MEMLOCK and restart Nexus")
    if unprotected:
        return Check(
            "memory", Result.WARN, f"not in force: {', '.join(unprotected)}", "see spike status"
        )
    return ok("memory", "keys are locked, and there is room for more")


def clock(now: str, document: Keyring) -> Check:
    """See that the clock is not behind the last change of keys; and not a day or more: then it was set back."""
    behind = moment_of(document.replaced_at) - moment_of(now)
    if behind >= _CLOCK_LEAP:
        told = f"the clock says {now}, and the keyring was replaced at {document.replaced_at}"
        return Check("clock", Result.FAIL, told, "set the clock right")
    if behind > timedelta(0):
        return Check("clock", Result.WARN, f"the clock is {behind} behind the last change of keys")
    return ok("clock", now)


def known_answers(fault: str) -> Check:
    """See that every primitive gives the answers it must; `fault` says which does not."""
    if fault:
        return Check("known answers", Result.FAIL, fault, "replace this machine or its libraries")
    return ok("known answers", "every primitive gives its known answer")


def sample(opened: int, fault: str) -> Check:
    """See that one record of each kind opens with the keys in force."""
    if fault:
        return Check("sample", Result.FAIL, fault, "find what is damaged: spike key verify --wait")
    return ok("sample", f"{opened} records opened, one of each kind there is")


def passwords(now: str, document: Keyring) -> Check:
    """Warn of slots whose password nobody has tried for long, and where there is none. Never stops a rotation."""
    slots = [slot for slot in document.slots if slot.kind is not SlotKind.DRILL]
    if not slots:
        return Check(
            "password", Result.WARN, "no slot opens the backup", "add one: spike backup slot add"
        )
    late = [
        slot.name
        for slot in slots
        if moment_of(now) - moment_of(slot.verified_at) > VERIFY_PASSWORD_EVERY
    ]
    if late:
        told = f"not tried for {VERIFY_PASSWORD_EVERY.days} days: {', '.join(late)}"
        return Check("password", Result.WARN, told, "try it: spike backup verify --password")
    return ok(
        "password", f"{len(slots)} slots, each opened in the last {VERIFY_PASSWORD_EVERY.days} days"
    )


def require(checks: Sequence[Check]) -> None:
    """Return if no check failed.

    Raises:
        RefusalError: BUSY or ROTATION where the operation itself is in the way, else PREFLIGHT with every failure.
    """
    failed = [check for check in checks if check.result is Result.FAIL]
    if failed:
        told = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        steps = "; ".join(check.next_step for check in failed if check.next_step)
        raise RefusalError(Reason.PREFLIGHT, f"not begun, nothing was changed: {told}", steps)


def moment_of(text: str) -> datetime:
    """Return a moment of the keyring."""
    return datetime.fromisoformat(text)
