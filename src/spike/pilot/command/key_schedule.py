"""`spike key schedule`: when keys are replaced by themselves."""

from __future__ import annotations

import re
from typing import Final

import click
import msgspec

from spike.pilot import output, schedule_text
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.wire.schedule import UNLIMITED, KeyScheduleSetRequest, ScheduleWindow

_WINDOW: Final = re.compile(r"\s*([A-Za-z,\s]+?)\s+(\S+?)\s*-\s*(\S+)\s*")
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_INTERVAL: Final = re.compile(r"([0-9]{1,6})\s*(d|days?)?")


@click.group()
def schedule() -> None:
    """Say when keys are replaced by themselves, and in which hours."""


@schedule.command(epilog="\b\nExample:\n  spike key schedule show --format yaml")
@output.option
def show(output_format: Format) -> None:
    """Show intervals, limits and windows, how far each key is, and what comes next."""
    with Session.of_process().connect() as nexus:
        told = nexus.get_schedule()
    output.show(msgspec.to_builtins(told), output_format, schedule_text.whole(told))


@schedule.command("next", epilog="\b\nExample:\n  spike key schedule next")
@output.option
def next_(output_format: Format) -> None:
    """Show when the next rotation begins, how long it will take, and whether that fits the window."""
    with Session.of_process().connect() as nexus:
        told = nexus.get_schedule()
    data = msgspec.to_builtins(told)
    shown = {name: data.get(name) for name in ("now", "next", "alerts")}
    output.show(shown, output_format, schedule_text.following(told))


def _interval(_context: click.Context, parameter: click.Parameter, given: str | None) -> int:
    if given is None:
        return 0
    if given == "never":
        return UNLIMITED
    found = _INTERVAL.fullmatch(given)
    if found is None or int(found[1]) == 0:
        raise click.BadParameter(f"{given!r} is not a number of days, or never", param=parameter)
    return int(found[1])


def _limit(_context: click.Context, parameter: click.Parameter, given: str | None) -> int:
    if given is None:
        return 0
    if given == "none":
        return UNLIMITED
    if not re.fullmatch(r"[0-9]{1,19}", given) or int(given) == 0:
        raise click.BadParameter(f"{given!r} is not a number of records, or none", param=parameter)
    return int(given)


def _windows(
    _context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> list[ScheduleWindow]:
    try:
        return [window_of(text) for text in given]
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def window_of(text: str) -> ScheduleWindow:
    """Return the window that `sat,sun 22:00-06:00` names; days may be `daily` or `workdays`.

    Whether days and times exist is for Nexus to say.

    Raises:
        ValueError: it is not of this form.
    """
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not of the form DAY,DAY HH:MM-HH:MM")
    days: list[str] = []
    for name in re.split(r"[,\s]+", found[1].lower()):
        days += {"daily": _DAYS, "workdays": _DAYS[:5]}.get(name, (name,))
    return ScheduleWindow(days, found[2], found[3])


@schedule.command(
    "set",
    epilog="""\b
Examples:
  spike key schedule set --zone Europe/Berlin --window "daily 01:00-05:00"
  spike key schedule set --window "workdays 22:00-06:00" --window "sat,sun 00:00-00:00"
  spike key schedule set --record-interval 30d --usage-limit none
  spike key schedule set --default
""",
)
@click.option(
    "--record-interval",
    "record_days",
    callback=_interval,
    metavar="DAYS|never",
    help="Replace the record and the cipher key after so many days.",
)
@click.option(
    "--root-interval",
    "root_days",
    callback=_interval,
    metavar="DAYS|never",
    help="Replace the root key after so many days.",
)
@click.option(
    "--usage-limit",
    callback=_limit,
    metavar="RECORDS|none",
    help="Replace a record or cipher key that has sealed so many records.",
)
@click.option("--zone", default="", metavar="NAME", help="Time zone of the windows.")
@click.option(
    "--window",
    "windows",
    multiple=True,
    callback=_windows,
    metavar="'DAYS FROM-TO'",
    help="Let rotations work in these hours alone; may be given again. Takes the place of all before.",
)
@click.option("--no-windows", is_flag=True, help="Let rotations work at any time.")
@click.option("--default", "reset", is_flag=True, help="Begin from the defaults.")
@output.option
def set_(
    *,
    record_days: int,
    root_days: int,
    usage_limit: int,
    zone: str,
    windows: list[ScheduleWindow],
    no_windows: bool,
    reset: bool,
    output_format: Format,
) -> None:
    """Change intervals, limits and windows; what is not named stays as it is.

    An expired key seals nothing more: one that is in use for twice its interval. Without an interval (never)
    a key does not expire either.
    """
    if windows and no_windows:
        raise click.UsageError("--window and --no-windows contradict each other.")
    if not (record_days or root_days or usage_limit or zone or windows or no_windows or reset):
        raise click.UsageError("Name what to change; see spike key schedule show.")
    asked = KeyScheduleSetRequest(
        record_days=record_days,
        root_days=root_days,
        usage_limit=usage_limit,
        zone=zone,
        windows=windows,
        replace_windows=bool(windows) or no_windows,
        reset=reset,
    )
    session = Session.of_process()
    with session.connect() as nexus:
        told = nexus.set_schedule(asked)
        session.renew_anchor(nexus)
    output.show(msgspec.to_builtins(told), output_format, schedule_text.whole(told))
