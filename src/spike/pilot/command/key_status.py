"""`spike key status|watch`: how a rotation is."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from spike.error import NotFoundError
from spike.pilot import output, rotation_text, rotation_watch, verification_text
from spike.pilot.command.key_rotate import lines_option
from spike.pilot.failure import Exit
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.wire.key import KeyStatusAnswer


@click.command(
    epilog="""\b
Exit codes:
  0  no rotation, one that goes on, or one that has ended well
  1  it was dropped, a record failed, or it does not go on
\b
Example:
  spike key status --format json
"""
)
@output.option
@click.pass_context
def status(context: click.Context, output_format: Format) -> None:
    """Show the rotation that goes on, or the last one, on one screen: how far, until when, what next."""
    with Session.of_process().connect() as nexus:
        answer = nexus.get_key_status()
    output.show(msgspec.to_builtins(answer), output_format, _lines(answer))
    told = answer.rotation
    failed = told is not None and rotation_text.has_failed(told)
    context.exit(Exit.FAILED if failed else Exit.SUCCESS)


def _lines(answer: KeyStatusAnswer) -> Iterator[str]:
    if answer.rotation is None:
        yield "No rotation is in progress, and none has ended since Nexus was started."
        yield "  Next: those of before: spike key history; whether one could begin: spike key rotate --dry-run"
    else:
        yield from rotation_text.state(answer.rotation)
    if answer.verification is not None:
        yield f"Verification {answer.verification.id}"
        yield f"  {verification_text.outcome(answer.verification)}"


@click.command(
    epilog="""\b
Exit codes:
  0  it is verified, or finalized if that was under way
  1  it was dropped, a record failed, or it does not go on; also after Ctrl-C, which leaves it running
  3  Nexus was silent for five minutes
\b
Examples:
  spike key watch
  spike key watch --format json
"""
)
@lines_option
@click.pass_context
def watch(context: click.Context, output_format: Format) -> None:
    """Show the progress of the rotation that goes on, until it is verified. Ctrl-C ends the looking alone."""
    session = Session.of_process()
    with session.connect_for_dialogue() as nexus:
        told = nexus.get_rotation()
        if told is None:
            raise NotFoundError(
                "no rotation is in progress, and none has ended since Nexus was started",
                "see spike key history, or begin one: spike key rotate",
            )
        until = "finalized" if told.phase == "finalizing" else "verified"
        code = rotation_watch.follow(nexus, told.id, until, output_format, told)
        session.renew_anchor(nexus)
    context.exit(code)
