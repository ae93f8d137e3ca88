"""Messages of the schedule: when keys are replaced, how far each is, what comes next."""

from __future__ import annotations

import msgspec

from spike.wire.message import GoInt, GoTime, Message

UNLIMITED = -1
"""In a request: an interval that never ends, a usage limit that is never reached. 0 leaves it as it is."""


class ScheduleWindow(Message, frozen=True):
    """Hours on days of the week (`mon` to `sun`), from `begin` to `end` (such as 22:00); past midnight if need be."""

    days: list[str] = msgspec.field(default_factory=list)
    begin: str = ""
    end: str = ""


class ScheduleSetting(Message, frozen=True):
    """The schedule. Intervals are in days, `usage_limit` in records sealed under one key; 0 is none of it.

    No windows: any time will do.
    """

    record_days: GoInt
    root_days: GoInt
    usage_limit: GoInt
    zone: str
    windows: list[ScheduleWindow]


class ScheduleKey(Message, frozen=True, omit_defaults=True):
    """The active generation of a key. `standing`: current, warning (80 %), due, expired.

    `used` and `limit` are in records; left out where they do not apply, as are the dates. `spent` is in percent, of
    time or use, whichever is more.
    """

    purpose: str
    generation: GoInt
    standing: str
    since: GoTime
    spent: GoInt
    due_at: GoTime | None = None
    expires_at: GoTime | None = None
    used: GoInt | None = None
    limit: GoInt | None = None


class ScheduleNext(Message, frozen=True, omit_defaults=True):
    """The next rotation that begins by itself, and how long it is expected to take.

    `rate_per_s` is that of the last rotation if `measured`, else assumed. `window_ends_at` is left out without
    windows; `fits`: it ends before that. What does not fit goes on in the next window.
    """

    scope: str
    due_at: GoTime
    begins_at: GoTime
    reason: str
    records: GoInt
    rate_per_s: GoInt
    seconds: GoInt
    measured: bool = False
    window_ends_at: GoTime | None = None
    fits: bool | None = None


class ScheduleAnswer(Message, frozen=True, omit_defaults=True):
    """The schedule in force, `default` where nobody changed it. `open`: a rotation may work now.

    `alerts` is what a person should look into.
    """

    now: GoTime
    setting: ScheduleSetting
    keys: list[ScheduleKey]
    default: bool = False
    open: bool = False
    next: ScheduleNext | None = None
    alerts: list[str] = msgspec.field(default_factory=list)


class KeyScheduleSetRequest(Message, frozen=True):
    """What is to be changed. Numbers: 0 leaves as it is, -1 is none. An empty `zone` stays.

    `windows` take the place of those before if `replace_windows`. `reset` begins from the defaults.
    """

    record_days: GoInt = 0
    root_days: GoInt = 0
    usage_limit: GoInt = 0
    zone: str = ""
    windows: list[ScheduleWindow] = msgspec.field(default_factory=list)
    replace_windows: bool = False
    reset: bool = False
