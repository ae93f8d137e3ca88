"""What a person is told of a schedule. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from spike.pilot.progress import duration
from spike.wire.schedule import ScheduleAnswer, ScheduleKey, ScheduleNext, ScheduleWindow

_SCOPE = {
    "full": "root key and data keys",
    "data-only": "data keys",
    "root-only": "root key",
}


def whole(told: ScheduleAnswer) -> Iterator[str]:
    """Give the lines about a schedule, how far the keys are and what comes next."""
    setting = told.setting
    yield "Schedule (nobody has changed it):" if told.default else "Schedule:"
    yield f"  record and cipher key  {_every(setting.record_days)}"
    yield f"  root key               {_every(setting.root_days)}"
    limit = f"{setting.usage_limit} records" if setting.usage_limit else "none"
    yield f"  usage limit            {limit}"
    if not setting.windows:
        yield "  windows                none: any time will do"
    for number, window in enumerate(setting.windows):
        label = "windows" if number == 0 else ""
        yield f"  {label:<22} {window_text(window)} ({setting.zone})"
    if setting.windows:
        yield f"  {'':<22} {'open now' if told.open else 'closed now'}"
    yield "Keys:"
    for key in told.keys:
        yield f"  {_key(key)}"
    yield from following(told)


def following(told: ScheduleAnswer) -> Iterator[str]:
    """Give the lines about what comes next, and about what a person should look into."""
    if told.next is None:
        yield "Next rotation: none begins by itself."
    else:
        yield from _next(told.next)
    for alert in told.alerts:
        yield f"ALERT: {alert}"


def window_text(window: ScheduleWindow) -> str:
    """Return a window as the command takes it."""
    return f"{','.join(window.days)} {window.begin}-{window.end}"


def _every(days: int) -> str:
    return f"replaced every {days} days" if days else "never replaced by itself"


def _key(key: ScheduleKey) -> str:
    used = "" if key.used is None else f", {key.used} records sealed"
    due = "" if key.due_at is None else f", due {key.due_at}"
    expires = "" if key.expires_at is None else f", not used after {key.expires_at}"
    return (
        f"{key.purpose} {key.generation}: {key.standing}, since {key.since}{used}, "
        f"{key.spent} % spent{due}{expires}"
    )


def _next(planned: ScheduleNext) -> Iterator[str]:
    yield (
        f"Next rotation: {_SCOPE.get(planned.scope, planned.scope)}, begins {planned.begins_at} "
        f"(due {planned.due_at}: {planned.reason})"
    )
    how = "as last measured" if planned.measured else "assumed: none was measured yet"
    yield (
        f"  about {duration(planned.seconds)} for {planned.records} records at "
        f"{planned.rate_per_s} a second ({how})"
    )
    match planned.fits:
        case True:
            yield f"  it fits the window, which ends {planned.window_ends_at}"
        case False:
            yield (
                f"  it does not fit the window, which ends {planned.window_ends_at}: the keys are "
                "replaced in it, records are sealed again in the windows that follow"
            )
        case None:
            pass
