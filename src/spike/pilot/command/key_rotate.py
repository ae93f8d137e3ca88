"""`spike key rotate`: replace keys while everything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from spike.error import InputError, RefusedError
from spike.pilot import output, prompt, rotation_text, rotation_watch
from spike.pilot.failure import Exit
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.wire.duration import parse_duration_untrusted
from spike.wire.rotation import KeyRotateAnswer, KeyRotateRequest
from spike.wire.validate import check_keeper_names, check_leaked, check_reason

if TYPE_CHECKING:
    from spike.client.nexus import NexusClient

_WINDOW_LIMIT_S: Final = 366 * 24 * 3600


def lines_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--format` with JSON lines to a command; it gets a parameter `output_format`."""
    return click.option(
        "-f",
        "--format",
        "output_format",
        type=click.Choice([Format.HUMAN.value, Format.JSON.value]),
        callback=lambda _context, _parameter, value: Format(value),
        default=Format.HUMAN.value,
        show_default=True,
        help="Form of the output; json is one object a line.",
    )(command)


def wait_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--wait` to a command; its parameter is what is waited for, or None."""
    return click.option(
        "--wait",
        type=click.Choice(rotation_watch.WAITS),
        is_flag=False,
        flag_value=rotation_watch.WAITS[0],
        help="Show progress until it is verified; --wait=finalized: until the old keys are destroyed.",
    )(command)


def _window(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        seconds = parse_duration_untrusted(text)
    except InputError as error:
        raise click.BadParameter(f"{text!r} is {error.message}.") from error
    if not 0 <= seconds <= _WINDOW_LIMIT_S or seconds != int(seconds):
        raise click.BadParameter(f"{text!r} is not whole seconds from 0 to 8784h (366 days).")
    return int(seconds)


def _checked(check: Callable[[Any], None]) -> Callable[..., Any]:
    """Return a callback that takes what the wire takes, and says of the rest that it is wrong usage."""

    def callback(_context: click.Context, _parameter: click.Parameter, value: Any) -> Any:
        try:
            check(value)
        except InputError as error:
            raise click.BadParameter(f"{error.message}.") from error
        return value

    return callback


def reason_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--reason` to a command."""
    return click.option(
        "--reason",
        default="",
        metavar="TEXT",
        callback=_checked(check_reason),
        help="Why; it stands in the history.",
    )(command)


@click.command(
    epilog="""\b
WHAT leaked is one of
  root         the root key itself
  shards       recovery shards, as many as open their slot
  slot:NAME    the password of a slot
  keeper:NAME  the share of a Keeper
\b
Exit codes:
  0  it has begun, or such a one runs already; with --wait: it is verified (finalized);
     with --dry-run: it could begin
  1  refused, a check failed (also with --dry-run: standard error names it), a record failed,
     it was dropped, or it does not go on; also after Ctrl-C, which leaves it running
\b
Examples:
  spike key rotate --dry-run
  spike key rotate --wait --reason "yearly"
  spike key rotate --data-only --max-rate 500 --rollback-window 72h
  spike key rotate --emergency --leaked slot:anna --reason "laptop stolen"
