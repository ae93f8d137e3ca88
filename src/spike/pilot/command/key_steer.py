"""`spike key pause|resume|pace|abort|rollback|finalize`: what can be done about a rotation that goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from spike.error import NotFoundError, RefusedError
from spike.pilot import output, prompt, rotation_text, rotation_watch
from spike.pilot.command.key_rotate import begin, lines_option, reason_option, wait_option
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.wire.rotation import Rotation

if TYPE_CHECKING:
    from spike.client.nexus import NexusClient


@click.command(epilog="\b\nExample:\n  spike key pause")
@output.option
def pause(output_format: Format) -> None:
    """Let re-encryption rest. It rests, also after a restart of Nexus, until it is resumed.

    Requests are served all the time, and both keys go on opening what is under them.
    """
    with Session.of_process().connect() as nexus:
        told = nexus.pause_rotation()
    _show(told, "rests. Let it go on: spike key resume", output_format)


@click.command(epilog="\b\nExample:\n  spike key resume")
@output.option
def resume(output_format: Format) -> None:
    """Let a re-encryption that was paused go on."""
    with Session.of_process().connect() as nexus:
        told = nexus.resume_rotation()
    _show(told, f"goes on. Look at it: {rotation_text.WATCH}", output_format)


@click.command(epilog="\b\nExamples:\n  spike key pace 500\n  spike key pace 0")
@click.argument("max_rate", metavar="N", type=click.IntRange(0, 1_000_000_000))
@output.option
def pace(max_rate: int, output_format: Format) -> None:
    """Re-encrypt at most N records a second from now on; 0: as fast as requests allow."""
    with Session.of_process().connect() as nexus:
        told = nexus.set_rotation_pace(max_rate)
    rate = f"at most {max_rate} records a second" if max_rate else "as fast as requests allow"
    _show(told, f"goes on with {rate}.", output_format)


@click.command(epilog='\b\nExample:\n  spike key abort --reason "wrong day"')
@reason_option
@output.option
def abort(reason: str, output_format: Format) -> None:
    """End a rotation that has not come into force; the keys of before serve on.

    One that has come into force is rolled back instead: spike key rollback.
    """
    session = Session.of_process()
    with session.connect() as nexus:
        told = nexus.abort_rotation(reason)
        session.renew_anchor(nexus)
    _show(
        told, "has ended: it never came into force, and the keys of before serve on.", output_format
    )


@click.command(
    epilog="""\b
Exit codes:
  0  it has begun, or runs already; with --wait: it is verified (finalized)
  1  refused, not confirmed, or it did not come to that
\b
Example:
  spike key rollback --reason "the new build reads slower" --wait
"""
)
@reason_option
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@wait_option
@lines_option
@click.pass_context
def rollback(
    context: click.Context, reason: str, yes: bool, wait: str | None, output_format: Format
) -> None:
    """Go back to the keys of before the rotation, after showing what that meets.

    It is a rotation towards them: records are sealed again, nothing that was written is lost.
    """
    session = Session.of_process()
    with session.connect_for_dialogue() as nexus:
        if not yes:
            for line in rotation_text.rollback(_present(nexus)):
                output.note(line)
            _confirm("Roll it back?")
        context.exit(begin(session, nexus, nexus.rollback_rotation(reason), wait, output_format))


@click.command(
    epilog="""\b
Exit codes:
  0  what was replaced is destroyed
  1  refused, not confirmed, or it did not end; also after Ctrl-C, which leaves it running
\b
Example:
  spike key finalize
"""
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@lines_option
@click.pass_context
def finalize(context: click.Context, yes: bool, output_format: Format) -> None:
    """Destroy the keys that a verified rotation has replaced, after asking. There is no way back then."""
    session = Session.of_process()
    with session.connect_for_dialogue() as nexus:
        if not yes:
            for line in rotation_text.finalize(_present(nexus)):
                output.note(line)
            _confirm("Destroy them?")
        told = nexus.finalize_rotation()
        if told is None:
            raise NotFoundError("Nexus tells of no rotation any more", "see spike key history")
        code = rotation_watch.follow(nexus, told.id, "finalized", output_format, told)
        session.renew_anchor(nexus)
    context.exit(code)


def _present(nexus: NexusClient) -> Rotation:
    told = nexus.get_rotation()
    if told is None:
        raise NotFoundError("no rotation is in progress", "see spike key history")
    return told


def _confirm(question: str) -> None:
    if not prompt.confirm(question):
        raise RefusedError("nothing was changed: not confirmed", "answer y, or give --yes")


def _show(told: Rotation | None, what: str, form: Format) -> None:
    title = "The rotation" if told is None else rotation_text.title(told)
    output.show(msgspec.to_builtins(told), form, [f"{title} {what}"])
