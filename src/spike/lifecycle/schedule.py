"""The schedule: how long a key is used, and in which hours of the week a rotation may work. Pure.

It is part of the keyring, so that whoever writes the store cannot change it; a keyring without one has the defaults.

* A window is said in wall-clock time of one zone, as people say it, and kept to by the moments this comes to on each
  day. Where the clock skips an hour, a time in it is the moment of the skip; a window that lies in it whole does not
  open on that day. Where an hour comes twice, a window begins at the first and ends at the second.
* Without windows, any time will do.

Sources of the defaults: docs/decision/schedule.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

from spike.error import InputError

NEVER: Final = 0
"""An interval that never ends, a usage limit that is never reached."""
LONGEST_DAYS: Final = 3650
LARGEST_USE: Final = 1 << 62
WINDOW_LIMIT: Final = 32
# Weekly windows come back within a week; a day more for one that the clock skips, two for windows across midnight.
_HORIZON_DAYS: Final = 16
_TIME: Final = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")
_ZONE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
_ZONE_LIMIT: Final = 64

TimeOfDay = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]\Z")]
Days = Annotated[int, Meta(ge=0, le=LONGEST_DAYS)]


class Day(StrEnum):
    """A day of the week, in its order."""

    MONDAY = "mon"
    TUESDAY = "tue"
    WEDNESDAY = "wed"
    THURSDAY = "thu"
    FRIDAY = "fri"
    SATURDAY = "sat"
    SUNDAY = "sun"


_WEEK: Final = tuple(Day)


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Hours on days of the week. One that does not end after it begins ends on the next day."""

    days: Annotated[tuple[Day, ...], Meta(min_length=1, max_length=7)]
    begin: TimeOfDay
    end: TimeOfDay


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When keys are replaced. Intervals are in days; `usage_limit` is in records sealed under one key."""

    record_days: Days = 90
    root_days: Days = 365
    usage_limit: Annotated[int, Meta(ge=0, le=LARGEST_USE)] = 1_000_000_000
    zone: Annotated[str, Meta(max_length=_ZONE_LIMIT)] = "UTC"
    windows: Annotated[tuple[Window, ...], Meta(max_length=WINDOW_LIMIT)] = ()


DEFAULT: Final = Schedule()


class Span(NamedTuple):
    """A time in which rotations may work: from `begin` up to, but not at, `end`. Both in UTC."""

    begin: datetime
    end: datetime


def window_of(days: list[str], begin: str, end: str) -> Window:
    """Return a window from words: days such as `mon`, times of day such as 22:00.

    Raises:
        InputError: a day or a time is none. The message repeats what was given, shortened.
    """
    names = {day.value: day for day in _WEEK}
    unknown = next((day for day in days if day not in names), None)
    if unknown is not None:
        raise InputError(f"no day is called {unknown[:20]!r}: days are {', '.join(_WEEK)}")
    if not days:
        raise InputError("a window has no day")
    for text in (begin, end):
        if not _TIME.fullmatch(text):
            raise InputError(f"{text[:20]!r} is no time of day: they go from 00:00 to 23:59")
    return Window(tuple(day for day in _WEEK if day.value in days), begin, end)


def check_zone_name(name: str) -> None:
    """Check the form of a time zone's name; whether there is such a zone, the machine must say.

    Raises:
        InputError: no zone has such a name.
    """
    if len(name) > _ZONE_LIMIT or not _ZONE.fullmatch(name):
        raise InputError("a time zone has a name such as Europe/Berlin or UTC")


def check(schedule: Schedule) -> None:
    """Check that a schedule says what it can keep to.

    Raises:
        InputError: a number is out of range, or there are too many windows.
    """
    for what, days in (("record", schedule.record_days), ("root", schedule.root_days)):
        if not 0 <= days <= LONGEST_DAYS:
            raise InputError(f"the {what} interval is not 1 to {LONGEST_DAYS} days, or never")
    if not 0 <= schedule.usage_limit <= LARGEST_USE:
        raise InputError(f"the usage limit is not 1 to {LARGEST_USE} records, or none")
    if len(schedule.windows) > WINDOW_LIMIT:
        raise InputError(f"a schedule has at most {WINDOW_LIMIT} windows")
    check_zone_name(schedule.zone)


def open_span(schedule: Schedule, zone: tzinfo, now: datetime) -> Span | None:
    """Return the span that `now` lies in, or None: it lies in none, or there are no windows at all."""
    span = next(_spans(schedule, zone, now), None)
    return span if span is not None and span.begin <= now else None


def is_open(schedule: Schedule, zone: tzinfo, now: datetime) -> bool:
    """Return whether a rotation may work now."""
    return not schedule.windows or open_span(schedule, zone, now) is not None


def first_open(schedule: Schedule, zone: tzinfo, at: datetime) -> datetime:
    """Return the first moment from `at` on in which a rotation may work."""
    if not schedule.windows:
        return at
    return max(at, next(_spans(schedule, zone, at)).begin)


def next_edge(schedule: Schedule, zone: tzinfo, now: datetime) -> datetime | None:
    """Return when next a window opens or closes; None without windows."""
    span = next(_spans(schedule, zone, now), None)
    if span is None:
        return None
    return span.begin if span.begin > now else span.end


def _spans(schedule: Schedule, zone: tzinfo, after: datetime) -> Iterator[Span]:
    """Give the spans that end after a moment, in order; those that touch are one."""
    first = after.astimezone(zone).date() - timedelta(days=2)
    days = [first + timedelta(days=number) for number in range(_HORIZON_DAYS)]
    single = sorted(
        span
        for day in days
        for window in schedule.windows
        if _WEEK[day.weekday()] in window.days
        for span in [_span_on(window, day, zone)]
        if span.begin < span.end
    )
    joined: Span | None = None
    for span in single:
        if joined is not None and span.begin <= joined.end:
            joined = Span(joined.begin, max(joined.end, span.end))
            continue
        if joined is not None and joined.end > after:
            yield joined
        joined = span
    if joined is not None and joined.end > after:
        yield joined


def _span_on(window: Window, day: date, zone: tzinfo) -> Span:
    begin, end = time.fromisoformat(window.begin), time.fromisoformat(window.end)
    last = day if end > begin else day + timedelta(days=1)
    return Span(
        _moment(datetime.combine(day, begin), zone, fold=0),
        _moment(datetime.combine(last, end), zone, fold=1),
    )


def _moment(wall: datetime, zone: tzinfo, *, fold: int) -> datetime:
    """Return the moment of a wall-clock time: of two the one that `fold` says, of a skipped one the skip's."""
    for _ in range(2 * 24 * 60):  # a zone has skipped a whole day
        moment = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if moment.astimezone(zone).replace(tzinfo=None, fold=0) == wall:
            return moment
        wall += timedelta(minutes=1)
    raise InputError("the time zone skips more than two days")
