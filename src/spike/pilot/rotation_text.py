"""What a person is told of a rotation. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from spike.pilot.progress import bar, duration, size
from spike.wire.own import StatusRotation
from spike.wire.rotation import KeyRotateAnswer, Rotation, RotationCheck, RotationRecord

BEFORE_FLIP: Final = frozenset({"prepared", "distributed", "backed-up"})
OVER: Final = frozenset({"superseded", "rolled-back"})
"""Another one took its place. Told by the history alone: Nexus tells of that other one."""
LOST: Final = OVER | {"dropped", "failed"}
WATCH: Final = "spike key watch"

_DOES: Final = {
    "prepared": "new keys are made; the old ones are in force",
    "distributed": "the Keepers hold new shares beside the old ones; the old keys are in force",
    "backed-up": "the slots and backup places hold the new root key; the old keys are in force",
    "re-encrypting": "the new keys are in force; records are sealed again",
    "verified": "no record is left under a key that was replaced",
    "finalizing": "what was replaced is being destroyed",
    "finalized": "what was replaced is destroyed",
    "dropped": "it never came into force; the keys of before serve on",
    "failed": "it did not come to its end",
    "superseded": "an emergency took its place",
    "rolled-back": "the keys of before serve again",
}


def title(told: Rotation) -> str:
    """Return what it is called: its kind, id and scope."""
    kind = f"emergency {told.kind}" if told.leaked else told.kind
    scope = "" if told.scope == "full" else f" ({told.scope})"
    return f"{kind.capitalize()} {told.id}{scope}"


def in_short(told: StatusRotation | None) -> Iterator[str]:
    """Give one line for the status of Nexus, if there is a rotation."""
    if told is None:
        return
    paused = " (PAUSED)" if told.paused else ""
    is_walking = told.phase == "re-encrypting" and told.expected
    count = f", {told.scanned} of {told.expected} records" if is_walking else ""
    fault = f", IT DOES NOT GO ON: {told.fault}" if told.fault else ""
    place = f", in the place of rotation {told.replaces}" if told.replaces else ""
    yield (
        f"  {told.kind.capitalize()} {told.id}: {told.phase}{paused}{count}{place}{fault} "
        f"(since {told.started_at} by {told.started_by}; spike key status)"
    )


def progress(told: Rotation) -> str:
    """Return one line about a rotation that goes on."""
    said = f"{told.phase}{' (PAUSED)' if told.paused else ''}"
    if told.fault:
        said += f", HELD UP: {told.fault}"
    count = _count(told)
    return f"{said} {count}" if count else said


def _count(told: Rotation) -> str:
    if told.phase == "verified":
        return f"until {told.window_ends_at}" if told.window_ends_at else ""
    seen, walk = told.verification, told.progress
    if told.phase == "re-encrypting" and seen is not None and seen.expected:
        return f"{bar(seen.scanned, seen.expected)} {seen.scanned} of {seen.expected} verified"
    if told.phase != "re-encrypting" or walk is None or not walk.expected:
        return ""
    failed = f", {walk.failed} FAILED" if walk.failed else ""
    left = "" if walk.left_s is None else f", {duration(walk.left_s)} left"
    return (
        f"{bar(walk.scanned, walk.expected)} {walk.scanned} of {walk.expected}{failed}, "
        f"{walk.rate_per_s}/s{left}"
    )


def counts(told: Rotation) -> Iterator[str]:
    """Give what became of the records, in numbers that add up, and those that have a name."""
    walk = told.progress
    if walk is None:
        return
    yield (
        f"  Records: {walk.scanned} scanned ({size(walk.size_bytes)}): {walk.re_encrypted} re-encrypted, "
        f"{walk.already_current} already current, {walk.skipped} skipped, {walk.vanished} vanished, "
        f"{walk.failed} failed"
    )
    yield from _names(walk.records, walk.failed + walk.skipped)


def _names(records: Sequence[RotationRecord], total: int) -> Iterator[str]:
    for each in records:
        version = f" version {each.version}" if each.version else ""
        shown = each.outcome.upper() if each.outcome == "failed" else each.outcome
        yield f"    {shown}: {each.kind} {each.key}{version}: {each.reason}"
    named = sum(each.outcome != "vanished" for each in records)
    if total > named:
        yield f"    and {total - named} more, counted and not named"


def state(told: Rotation) -> Iterator[str]:
    """Give everything about a rotation, on one screen."""
    yield f"{title(told)}: {told.phase}{' (PAUSED)' if told.paused else ''}"
    yield f"  Since {told.started_at}, by {told.started_by} ({told.reason or 'no reason given'})"
    if told.attempt > 1:
        yield f"  Attempt: {told.attempt}; those before were interrupted before they came into force"
    if told.leaked:
        yield f"  Leaked: {', '.join(told.leaked)}"
    if told.replaces:
        how = "superseded" if told.leaked else "rolled back"
        now = f"was {how} and is over" if told.flipped_at else "is not over before this one's flip"
        yield f"  In the place of: rotation {told.replaces}, which {now}"
    yield f"  Now: {_DOES.get(told.phase, told.phase)}"
    if told.fault:
        yield f"  {'Why' if told.phase in LOST else 'IT DOES NOT GO ON'}: {told.fault}"
    yield f"  Keys: {keys(told)}"
    if _count(told) and told.phase != "verified":
        yield f"  {_count(told)}"
    yield from counts(told)
    if told.max_rate:
        yield f"  Pace: at most {told.max_rate} records a second"
    if told.window_ends_at and told.phase in ("re-encrypting", "verified"):
        yield f"  Rollback: possible until {told.window_ends_at}"
    yield f"  The root key would come back by: {'; '.join(told.ways) or 'NOTHING'}"
    yield f"  Next: {next_step(told)}"


def keys(told: Rotation) -> str:
    """Return which generation follows which."""
    pairs = (("root", told.root), ("record", told.record), ("cipher", told.cipher))
    changed = [
        f"{name} {pair.before} → {pair.after}" for name, pair in pairs if pair.before != pair.after
    ]
    return ", ".join(changed) or "none is replaced"


def next_step(told: Rotation) -> str:
    """Return what an administrator does, or can do, now."""
    if told.phase in OVER:
        return f"see what took its place: spike key status; its report: spike key report {told.id}"
    if told.phase in LOST:
        return "see spike key history; when what is told above is mended: spike key rotate"
    if told.phase == "finalized":
        return "nothing; see spike key history"
    if told.paused and told.fault:
        return "mend what is told above; then let it go on: spike key resume"
    if told.paused:
        return "let it go on: spike key resume"
    if told.fault:
        return "mend what is told above; it goes on by itself then"
    if told.phase in BEFORE_FLIP:
        return f"nothing; {WATCH} shows it, spike key abort ends it"
    if told.phase == "re-encrypting":
        return f"nothing; {WATCH} shows it, spike key pause lets it rest"
    if told.phase == "verified":
        ends = (
            f"it is finalized by itself at {told.window_ends_at}; " if told.window_ends_at else ""
        )
        back = "" if told.leaked or told.kind == "rollback" else "; back: spike key rollback"
        return f"{ends}now: spike key finalize{back}"
    return f"nothing; {WATCH} shows it"


def outcome(told: Rotation) -> Iterator[str]:
    """Give how a rotation that was followed is, at its end or where it was waited for."""
    if told.phase in OVER:
        yield f"{title(told)} was {told.fault or told.phase}."
    elif told.phase in LOST:
        yield f"{title(told)} was {told.phase}: {told.fault or _DOES[told.phase]}."
    elif told.fault:
        yield f"{title(told)} does not go on: {told.fault}."
    else:
        yield f"{title(told)} is {told.phase}: {_DOES[told.phase]}."
    yield f"  Keys: {keys(told)}"
    yield from counts(told)
    yield f"  Next: {next_step(told)}"


def has_failed(told: Rotation) -> bool:
    """Tell whether a script must not take this for a success.

    A record that had failed holds up the verification. Once that is good, it has been mended.
    """
    failed = told.progress is not None and told.progress.failed > 0
    return told.phase in LOST or bool(told.fault) or (failed and told.phase == "re-encrypting")


def checks(found: Iterable[RotationCheck]) -> Iterator[str]:
    """Give each check: its result, its name, why, and what to do."""
    for check in found:
        yield f"{check.result.upper():4} {check.name}: {check.detail}"
        if check.next_step and check.result != "ok":
            yield f"     Next: {check.next_step}"


def failed_checks(found: Iterable[RotationCheck]) -> str:
    """Return which checks failed and what to do, on one line; "" where none did."""
    failed = [check for check in found if check.result == "fail"]
    if not failed:
        return ""
    names = ", ".join(check.name for check in failed)
    steps = "; ".join(dict.fromkeys(check.next_step for check in failed if check.next_step))
    said = f"it could not begin, nothing was changed: {names}"
    return f"{said}. Next: {steps}" if steps else said


def emergency(answer: KeyRotateAnswer) -> Iterator[str]:
    """Give what an emergency will do, before somebody confirms it."""
    yield "EMERGENCY: every key that the leaked one wrapped is taken for known and replaced at once."
    for sentence in answer.exposure:
        yield f"  {sentence[0].upper()}{sentence[1:]}"
    yield from checks(answer.checks)


def rollback(told: Rotation) -> Iterator[str]:
    """Give what a rollback meets, before somebody confirms it."""
    yield f"{title(told)}, begun {told.started_at} by {told.started_by}, is {told.phase}."
    yield f"  A rollback goes back: {keys_back(told)}"
    for sentence in told.impact:
        yield f"  {sentence[0].upper()}{sentence[1:]}"


def keys_back(told: Rotation) -> str:
    """Return which generation is gone back to."""
    pairs = (("root", told.root), ("record", told.record), ("cipher", told.cipher))
    back = [
        f"{name} {pair.after} → {pair.before}" for name, pair in pairs if pair.before != pair.after
    ]
    return ", ".join(back) or "no key was replaced"


def finalize(told: Rotation) -> Iterator[str]:
    """Give what cannot be undone after a finalize, before somebody confirms it."""
    yield f"{title(told)}, begun {told.started_at} by {told.started_by}, is {told.phase}."
    gone = [
        f"{name} key generation {pair.before}"
        for name, pair in (("root", told.root), ("record", told.record))
        if pair.before != pair.after
    ]
    yield f"  Destroyed for good: {' and '.join(gone) or 'nothing'}"
    if told.window_ends_at:
        yield f"  No rollback any more; without this it is possible until {told.window_ends_at}"
    yield "  Key backups and shares of before open nothing of the present store any more."
    yield "  What SPIKE cannot erase: copies of the store made before, with the backups that fit them."
