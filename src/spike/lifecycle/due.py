"""When a key is due, when it is too old to be used, and which rotation comes next. Pure.

    since activation:   ── current ──► 80 % warning ──► 100 % due ──► 200 % expired

* A key is due when its interval has passed, or the usage limit is reached; then a rotation begins in the next window.
* A record or cipher key that is expired seals nothing for a caller, and an expired root key wraps no other key:
  whether a schedule runs or not. All of them go on opening. What SPIKE itself seals on the way to the next key
  (the history, the records that a rotation seals again) is not refused: else nothing could end this.
* For an expired key the next rotation waits for no window: nothing is written meanwhile.
* After a rollback nothing begins by itself for a week, after a rotation that was dropped for a day: a person is
  looking at it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Final, NamedTuple

from spike.error import FormatError
from spike.lifecycle.keyring import KeyPurpose, Keyring, Scope
from spike.lifecycle.schedule import DEFAULT, NEVER, Schedule, first_open, open_span
from spike.lifecycle.state import State, Transition
from spike.lifecycle.usage import Usage

WARNING_SHARE: Final = 0.8
AFTER_ROLLBACK: Final = timedelta(days=7)
AFTER_DROP: Final = timedelta(days=1)
ROOT: Final = "root"
ASSUMED_RATE_PER_S: Final = 1_000
"""Records a second, where no rotation was measured yet: the least that is promised beside other work."""


class Standing(StrEnum):
    """How far a key is in its time."""

    CURRENT = "current"
    WARNING = "warning"
    DUE = "due"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class KeyUse:
    """The active generation of a key: since when, for how long, how much.

    `interval` is None where it never ends; `used` where it is not counted, `limit` where there is none.
    """

    purpose: str
    generation: int
    since: datetime
    interval: timedelta | None
    used: int | None
    limit: int | None

    @property
    def due_at(self) -> datetime | None:
        """When its interval has passed."""
        return None if self.interval is None else self.since + self.interval

    @property
    def expires_at(self) -> datetime | None:
        """When it is overdue by its whole life again."""
        return None if self.interval is None else self.since + 2 * self.interval

    def share(self, now: datetime) -> float:
        """Return how much of its time or use is spent, whichever is more; 1.0 is due."""
        spent = 0.0 if self.interval is None else (now - self.since) / self.interval
        used = 0.0 if not self.limit or self.used is None else self.used / self.limit
        return max(spent, used, 0.0)

    def is_used_up(self) -> bool:
        """Return whether the usage limit is reached."""
        return bool(self.limit) and self.used is not None and self.used >= (self.limit or 0)

    def standing(self, now: datetime, *, may_expire: bool = True) -> Standing:
        """Return how far it is; without `may_expire` a key that is expired is due."""
        if may_expire and self.expires_at is not None and now >= self.expires_at:
            return Standing.EXPIRED
        share = self.share(now)
        if share >= 1:
            return Standing.DUE
        return Standing.WARNING if share >= WARNING_SHARE else Standing.CURRENT


class Planned(NamedTuple):
    """The next rotation: what it replaces, when that is due, when it begins, and why."""

    scope: Scope
    due_at: datetime
    begins_at: datetime
    why: str


class Estimate(NamedTuple):
    """How long a rotation takes. `ends_at` is the end of the window it begins in; `fits` None without windows."""

    seconds: int
    rate_per_s: int
    is_measured: bool
    ends_at: datetime | None
    fits: bool | None


def schedule_of(document: Keyring) -> Schedule:
    """Return the schedule in force."""
    return document.schedule or DEFAULT


def moment_of(text: str) -> datetime:
    """Return the moment that a document's date names."""
    return datetime.fromisoformat(text)


def uses(document: Keyring, usage: Usage | None) -> tuple[KeyUse, ...]:
    """Return the active root, record and cipher key."""
    schedule = schedule_of(document)
    root = document.active_root
    found = [_use(schedule, ROOT, root.number, root.history, None)]
    for purpose in (KeyPurpose.RECORD, KeyPurpose.CIPHER):
        key = document.active_key(purpose)
        used = 0 if usage is None else usage.of(purpose, key.number)
        found.append(_use(schedule, purpose.value, key.number, key.history, used))
    return tuple(found)


