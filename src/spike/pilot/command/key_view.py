"""`spike key list|history`: which keys there are, and what happened to them."""

from __future__ import annotations

from collections.abc import Iterator

import click
import msgspec

from spike.pilot import output
from spike.pilot.failure import Exit
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.wire.key import HISTORY_LIMIT, KeyEvent, KeyGeneration, KeyHistoryAnswer


@click.command("list", epilog="\b\nExample:\n  spike key list --format json")
@output.option
def list_(output_format: Format) -> None:
    """List every generation of every key: its state, since when, by whom and why."""
    with Session.of_process().connect() as nexus:
        keys = nexus.list_keys()
    output.show(msgspec.to_builtins(keys), output_format, [_key_line(each) for each in keys])


def _key_line(each: KeyGeneration) -> str:
    last = each.transitions[-1]
    slot = each.slot or each.slot_id
    name = f"{each.purpose} of slot {slot}" if slot else each.purpose
    under = "" if each.wrapped_under is None else f", wrapped under root {each.wrapped_under}"
    age = "" if each.age_s is None else f", {each.age_s // 86_400} days old"
    sealed = "" if each.sealed is None else f", has sealed {each.sealed} records"
    return (
        f"{name} {each.generation}: {each.state} since {last.at}{age}{sealed}{under}"
        f" ({last.reason or 'no reason given'}; {last.actor})"
    )


@click.command(
    epilog="""\b
Exit codes:
  0  the chain of events holds
  1  it is broken: an event is missing, or is not the one that was written
\b
Example:
  spike key history --limit 10
"""
)
@click.option(
    "--limit",
    type=click.IntRange(1, HISTORY_LIMIT),
    default=100,
    show_default=True,
    help="Show the newest so many; the whole chain is checked all the same.",
)
@output.option
@click.pass_context
def history(context: click.Context, limit: int, output_format: Format) -> None:
    """Show what happened to the keys, newest last, and check that nothing is missing."""
    with Session.of_process().connect() as nexus:
        answer = nexus.get_key_history(limit)
    output.show(msgspec.to_builtins(answer), output_format, _history_lines(answer))
    context.exit(Exit.FAILED if answer.breaks else Exit.SUCCESS)


def _history_lines(answer: KeyHistoryAnswer) -> Iterator[str]:
    left_out = answer.total - len(answer.events)
    if left_out > 0:
        yield f"({left_out} older ones are not shown)"
    for event in answer.events:
        yield _event_line(event)
    for each in answer.breaks:
        yield f"BROKEN at {each.sequence}: {each.detail}"


def _event_line(event: KeyEvent) -> str:
    told = "".join(f", {name} {value}" for name, value in event.detail.items())
    waiting = " (not in the history yet)" if event.waiting else ""
    return f"{event.sequence} {event.at} {event.kind} by {event.actor}{told}{waiting}"
