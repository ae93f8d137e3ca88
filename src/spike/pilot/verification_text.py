"""What a person is told of a verification. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spike.pilot.progress import bar, duration, size
from spike.wire.key import Verification, VerificationFinding


def progress(told: Verification) -> str:
    """Return one line about a verification that runs."""
    bad = f", {told.bad} BAD" if told.bad else ""
    left = "" if told.left_s is None else f", {duration(told.left_s)} left"
    again = "" if told.round == 1 else f" (round {told.round}: keys changed)"
    return (
        f"{bar(told.scanned, told.expected)} {told.scanned} of {told.expected} records{bad}, "
        f"{told.rate_per_s} a second{left}{again}"
    )


def outcome(told: Verification) -> str:
    """Return in one sentence how a verification is or how it ended, with counts that add up."""
    counts = (
        f"{told.scanned} records ({size(told.size_bytes)}) scanned, {told.good} good, "
        f"{told.bad} bad, {told.vanished} vanished meanwhile"
    )
    why = f" ({told.detail})" if told.detail else ""
    match told.state:
        case "good":
            return f"GOOD: everything stored opens and fits together: {counts}."
        case "bad":
            return f"BAD: not everything stored is as it must be: {counts}."
        case "running":
            return f"It runs: {counts}."
        case state:
            return f"{state.upper()}{why}: nothing follows about what was not scanned: {counts}."


def end(told: Verification, findings: Sequence[VerificationFinding]) -> Iterator[str]:
    """Give the lines about a verification that has ended: outcome, bad records by name, census."""
    yield outcome(told)
    for reason, count in told.bad_by_reason.items():
        yield f"  {reason}: {count}"
    for each in findings:
        version = f" version {each.version}" if each.version else ""
        detail = f" ({each.detail})" if each.detail else ""
        yield f"  {each.kind} {each.key}{version}: {each.reason}{detail}"
    if told.unnamed:
        yield f"  and {told.unnamed} more, counted and not named"
    yield "Census, from the records themselves:"
    for line in told.census:
        under = f"generation {line.generation}" if line.generation else "no key of this keyring"
        yield f"  {line.kind} under {under}: {line.records}"