def _use(
    schedule: Schedule,
    purpose: str,
    number: int,
    history: tuple[Transition, ...],
    used: int | None,
) -> KeyUse:
    days = schedule.root_days if purpose == ROOT else schedule.record_days
    return KeyUse(
        purpose,
        number,
        _in_force_since(history),
        None if days == NEVER else timedelta(days=days),
        used,
        None if used is None or schedule.usage_limit == NEVER else schedule.usage_limit,
    )


def activated(history: tuple[Transition, ...]) -> datetime | None:
    """Return when a key came into force first, or None: a rollback to it makes it no younger."""
    at = next((step.at for step in history if step.state is State.ACTIVE), None)
    return None if at is None else moment_of(at)


def _in_force_since(history: tuple[Transition, ...]) -> datetime:
    since = activated(history)
    if since is None:
        raise FormatError("the keyring is damaged: an active key never came into force")
    return since


def newest_date(document: Keyring) -> datetime:
    """Return the last date at which a key changed its state: what the keyring knows of time."""
    return max(moment_of(step.at) for history in _histories(document) for step in history)


def _histories(document: Keyring) -> Iterator[tuple[Transition, ...]]:
    yield from (root.history for root in document.roots)
    yield from (key.history for key in document.keys)


def held_until(document: Keyring) -> datetime | None:
    """Return until when nothing begins by itself, because a rotation was rolled back or dropped."""
    return max(_holds(document), default=None)


def _holds(document: Keyring) -> Iterator[datetime]:
    for history in _histories(document):
        states = [step.state for step in history]
        if states.count(State.ACTIVE) > 1:
            back = max(step.at for step in history if step.state is State.ACTIVE)
            yield moment_of(back) + AFTER_ROLLBACK
        if states[-1] is State.DESTROYED and State.ACTIVE not in states:
            yield moment_of(history[-1].at) + AFTER_DROP


def next_rotation(
    document: Keyring, usage: Usage | None, zone: tzinfo, now: datetime, *, may_expire: bool = True
) -> Planned | None:
    """Return the next rotation that begins by itself, or None where no interval and no limit calls for one.

    While one is in progress this tells of the one after it.
    """
    schedule = schedule_of(document)
    due = [(at, use) for use in uses(document, usage) if (at := _due_at(use, now)) is not None]
    if not due:
        return None
    due_at, first = min(due, key=lambda each: each[0])
    if first.standing(now, may_expire=may_expire) is Standing.EXPIRED:
        begins_at = now
    else:
        begins_at = first_open(schedule, zone, max(due_at, now, held_until(document) or now))
    with_root = any(use.purpose == ROOT and at <= begins_at for at, use in due)
    scope = Scope.FULL if with_root else Scope.DATA_ONLY
    return Planned(scope, due_at, begins_at, _why(first, begins_at))


def _due_at(use: KeyUse, now: datetime) -> datetime | None:
    if use.is_used_up():
        return min(now, use.due_at or now)
    return use.due_at


def _why(use: KeyUse, at: datetime) -> str:
    if use.is_used_up():
        return f"{use.purpose} key {use.generation} has sealed {use.used} records"
    days = (at - use.since).days
    return f"{use.purpose} key {use.generation} is {days} days old"


def estimate(
    schedule: Schedule, zone: tzinfo, begins_at: datetime, records: int, rate_per_s: int | None
) -> Estimate:
    """Return how long a rotation of so many records takes at the rate that was measured last, if one was."""
    rate = rate_per_s or ASSUMED_RATE_PER_S
    seconds = -(-records // rate)
    span = open_span(schedule, zone, begins_at)
    fits = None if span is None else begins_at + timedelta(seconds=seconds) <= span.end
    return Estimate(seconds, rate, bool(rate_per_s), None if span is None else span.end, fits)


def expiry(document: Keyring, purpose: KeyPurpose) -> datetime | None:
    """Return from when on the active record, cipher or root key is too old to be used, or None."""
    name = ROOT if purpose is KeyPurpose.ROOT else purpose.value
    return next(use.expires_at for use in uses(document, None) if use.purpose == name)


def wraps_more(before: Keyring, after: Keyring) -> bool:
    """Return whether a change wraps keys under a root key that was there before it and stays."""
    if before.active_root.number != after.active_root.number:
        return False
    known = {(key.purpose, key.slot, key.number) for key in before.keys}
    coming = () if after.rotation is None else after.rotation.next_keys
    return any(
        (key.purpose, key.slot, key.number) not in known
        for key in (*after.keys, *coming)
        if key.is_live and key.root == before.active_root.number
    )
