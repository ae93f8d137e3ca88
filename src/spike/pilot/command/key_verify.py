"""`spike key verify`: whether what is stored opens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import click
import msgspec

from spike.error import NotFoundError
from spike.pilot import output, verification_text
from spike.pilot.failure import Exit
from spike.pilot.output import Format
from spike.pilot.progress import Line
from spike.pilot.session import Session
from spike.wire.key import Verification, VerificationFinding

if TYPE_CHECKING:
    from spike.client.nexus import NexusClient

_PAUSE_S: Final = 0.5
_RUNNING: Final = "running"
_GOOD: Final = "good"


@click.command(
    epilog="""\b
Exit codes:
  0  every record is good; with --no-wait, --stop: done
  1  a record is bad, or it did not end; also after Ctrl-C, which leaves it running
\b
Examples:
  spike key verify
  spike key verify --no-wait
  spike key verify --watch --format json
"""
)
@click.option("--no-wait", is_flag=True, help="Begin, and do not wait for the end.")
@click.option("--watch", is_flag=True, help="Begin nothing: show the one that runs, or the last.")
@click.option("--stop", is_flag=True, help="End the one that runs.")
@click.option(
    "-f",
    "--format",
    "output_format",
    type=click.Choice([Format.HUMAN.value, Format.JSON.value]),
    default=Format.HUMAN.value,
    show_default=True,
    help="Form of the output; json is one object a line.",
)
@click.pass_context
def verify(
    context: click.Context, no_wait: bool, watch: bool, stop: bool, output_format: str
) -> None:
    """Open every record that is stored, and name each that is not as it must be.

    It runs inside Nexus, one at a time, while requests are served. It changes nothing.
    """
    if no_wait + watch + stop > 1:
        raise click.UsageError("--no-wait, --watch and --stop are different things: give one")
    form = Format(output_format)
    with Session.of_process().connect_for_dialogue() as nexus:
        if stop:
            context.exit(_stop(nexus, form))
        begun = _watched(nexus) if watch else _begun(nexus)
        if no_wait:
            _show_begin(begun, form)
            return
        context.exit(_follow(nexus, begun.id, form))


def _watched(nexus: NexusClient) -> Verification:
    found = nexus.get_verification()
    if found is None:
        raise NotFoundError(
            "no verification has run since Nexus was started", "begin one: spike key verify"
        )
    return found


def _begun(nexus: NexusClient) -> Verification:
    answer = nexus.start_verification()
    if not answer.started:
        output.note(f"Verification {answer.verification.id} runs already; this is that one.")
    return answer.verification


def _follow(nexus: NexusClient, run_id: str, form: Format) -> Exit:
    """Show a verification until it has ended; return what it comes to."""
    line = Line()
    findings: list[VerificationFinding] = []
    try:
        for told in _looks(nexus, run_id):
            if told.first:
                findings.clear()
            findings += told.verification.findings
            last = told.verification
            if form is Format.JSON:
                output.show_line(msgspec.to_builtins(last))
            elif last.state == _RUNNING:
                line.draw(verification_text.progress(last))
    except KeyboardInterrupt:
        line.clear()
        output.note(f"Verification {run_id} goes on in Nexus. Look again: spike key verify --watch")
        return Exit.FAILED
    finally:
        line.clear()
    if form is Format.HUMAN:
        output.show(None, form, verification_text.end(last, findings))
    return Exit.SUCCESS if last.state == _GOOD else Exit.FAILED


class _Look(NamedTuple):
    """How a verification is, with the findings not given before; `first` of its round."""

    verification: Verification
    first: bool


def _looks(nexus: NexusClient, run_id: str) -> Iterator[_Look]:
    """Give how the verification is, again and again, until all of its end was given.

    Raises:
        NotFoundError: it is not the newest one any more.
    """
    seen, number = 0, 0
    while True:
        told = nexus.get_verification(seen)
        if told is None or told.id != run_id:
            raise NotFoundError(
                f"verification {run_id} is not there any more: Nexus was started again, or another one was begun",
                "begin one: spike key verify",
            )
        if told.round != number and seen:
            # It looks at everything anew, with other keys: what was found before does not count.
            seen, number = 0, 0
            continue
        seen += len(told.findings)
        yield _Look(told, told.round != number)
        number = told.round
        if told.state != _RUNNING and (seen >= told.findings_total or not told.findings):
            return
        if told.state == _RUNNING:
            time.sleep(_PAUSE_S)


def _show_begin(begun: Verification, form: Format) -> None:
    if form is Format.JSON:
        output.show_line(msgspec.to_builtins(begun))
    else:
        human = [f"Verification {begun.id} runs. Look at it: spike key verify --watch"]
        output.show(None, form, human)


def _stop(nexus: NexusClient, form: Format) -> Exit:
    _watched(nexus)
    ended = nexus.stop_verification().verification
    if form is Format.JSON:
        output.show_line(msgspec.to_builtins(ended))
    else:
        output.show(None, form, [verification_text.outcome(ended)])
    return Exit.SUCCESS
