"""The report of a rotation, made from the events of its history: what an auditor asks for. Pure.

Nothing in it is remembered elsewhere: it says what the hash-chained history says, and names what the history lacks.
What is not known is told as not known; nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from spike.lifecycle.due import moment_of
from spike.lifecycle.export import Copy
from spike.lifecycle.keyring import Event

PREFIX: Final = "rotation-"
STARTED: Final = "rotation-started"
NOTE: Final = "rotation-note"
ENDS: Final = (
    "rotation-finalized",
    "rotation-dropped",
    "rotation-superseded",
    "rotation-rolled-back",
)
"""Events that end a rotation. A drop ends one try, where the same rotation began once more behind it."""
COPIES: Final = frozenset(copy.value for copy in Copy)
"""Events that tell of a copy that left SPIKE."""
_KEYS: Final = ("root", "record", "cipher")
_COUNTS: Final = ("re_encrypted", "already_current", "skipped", "vanished", "failed")
_FAR: Final = {
    STARTED: "begun, its keys are not in force",
    "rotation-flipped": "its keys are in force, records are being sealed again",
    "rotation-reopened": "its keys are in force, records are being sealed again",
    "rotation-verified": "verified, in its rollback window",
    "rotation-finalizing": "being finalized",
}
_ID: Final = "id"
_CHECK_WORDS: Final = ("ok", "warn", "fail")

NEVER_ERASED: Final = (
    "key backups and system backups that were exported: each opens with the keys of its time",
    "snapshots and backups of disks, machines and databases that were made outside of SPIKE",
    "older versions of objects, where an object store keeps versions",
    "logs and replicas of a database: the files of SQLite alone are purged by SPIKE",
    "what somebody read while the keys were in force",
)
"""What no rotation erases, whatever it did."""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key and its generations before and after; the same where it stayed, empty where that is not told."""

    purpose: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A named check before or after: its result (ok, warn, fail) and what it saw."""

    when: str
    name: str
    result: str
    detail: str


@dataclass(frozen=True, slots=True)
class Step:
    """One event: when, what (without the prefix that all have), by whom, with what detail."""

    sequence: int
    at: str
    what: str
    actor: str
    detail: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Count:
    """The records that were gone through; `adds_up`: the parts make the whole."""

    numbers: tuple[tuple[str, str], ...]
    adds_up: bool


@dataclass(frozen=True, slots=True)
class Report:
    """All that the history says of one rotation. `missing` names what it should say and does not."""

    id: str
    kind: str
    scope: str
    actor: str
    reason: str
    started_at: str
    ended_at: str
    outcome: str
    leaked: str
    keys: tuple[KeyChange, ...]
    checks: tuple[CheckResult, ...]
    steps: tuple[Step, ...]
    records: Count | None
    verification: Count | None
    durations: tuple[tuple[str, str], ...]
    destroyed: str
    purged_bytes: str
    notes: tuple[Step, ...]
    copies: tuple[Step, ...]
    missing: tuple[str, ...]


def is_of(event: Event, rotation_id: str) -> bool:
    """Return whether an event is of a rotation."""
    return event.kind.startswith(PREFIX) and event.detail.get(_ID) == rotation_id


def newest_id(events: Iterable[Event]) -> str | None:
    """Return the id of the rotation that began last."""
    found = None
    for event in events:
        if event.kind == STARTED:
            found = event.detail.get(_ID, found)
    return found


def report(rotation_id: str, events: Sequence[Event]) -> Report | None:
    """Make the report of a rotation from the whole history, in order; None when the history knows no such id."""
    of_it = [event for event in events if is_of(event, rotation_id)]
    if not of_it:
        return None
    back = _rollback(rotation_id, events)
    first = {event.kind: event for event in reversed(of_it)}
    started = first.get(STARTED)
    told = {} if started is None else started.detail
    # A rotation that was interrupted before it came into force began again, with other numbers.
    last = {event.kind: event for event in _last_try(of_it)}
    numbers = last[STARTED].detail if STARTED in last else {}
    keys = tuple(
        KeyChange(key, numbers.get(f"{key}_from", ""), numbers.get(f"{key}_to", ""))
        for key in _KEYS
    )
    end = _end(last, back)
    finalized = last.get("rotation-finalized")
    done = {} if finalized is None else finalized.detail
    destroyed = done.get("destroyed", "") or _destroyed_later(keys, last, events)
    return Report(
        id=rotation_id,
        kind=told.get("kind", ""),
        scope=told.get("scope", ""),
        actor="" if started is None else started.actor,
        reason=told.get("reason", ""),
        started_at="" if started is None else started.at,
        ended_at="" if end is None else end.at,
        outcome=_outcome(last, back, destroyed),
        leaked=told.get("leaked", ""),
        keys=keys,
        checks=tuple(_checks(of_it)),
        steps=tuple(
            _step(event) for event in sorted((*of_it, *back), key=_sequence) if event.kind != NOTE
        ),
        records=_records([e for e in of_it if e.kind == "rotation-re-encrypted"]),
        verification=_verification(last.get("rotation-verified")),
        durations=tuple(_durations(first, last, end)),
        destroyed=destroyed,
        purged_bytes=done.get("purged_bytes", ""),
        notes=tuple(_step(event) for event in of_it if event.kind == NOTE),
        copies=tuple(_copies(events, end)),
        missing=tuple(_missing(of_it, told)),
    )


def _last_try(of_it: Sequence[Event]) -> Sequence[Event]:
    """Return the events of a rotation since it began the last time; all of them where no beginning is told."""
    begins = [number for number, event in enumerate(of_it) if event.kind == STARTED]
    return of_it[begins[-1] :] if begins else of_it


def _rollback(rotation_id: str, events: Sequence[Event]) -> list[Event]:
    """Return the events of the rollback that took a rotation back, if one came into force."""
    takers = {e.detail.get(_ID, "") for e in events if e.detail.get("of") == rotation_id}
    for taker in takers - {""}:
        of_it = [event for event in events if is_of(event, taker)]
        if any(event.kind == "rotation-flipped" for event in of_it):
            return of_it
    return []


def _destroyed_later(
    keys: Sequence[KeyChange], last: Mapping[str, Event], events: Sequence[Event]
) -> str:
    """Return which old keys of a superseded rotation were destroyed, at the end of what took its place."""
    over, seen = last.get("rotation-superseded"), set[str]()
    while over is not None and (taker := over.detail.get("by", "")) not in seen:
        seen.add(taker)
        of_taker = {event.kind: event for event in events if is_of(event, taker)}
        if done := of_taker.get("rotation-finalized"):
            gone = done.detail.get("destroyed", "").split(", ")
            old = [f"{key.purpose} {key.before}" for key in keys if key.before != key.after]
            return ", ".join(name for name in old if name in gone)
        over = of_taker.get("rotation-superseded")
    return ""


def _sequence(event: Event) -> int:
    return event.sequence


def _step(event: Event) -> Step:
    detail = tuple((name, value) for name, value in event.detail.items() if name != _ID)
    return Step(event.sequence, event.at, event.kind.removeprefix(PREFIX), event.actor, detail)


def _end(last: Mapping[str, Event], back: Sequence[Event]) -> Event | None:
    end = next((last[kind] for kind in ENDS if kind in last), None)
    # A history of before does not tell the end of what was rolled back, but the rollback.
    return end or next((event for event in back if event.kind == "rotation-flipped"), None)


def _outcome(last: Mapping[str, Event], back: Sequence[Event], destroyed: str) -> str:
    """Return in words how the rotation ended, or how far it is."""
    if "rotation-finalized" in last:
        return "finalized: what was replaced is destroyed"
    if "rotation-dropped" in last:
        why = last["rotation-dropped"].detail.get("why", "")
        return f"dropped before its keys came into force{f': {why}' if why else ''}"
    over = last.get("rotation-superseded") or last.get("rotation-rolled-back")
    if over is not None:
        old = over.detail.get("old_keys", "")
        since = f"; destroyed since: {destroyed}" if destroyed else ""
        return f"{over.detail.get('why', 'over')}; its old keys then: {old or 'not told'}{since}"
    if back:
        return f"rolled back by {back[0].detail[_ID]}"
    far = (event for kind, event in last.items() if kind in _FAR)
    newest = max(far, key=_sequence, default=None)
    return _FAR[STARTED if newest is None else newest.kind]


def _checks(of_it: Sequence[Event]) -> Iterable[CheckResult]:
    for event in of_it:
        if event.kind != "rotation-checked":
            continue
        for name, said in event.detail.items():
            result, colon, detail = said.partition(": ")
            if colon and result in _CHECK_WORDS:
                yield CheckResult(event.detail.get("when", ""), name, result, detail)
            elif name not in (_ID, "when"):
                yield CheckResult(event.detail.get("when", ""), name, "", said)


def _records(passes: Sequence[Event]) -> Count | None:
    """Return the sums of all passes: there is one for each key that was replaced, and again where one was resumed."""
    names = ("scanned", *_COUNTS, "size_bytes")
    return _count(passes, names, _COUNTS) if passes else None


def _verification(event: Event | None) -> Count | None:
    names = ("scanned", "good", "bad", "vanished")
    return None if event is None else _count([event], names, names[1:])


def _count(events: Sequence[Event], names: Sequence[str], parts: Sequence[str]) -> Count:
    sums: dict[str, int] = {}
    for event in events:
        for name in names:
            value = event.detail.get(name, "")
            if value.isascii() and value.isdecimal():
                sums[name] = sums.get(name, 0) + int(value)
    whole = sum(sums.get(part, 0) for part in parts)
    told = tuple((name, str(sums[name])) for name in names if name in sums)
    return Count(told, "scanned" in sums and sums["scanned"] == whole)


def _durations(
    first: Mapping[str, Event], last: Mapping[str, Event], end: Event | None
) -> Iterable[tuple[str, str]]:
    """Give how many seconds each part took, as far as both of its ends are told."""
    started, flipped = first.get(STARTED), last.get("rotation-flipped")
    verified = last.get("rotation-verified")
    yield from _between("from the start until the new keys were in force", started, flipped)
    for name, kind in (
        ("re-encryption", "rotation-re-encrypted"),
        ("verification", "rotation-verified"),
    ):
        event = last.get(kind)
        if event is not None and "seconds" in event.detail:
            yield f"{name}, as measured", event.detail["seconds"]
    yield from _between("from the new keys in force until verified", flipped, verified)
    yield from _between("from verified until the end", verified, end)
    yield from _between("the whole", started, end)


def _between(name: str, since: Event | None, until: Event | None) -> Iterable[tuple[str, str]]:
    if since is not None and until is not None:
        took = moment_of(until.at) - moment_of(since.at)
        yield name, str(int(took.total_seconds()))


def _copies(events: Sequence[Event], end: Event | None) -> Iterable[Step]:
    """Give the copies that left SPIKE before the rotation had ended, as far as it knows."""
    for event in events:
        if end is not None and event.sequence > end.sequence:
            return
        if event.kind in COPIES:
            yield _step(event)


def _missing(of_it: Sequence[Event], told: Mapping[str, str]) -> Iterable[str]:
    """Name each step that a later one presupposes and that the history does not tell."""
    kinds = [event.kind for event in of_it]
    whens = {e.detail.get("when") for e in of_it if e.kind == "rotation-checked"}
    ended = "rotation-finalized" in kinds
    with_records = told.get("scope") != "root-only"
    with_root = told.get("scope") != "data-only"
    flipped = "rotation-flipped" in kinds
    verified = "rotation-verified" in kinds
    wanted = [
        (STARTED, True, "its start: who, why, which keys"),
        ("before", True, "the checks before it"),
        ("rotation-backed-up", (flipped or verified or ended) and with_root, "its backup"),
        ("rotation-flipped", verified or ended, "the moment in which its keys came into force"),
        ("rotation-re-encrypted", (verified or ended) and with_records, "the re-encryption"),
        ("rotation-verified", ended and with_records, "the verification"),
        ("after", ended, "the checks after it"),
    ]
    for kind, presupposed, words in wanted:
        if presupposed and kind not in kinds and kind not in whens:
            yield words
    if ended and not any(
        e.detail.get("destroyed") for e in of_it if e.kind == "rotation-finalized"
    ):
        yield "what was destroyed"
