"""`spike key report` and `spike key note`: a rotation for those who ask later."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from spike.pilot import output
from spike.pilot.failure import Exit
from spike.pilot.file import write_whole
from spike.pilot.output import Format
from spike.pilot.session import Session


@click.command(
    epilog="""\b
Exit codes:
  0  the history tells all that it should of this rotation
  1  something is missing in it, its chain is broken, or there is no such rotation
\b
Examples:
  spike key report > rotation.md
  spike key report 0f3c7a5e9b1d4c628e0a7d5b3f91c264 --out rotation.md
  spike key report --format json
"""
)
@click.argument("rotation_id", metavar="[ID]", default="")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write to FILE, for its owner alone; without it, to standard output.",
)
@output.option
@click.pass_context
def report(
    context: click.Context, rotation_id: str, out: Path | None, output_format: Format
) -> None:
    """Report on a rotation, fit for an auditor: Markdown, or data with --format. Without ID, the newest.

    Who, when, why, checks, counts, durations, what was destroyed, what no rotation erases, remarks, and
    lines to sign. It is made from the history alone; what that does not tell is named.
    """
    with Session.of_process().connect() as nexus:
        answer = nexus.get_key_report(rotation_id)
    told = answer.report
    if out is None:
        data = msgspec.to_builtins(told)
        output.show(data, output_format, answer.markdown.splitlines())
    elif output_format is Format.HUMAN:
        write_whole(out, answer.markdown.encode())
    else:
        raise click.UsageError("--out takes Markdown; send data to a file with > FILE.")
    context.exit(Exit.FAILED if told.missing or told.breaks else Exit.SUCCESS)


@click.command(
    epilog="""\b
Example:
  spike key note 0f3c7a5e9b1d4c628e0a7d5b3f91c264 "ticket OPS-1423, approved by the security board"
"""
)
@click.argument("rotation_id", metavar="ID")
@click.argument("text")
def note(rotation_id: str, text: str) -> None:
    """Add a remark to the history of a rotation; its report shows it. It cannot be taken back."""
    session = Session.of_process()
    with session.connect() as nexus:
        answer = nexus.add_key_note(rotation_id, text)
        session.renew_anchor(nexus)
    output.show(None, Format.HUMAN, [f"Noted: event {answer.sequence} of the history."])
