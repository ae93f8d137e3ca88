"""The report of a rotation as Markdown: for a person who signs it. Pure.

Whatever came from outside (reasons, notes, names) is shown as the characters it has and cannot form Markdown or HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from spike.lifecycle.report import NEVER_ERASED, CheckResult, Count, Report, Step

# What forms something inside of a line; each text stands behind words or in a cell, never at the start of a line.
_SPECIAL: Final = re.compile(r"([\\`*_\[\]<>~&|!])")
_NOT_TOLD: Final = "*not told by the history*"


class Source(NamedTuple):
    """What the report was made from: which store, when, for whom, and whether its history holds."""

    store_id: str
    lineage: str
    made_at: str
    made_for: str
    events: int
    breaks: tuple[str, ...]
    head: str


def markdown(report: Report, source: Source) -> str:
    """Return the report as one Markdown document that ends with a line feed."""
    return "\n".join(_lines(report, source)) + "\n"


def plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _lines(report: Report, source: Source) -> Iterator[str]:
    yield f"# Report of {plain(report.kind or 'rotation')} {report.id}"
    yield from _table(("", ""), _head(report, source))
    yield from _heading("Keys")
    keys = [
        (each.purpose, each.before or "not told", _after(each.before, each.after))
        for each in report.keys
    ]
    yield from _table(("Key", "Generation before", "Generation after"), keys)
    yield from _heading("Steps")
    yield from _table(("Event", "When", "What", "Who", "Detail"), map(_step, report.steps))
    yield from _heading("Checks")
    yield from _checks(report.checks)
    yield from _heading("Records")
    yield from _count("Sealed again", report.records)
    yield from _count("Verified: opened without the old keys", report.verification)
    yield from _heading("Durations")
    yield from _table(("Part", "Seconds"), report.durations)
    yield from _heading("Destroyed")
    if report.destroyed:
        yield f"Destroyed keys: {plain(report.destroyed)}."
    else:
        yield "No key is told to be destroyed."
    if report.purged_bytes:
        yield ""
        yield f"Purged from the files of the store: {plain(report.purged_bytes)} bytes."
    yield from _heading("What SPIKE cannot erase")
    yield from (f"* {each}" for each in NEVER_ERASED)
    yield ""
    yield from _copies(report.copies)
    yield from _heading("Remarks")
    if report.notes:
        yield from _table(("When", "Who", "Remark"), map(_note, report.notes))
    else:
        yield "None."
    yield from _heading("Missing")
    if report.missing:
        yield "The history does not tell:"
        yield ""
        yield from (f"* {each}" for each in report.missing)
    else:
        yield "Nothing: each step that a later one presupposes is told."
    yield from _heading("History")
    yield from _history(source)
    yield from _heading("Signatures")
    rows = [(role, "", "", "") for role in ("Carried out by", "Checked by", "Approved by")]
    yield from _table(("Role", "Name", "Date", "Signature"), rows)


def _head(report: Report, source: Source) -> Iterator[tuple[str, str]]:
    yield "Store", source.store_id
    yield "Lineage", source.lineage
    yield "Scope", plain(report.scope) or _NOT_TOLD
    yield "Begun by", plain(report.actor) or _NOT_TOLD
    yield "Reason", plain(report.reason) or "none given"
    yield "Emergency", f"yes; leaked: {plain(report.leaked)}" if report.leaked else "no"
    yield "Began", report.started_at or _NOT_TOLD
    yield "Ended", report.ended_at or "not yet"
    yield "Outcome", plain(report.outcome)
    yield "Report made", f"{source.made_at} for {plain(source.made_for)}"


def _after(before: str, after: str) -> str:
    if not after:
        return "not told"
    return f"{after} (stays)" if before == after else after


def _step(step: Step) -> tuple[str, ...]:
    detail = "; ".join(f"{name}: {value}" for name, value in step.detail)
    return str(step.sequence), step.at, plain(step.what), plain(step.actor), plain(detail)


def _note(step: Step) -> tuple[str, ...]:
    return step.at, plain(step.actor), plain(dict(step.detail).get("text", ""))


def _checks(checks: Iterable[CheckResult]) -> Iterator[str]:
    rows = [
        (plain(each.when), plain(each.name), plain(each.result) or "not told", plain(each.detail))
        for each in checks
    ]
    if rows:
        yield from _table(("When", "Check", "Result", "What was seen"), rows)
    else:
        yield "None are told."


def _count(title: str, count: Count | None) -> Iterator[str]:
    if count is None or not count.numbers:
        yield f"{title}: not told."
        yield ""
        return
    yield from _table(
        (title, "Number"), ((name.replace("_", " "), value) for name, value in count.numbers)
    )
    yield "The parts make the whole." if count.adds_up else "**The parts do not make the whole.**"
    yield ""


def _copies(copies: tuple[Step, ...]) -> Iterator[str]:
    if not copies:
        yield "SPIKE knows of no backup that was exported before the end of this rotation."
        return
    yield "Backups that were exported before the end of this rotation, and may still be somewhere:"
    yield ""
    rows = ((each.at, plain(each.what), *_whereabouts(each), plain(each.actor)) for each in copies)
    yield from _table(("When", "What", "Place", "Root key", "By"), rows)


def _whereabouts(copy: Step) -> tuple[str, str]:
    detail = dict(copy.detail)
    return plain(detail.get("place", "")) or "not told", plain(detail.get("root", "")) or "not told"


def _history(source: Source) -> Iterator[str]:
    if source.breaks:
        yield "**The chain of the history is BROKEN: what this report says is not the whole.**"
        yield ""
        yield from (f"* {plain(each)}" for each in source.breaks)
    else:
        yield f"All {source.events} events are there and chained; none was changed or taken out."
    yield ""
    yield f"SHA-256 of the last entry: {source.head or 'none yet'}"


def _heading(title: str) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""
