"""`spike drill`: a full recovery into an instance that is thrown away, and the report of all of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click
import msgspec

from spike.client.nexus import NexusClient, PasswordFor
from spike.error import NotFoundError
from spike.memory.process import harden
from spike.pilot import drill_text, output, prompt, source
from spike.pilot.failure import Exit
from spike.pilot.output import Format
from spike.pilot.progress import Line
from spike.pilot.recoverability import SUCCEEDED
from spike.pilot.session import Session
from spike.pilot.source import FromDescriptor, FromFile, Source, wiped
from spike.wire.drill import Drill

_RUNNING: Final = "running"
_PAUSE_S: Final = 0.2


class _RunByDefault(click.Group):
    """A group that runs `run` where no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `run` before options that come without a command."""
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_RunByDefault)
def drill() -> None:
    """Prove that a recovery would work: spike drill makes a drill now."""


@drill.command(
    epilog="""\b
Exit codes:
  0  the drill succeeded
  1  it did not, or was refused
\b
Examples:
  spike drill
  spike drill --password --full
  spike drill --password-file /run/secret/backup --slot ada
"""
)
@click.option("--password", is_flag=True, help="Open the key backup with a person's password.")
@click.option("--slot", "slot_name", default="", help="The slot the password is for [the first].")
@click.option("--full", is_flag=True, help="Open every record, not a sample.")
@source.option
@output.option
@click.pass_context
def run(
    context: click.Context,
    *,
    password: bool,
    slot_name: str,
    full: bool,
    password_file: Path | None,
    password_fd: int | None,
    password_stdin: bool,
    output_format: Format,
) -> None:
    """Recover everything from a key backup into an instance that is thrown away, and look at it.

    Nexus goes on serving, and nothing of it is touched. It makes a drill by itself every 7 days; one with a person's
    password is due every 90 days, for only that shows that the password is known and opens the backup.
    """
    chosen = source.choose(password_file, password_fd, password_stdin)
    harden()
    with Session.of_process().connect_for_dialogue() as nexus:
        if password or isinstance(chosen, FromFile | FromDescriptor):
            with wiped(_obtain(chosen)) as entered:
                begun = nexus.begin_drill(full=full, secret=PasswordFor(entered, slot_name))
        else:
            begun = nexus.begin_drill(full=full)
        ended = _followed(nexus, begun)
    output.show(msgspec.to_builtins(ended), output_format, list(drill_text.lines(ended)))
    context.exit(Exit.SUCCESS if ended.outcome == SUCCEEDED else Exit.FAILED)


def _obtain(chosen: Source) -> bytearray:
    if isinstance(chosen, FromFile | FromDescriptor):
        return source.read(chosen)
    with prompt.terminal() as terminal:
        return prompt.ask_hidden(terminal, "Password: ")


def _followed(nexus: NexusClient, begun: Drill) -> Drill:
    """Return the drill as it ended; show how far it is meanwhile."""
    line = Line()
    try:
        while True:
            told = nexus.get_drills().last
            if told is None or (told.at, told.kind) != (begun.at, begun.kind):
                raise NotFoundError(
                    "the drill is not there any more: Nexus was started again, or another one was begun",
                    "see: spike drill report",
                )
            if told.outcome != _RUNNING:
                return told
            line.draw(drill_text.progress(told))
            time.sleep(_PAUSE_S)
    finally:
        line.clear()


@drill.command(
    epilog="""\b
Exit codes:
  0  the last drills succeeded and none is overdue
  1  one failed or is overdue
\b
Examples:
  spike drill report > recovery-proof.md
  spike drill report --format json
"""
)
@output.option
@click.pass_context
def report(context: click.Context, output_format: Format) -> None:
    """Write what is known of drills, for an auditor: as Markdown, or as data.

    It comes from the history of the keys, whose chain spike key history checks.
    """
    with Session.of_process().connect() as nexus:
        answer = nexus.get_drills()
    output.show(msgspec.to_builtins(answer), output_format, list(drill_text.markdown(answer)))
    overdue = answer.drill.overdue or answer.person.overdue
    context.exit(Exit.FAILED if overdue else Exit.SUCCESS)


@drill.command(
    epilog="""\b
Example:
  spike drill record restore-on-a-fresh-machine --note "Ada and Grace, 41 minutes"
"""
)
@click.argument("name")
@click.option(
    "--outcome",
    type=click.Choice(["succeeded", "failed", "timed-out"]),
    default="succeeded",
    show_default=True,
    help="How it ended.",
)
@click.option("--note", default="", help="One line: who, how long, what was learnt.")
@output.option
def record(name: str, outcome: str, note: str, output_format: Format) -> None:
    """Note that people practised a runbook."""
    with Session.of_process().connect() as nexus:
        nexus.record_drill(name, outcome, note)
    output.show(
        {"name": name, "outcome": outcome, "note": note},
        output_format,
        [f"Noted: {name} was practised, {outcome}."],
    )
