"""Drills in words: one in lines, and the report for an auditor as Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from spike.pilot.recoverability import SUCCEEDED
from spike.wire.drill import Drill, DrillReportAnswer
from spike.wire.own import DrillDue

KIND: Final = {
    "drill": "by itself",
    "person-drill": "with a password",
    "practised": "practised",
}


def lines(drill: Drill) -> Iterator[str]:
    """Return what came of a drill."""
    if drill.kind == "practised":
        note = f" ({drill.note})" if drill.note else ""
        yield f"Practised {drill.name}: {drill.outcome} at {drill.at}, noted by {drill.actor}{note}."
        return
    slot = f", slot {drill.slot}" if drill.slot else ""
    kind = KIND.get(drill.kind, drill.kind)
    yield f"Drill {kind}{slot}: {drill.outcome} at {drill.at}, {seconds(drill.duration_ms)}."
    yield (
        f"  From {drill.source or 'no backup'}: root-key generation {drill.generation}, epoch {drill.epoch}; "
        f"{drill.keys} keys and {drill.slots} slots after {seconds(drill.key_ms)}."
    )
    yield (
        f"  {drill.opened} of {drill.scanned} records opened{' (all)' if drill.full else ''}, "
        f"{drill.policies} policies, {drill.secrets} secrets read as clients read them; {rate(drill)}."
    )
    if drill.wrong:
        yield f"  {drill.wrong} would not have come back:"
        yield from (f"    {problem}" for problem in drill.problems)


def progress(drill: Drill) -> str:
    """Return one line about a drill that runs."""
    return f"Drill: {drill.scanned} of about {drill.expected} records, {drill.opened} opened"


def due_line(what: str, due: DrillDue) -> str:
    """Return when a drill is due, and how the last one ended."""
    last = f"last {due.last_outcome} at {due.last_at}" if due.last_at else "never made"
    return f"{what}: {last}, {'OVERDUE since' if due.overdue else 'due'} {due.at}"


def seconds(milliseconds: int) -> str:
    """Return a duration in seconds."""
    return f"{milliseconds / 1000:.2f} s"


def rate(drill: Drill) -> str:
    """Return how many records a second the steps over them took."""
    spent_ms = sum(step.duration_ms for step in drill.steps if step.name in ("record", "serve"))
    if not spent_ms:
        return "rate not measured"
    return f"{round(drill.scanned * 1000 / spent_ms)} records a second"


def markdown(report: DrillReportAnswer) -> Iterator[str]:
    """Return the report for an auditor, line by line."""
    yield "# Proof of recovery"
    yield ""
    yield f"Made {report.at} by Nexus, from its history. Store `{report.store_id}`, lineage `{report.lineage}`, "
    yield f"epoch {report.epoch}, root-key generation {report.root_generation}."
    yield ""
    yield "| What | Last | Ended | Due | Overdue |"
    yield "|---|---|---|---|---|"
    yield _due_row("Drill by itself, every 7 days", report.drill)
    yield _due_row("Drill with a person's password, every 90 days", report.person)
    rehearsal = report.rehearsal
    if rehearsal is not None:
        yield f"| Rehearsal with the Keepers, every hour | {rehearsal.at} | {rehearsal.outcome} | hourly | |"
    yield ""
    yield (
        "A drill recovers the keys from a key backup alone into an instance that is thrown away, opens records of one "
        "moment of the store with them, and reads secrets as clients do. One by itself opens the root key from a slot "
        "made for that drill; one with a password opens it as a recovery would."
    )
    yield ""
    yield "## Drills"
    yield ""
    yield "| When | Kind | Ended | By | Took | Keys after | Records opened | Secrets read | Source |"
    yield "|---|---|---|---|---|---|---|---|---|"
    made = [drill for drill in report.drills if drill.kind != "practised"]
    yield from (_drill_row(drill) for drill in made)
    yield ""
    for drill in made:
        if drill.outcome != SUCCEEDED:
            yield f"* {drill.at}, {drill.outcome}: {'; '.join(drill.problems) or 'no reason noted'}"
    yield ""
    yield "## Practised by people"
    yield ""
    yield "| When | Runbook | Ended | Noted by | Note |"
    yield "|---|---|---|---|---|"
    for drill in report.drills:
        if drill.kind == "practised":
            yield _row(str(drill.at), drill.name, drill.outcome, drill.actor, drill.note)


def _due_row(what: str, due: DrillDue) -> str:
    last = "never" if due.last_at is None else str(due.last_at)
    return _row(what, last, due.last_outcome, str(due.at), "**yes**" if due.overdue else "no")


def _drill_row(drill: Drill) -> str:
    kind = KIND.get(drill.kind, drill.kind)
    opened = f"{drill.opened} of {drill.scanned}{' (all)' if drill.full else ''}"
    return _row(
        str(drill.at),
        f"{kind}, slot {drill.slot}" if drill.slot else kind,
        drill.outcome,
        drill.actor,
        seconds(drill.duration_ms),
        seconds(drill.key_ms),
        opened,
        str(drill.secrets),
        drill.source,
    )


def _row(*cells: str) -> str:
    """Return a row; nothing in a cell ends it or begins markup."""
    clean = (cell.replace("\\", "\\\\").replace("|", "\\|").replace("`", "'") for cell in cells)
    return f"| {' | '.join(clean)} |"