"""
)
@click.option(
    "--root-only", is_flag=True, help="Replace the root key alone; records stay as they are."
)
@click.option("--data-only", is_flag=True, help="Replace the data keys alone; the root key stays.")
@click.option("--dry-run", is_flag=True, help="Only show whether it could begin; change nothing.")
@click.option("--emergency", is_flag=True, help="A key has leaked: replace all of them at once.")
@click.option(
    "--leaked",
    multiple=True,
    metavar="WHAT",
    callback=_checked(check_leaked),
    help="With --emergency: what has leaked; once for each.",
)
@reason_option
@click.option(
    "--max-rate",
    type=click.IntRange(0, 1_000_000_000),
    default=0,
    metavar="N",
    help="Re-encrypt at most N records a second; 0: as fast as requests allow.",
)
@click.option(
    "--rollback-window",
    "window_s",
    metavar="DURATION",
    callback=_window,
    help="How long it can be rolled back, such as 72h; 0: not at all [24h].",
)
@click.option(
    "--without-keeper",
    "without",
    multiple=True,
    metavar="NAME",
    callback=_checked(check_keeper_names),
    help="Go on though this Keeper does not confirm; once for each.",
)
@click.option(
    "--without-keepers", is_flag=True, help="Go on with the slots alone: no Keeper gets a share."
)
@click.option("--force", is_flag=True, help="Go on with no Keeper to spare.")
@click.option("-y", "--yes", is_flag=True, help="With --emergency: do not ask.")
@wait_option
@lines_option
@click.pass_context
def rotate(
    context: click.Context,
    *,
    root_only: bool,
    data_only: bool,
    dry_run: bool,
    emergency: bool,
    leaked: Sequence[str],
    reason: str,
    max_rate: int,
    window_s: int | None,
    without: Sequence[str],
    without_keepers: bool,
    force: bool,
    yes: bool,
    wait: str | None,
    output_format: Format,
) -> None:
    """Replace the root key and the data keys, and seal every record again, while requests are served.

    It runs inside Nexus, survives a restart, and can be rolled back until it is finalized.
    """
    _require_sense(
        scopes=root_only + data_only,
        emergency=emergency,
        leaked=leaked,
        reason=reason,
        window_s=window_s,
    )
    if dry_run and wait:
        raise click.UsageError("--dry-run begins nothing: there is nothing to wait for.")
    request = KeyRotateRequest(
        scope="root-only" if root_only else "data-only" if data_only else "",
        reason=reason,
        window_s=window_s,
        max_rate=max_rate,
        leaked=[*leaked],
        without=[*without],
        without_keepers=without_keepers,
        force=force,
        dry_run=dry_run,
    )
    session = Session.of_process()
    with session.connect_for_dialogue() as nexus:
        if dry_run:
            context.exit(_show_checks(nexus.check_rotation(request), output_format))
        if emergency and not yes:
            _confirm_emergency(nexus, request)
        begun = nexus.start_rotation(request)
        context.exit(begin(session, nexus, begun, wait, output_format))


def _require_sense(
    *, scopes: int, emergency: bool, leaked: Sequence[str], reason: str, window_s: int | None
) -> None:
    if scopes > 1:
        raise click.UsageError("--root-only and --data-only are different things: give one.")
    if not emergency:
        if leaked:
            raise click.UsageError("--leaked is for --emergency; give both.")
        return
    if not leaked or not reason:
        raise click.UsageError("--emergency needs --leaked WHAT and --reason TEXT.")
    if scopes:
        raise click.UsageError(
            "An emergency replaces every key: leave --root-only, --data-only out."
        )
    if window_s:
        raise click.UsageError("An emergency cannot be rolled back: leave --rollback-window out.")


def _show_checks(answer: KeyRotateAnswer, form: Format) -> Exit:
    """Show what was looked at, and of what failed one line more where errors are looked for."""
    failed = rotation_text.failed_checks(answer.checks)
    if form is Format.JSON:
        output.show_line(msgspec.to_builtins(answer))
    else:
        lines = (
            rotation_text.emergency(answer)
            if answer.exposure
            else rotation_text.checks(answer.checks)
        )
        good = [] if failed else ["It could begin. Nothing was changed."]
        output.show(None, form, [*lines, *good])
    if failed:
        output.note(f"Error: {failed}.")
    return Exit.FAILED if failed else Exit.SUCCESS


def _confirm_emergency(nexus: NexusClient, request: KeyRotateRequest) -> None:
    """Show what will be done and ask.

    Raises:
        RefusedError: it could not begin, or nobody said yes.
    """
    answer = nexus.check_rotation(msgspec.structs.replace(request, dry_run=True))
    for line in rotation_text.emergency(answer):
        output.note(line)
    if rotation_text.failed_checks(answer.checks):
        raise RefusedError(
            "not begun, nothing was changed: a check failed",
            "do what is told beside it, and try again",
        )
    if not prompt.confirm("Replace every key now?"):
        raise RefusedError("nothing was changed: not confirmed", "answer y, or give --yes")


def begin(
    session: Session, nexus: NexusClient, begun: KeyRotateAnswer, wait: str | None, form: Format
) -> Exit:
    """Tell of a rotation or rollback that has begun, and follow it if that is wanted."""
    for line in rotation_text.checks(each for each in begun.checks if each.result != "ok"):
        output.note(line)
    if not begun.started:
        output.note(f"Rotation {begun.id} runs already; this is that one.")
    if wait:
        code = rotation_watch.follow(nexus, begun.id, wait, form)
        session.renew_anchor(nexus)
        return code
    if form is Format.JSON:
        output.show_line(msgspec.to_builtins(begun))
    else:
        output.show(None, form, [f"Rotation {begun.id} runs. Look at it: {rotation_text.WATCH}"])
    return Exit.SUCCESS
