"""`spike status`: one line, one exit code, then the details."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import click
import msgspec

from spike.error import NotReadyError, SettingError, SpikeError
from spike.pilot import output, rotation_text
from spike.pilot.backup_text import backup_lines
from spike.pilot.drill_text import due_line
from spike.pilot.failure import Exit, text_of
from spike.pilot.output import Format
from spike.pilot.recoverability import UNKNOWN, Finding, judge, tally_of
from spike.pilot.session import Session
from spike.wire.own import Rehearsal, StatusAnswer, StatusKeeper, StatusSlot

_PAUSE_S: Final = 2.0


@click.command(
    epilog="""\b
Exit codes:
  0  recoverable by at least two independent ways
  4  recoverable by exactly one
  1  by none
  3  cannot tell: out of reach, not initialized, locked, or not the superuser role
\b
Examples:
  spike status --format json
  spike status --watch
"""
)
@click.option("--watch", is_flag=True, help="Go on looking, every two seconds, until Ctrl-C.")
@output.option
@click.pass_context
def status(context: click.Context, watch: bool, output_format: Format) -> None:
    """Say whether the root key would come back if memory were lost right now, and how."""
    session = Session.of_process()
    if watch:
        context.exit(_watch(session, output_format))
    context.exit(_look(session, output_format))


def _look(session: Session, output_format: Format) -> Exit:
    """Show the status once; return what it comes to."""
    try:
        with session.connect() as nexus:
            answer = nexus.get_status()
    except (SettingError, NotReadyError):
        raise
    except SpikeError as error:
        output.note(text_of(error))
        return Exit.UNREACHABLE
    finding = judge(answer)
    output.show(_data(answer, finding), output_format, [finding.line, *_details(answer)])
    session.keep_anchor(answer.anchor)
    return finding.exit


def _watch(session: Session, output_format: Format) -> Exit:
    """Show it again and again until somebody interrupts; return what the last look came to."""
    last = Exit.UNREACHABLE
    try:
        while True:
            if output_format is Format.HUMAN:
                click.clear()  # nothing where the output is no terminal
            try:
                last = _look(session, output_format)
            except NotReadyError as error:
                output.note(text_of(error))
                last = Exit.UNREACHABLE
            time.sleep(_PAUSE_S)
    except KeyboardInterrupt:
        return last


def _data(answer: StatusAnswer, finding: Finding) -> dict[str, object]:
    data = msgspec.to_builtins(answer)
    data.pop("anchor", None)
    return {"summary": finding.line, "ways": list(finding.ways), **data}


def _details(answer: StatusAnswer) -> Iterator[str]:
    if answer.version is not None:
        yield f"  Nexus: version {answer.version}, {answer.state}"
    if answer.store_id is not None:
        yield f"  Store: {answer.store_id}, lineage {answer.lineage}"
        yield f"  Keyring: epoch {answer.epoch}, revision {answer.revision}"
    if answer.root_generation is not None:
        yield f"  Root key: generation {answer.root_generation}"
    yield from rotation_text.in_short(answer.rotation)
    for reason in answer.stops or ():
        yield f"  WRITES ARE STOPPED: {reason}"
    for remark in answer.remarks or ():
        yield f"  Remark: {remark}"
    yield from keeper_lines(answer)
    yield from (_slot(slot) for slot in answer.slots or ())
    if answer.backup is not None:
        yield from backup_lines(answer.backup)
    for place in answer.places or ():
        yield f"  Backup place {place.place}: {place.state}{_detail(place.detail)}"
    if answer.storage is not None:
        health = "healthy" if answer.storage.healthy else "FAULTY"
        yield f"  Storage {answer.storage.engine}: {health}{_detail(answer.storage.detail)}"
        for kind, count in sorted(answer.storage.records.items()):
            yield f"    {kind}: {count}"
    if answer.state == "open":
        yield _verified(answer)
    yield from _proofs(answer)
    for measure in answer.memory or ():
        applied = "in force" if measure.applied else "NOT IN FORCE"
        yield f"  Memory, {measure.name}: {applied}{_detail(measure.detail)}"


def _proofs(answer: StatusAnswer) -> Iterator[str]:
    now, told = answer.operation, answer.rotation
    if now is not None and (told is None or told.id != now.id):
        yield f"  In progress: {now.kind} {now.id}, {now.phase}, since {now.started_at} by {now.actor}"
    if answer.shards is not None:
        held = answer.shards
        needed = f"any {held.threshold} of {len(held.shards)} bring the root key back"
        yield f"  Recovery shards: set {held.set_id}, made {held.made_at}, {needed}"
        for shard in held.shards:
            yield f"    shard {shard.index}: last checked in {shard.checked_at or 'never'}"
    if answer.rehearsal is not None:
        yield from (f"  {line}" for line in rehearsal_lines(answer.rehearsal))
    if answer.drill is not None:
        yield f"  {due_line('Drill by itself', answer.drill)}"
    if answer.person_drill is not None:
        yield f"  {due_line('Drill with a password', answer.person_drill)}"


def _slot(slot: StatusSlot) -> str:
    verified = slot.last_verified_at or "never"
    by = f" by {slot.last_verified_by}" if slot.last_verified_by else ""
    overdue = f", OVERDUE since {slot.due_at}" if slot.overdue else ""
    return f"  Slot {slot.name}: {slot.kind}, {slot.state}, last verified {verified}{by}{overdue}"


def _verified(answer: StatusAnswer) -> str:
    last = answer.verification
    if last is None:
        return "  Verified: not since Nexus was started (spike key verify)"
    when = f"{last.started_at} by {last.started_by}"
    counts = f"{last.scanned} scanned, {last.good} good, {last.bad} BAD, {last.vanished} vanished"
    return f"  Verified: {last.state}{_detail(last.detail)}, {when}, {counts}"


def rehearsal_lines(done: Rehearsal) -> Iterator[str]:
    """Return how a rehearsal ended, and what was wrong."""
    yield (
        f"Rehearsal {done.outcome} at {done.at} in {done.duration_ms} ms: {done.right} of {done.members} shares right, "
        f"threshold {done.threshold}, margin {done.margin}; {done.choices} choices gave the root key, which opened "
        f"{done.keys} keys and {done.records} kinds of records."
    )
    for problem in done.problems:
        yield f"  {problem}"


def keeper_lines(answer: StatusAnswer) -> Iterator[str]:
    """Return what is known of the Keepers, a line for all and one for each; none without Keepers."""
    if not answer.keepers:
        return
    if any(keeper.state != UNKNOWN for keeper in answer.keepers):
        yield f"  Keepers: {tally_of(answer)}"
    for keeper in answer.keepers:
        yield f"    {keeper_line(keeper)}"


def keeper_line(keeper: StatusKeeper) -> str:
    """Return how one Keeper is, and where; where alone while Nexus, still locked, judges nobody."""
    state = "" if keeper.state == UNKNOWN else f"{keeper.state}{_detail(keeper.detail)}, "
    who = keeper.identity or "no identity pinned"
    return f"Keeper {keeper.index}: {state}{keeper.url}, {who}"


def _detail(text: str) -> str:
    return f" ({text})" if text else ""
