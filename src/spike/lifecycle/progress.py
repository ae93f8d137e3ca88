"""How far the re-encryption of a rotation has come: where it goes on, and what became of each record. Pure.

    scanned = re-encrypted + already current + skipped + vanished + failed

`scanned` is counted where records are read and the others where their fate is known, so the sum says something: counts
that do not add up are neither written nor read. What is kept does not grow with the number of records: every outcome is
counted without end and named up to a limit.

It is one sealed record for each rotation, written together with the batch it counts. So it is never ahead of the
records nor behind them.
"""

from __future__ import annotations

from collections import Counter as Count
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

import msgspec
from msgspec import Meta

from spike.error import FormatError, NewerFormatError
from spike.lifecycle.keyring import Counter, Id, Number

FORMAT: Final = 1
LIMIT_BYTES: Final = 1 << 20
NAMED_LIMIT: Final = 50
"""Records kept by name for each outcome that has names."""
_THING: Final = "progress of a re-encryption"


class Outcome(StrEnum):
    """What became of a record that was not simply re-encrypted."""

    SKIPPED = "skipped"
    VANISHED = "vanished"
    FAILED = "failed"


class Reason(StrEnum):
    """Why; docs/guide/operation.md says what to do about each."""

    OTHER_GENERATION = "other-generation"
    """Skipped: under a key that is at hand and not the one that is being replaced."""
    NO_KEY = "no-key"
    """Skipped: under a generation of which there is no key."""
    CHANGED_UNDER_OLD_KEY = "changed-under-old-key"
    """Skipped: written under the old key while it was looked at, which nothing honest does."""
    REMOVED = "removed"
    """Vanished: deleted between the reading of its page and the writing of its batch."""
    UNOPENABLE = "does-not-open"
    """Failed: its key does not open it."""
    MALFORMED = "malformed"
    """Failed: it is no sealed record, so nobody knows under which key it was."""
    UNCONFIRMED = "unconfirmed"
    """Failed: as sealed under the new key it did not open to what it was."""


SKIP_REASONS: Final = frozenset(
    {Reason.OTHER_GENERATION, Reason.NO_KEY, Reason.CHANGED_UNDER_OLD_KEY}
)


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One record by name."""

    outcome: Outcome
    reason: Reason
    kind: str
    key: str
    version: str


class Progress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far it has come. `kind` and `cursor` say where it goes on; an empty cursor is the beginning of the kind.

    `expected` is how many records there were when it began; `rate_per_s` is scanned records, as last measured.
    """

    format: Literal[1]
    rotation: Id
    before: Number
    kind: Annotated[str, Meta(pattern=r"^[a-z0-9-]{0,64}\Z")]
    cursor: Annotated[str, Meta(max_length=1200)]
    ended: bool
    expected: Counter
    scanned: Counter
    re_encrypted: Counter
    already_current: Counter
    skipped: dict[Reason, Counter]
    vanished: Counter
    failed: Counter
    size_bytes: Counter
    rate_per_s: Counter
    named: Annotated[tuple[Named, ...], Meta(max_length=3 * NAMED_LIMIT)]

    @property
    def skipped_total(self) -> int:
        """How many were skipped, for whatever reason."""
        return sum(self.skipped.values())

    @property
    def adds_up(self) -> bool:
        """Whether every record that was scanned has exactly one outcome."""
        known = self.re_encrypted + self.already_current + self.vanished + self.failed
        return self.scanned == known + self.skipped_total

    @property
    def left_s(self) -> float | None:
        """How long the rest takes at this rate; None while no rate is known, 0 when nothing is left."""
        left = 0 if self.ended else max(0, self.expected - self.scanned)
        if not left:
            return 0.0
        return left / self.rate_per_s if self.rate_per_s else None


@dataclass(slots=True)
class BatchCount:
    """What became of the records of one batch."""

    scanned: int = 0
    re_encrypted: int = 0
    already_current: int = 0
    skipped: Count[Reason] = field(default_factory=Count)
    vanished: int = 0
    failed: int = 0
    size_bytes: int = 0
    named: list[Named] = field(default_factory=list)

    def note(self, outcome: Outcome, reason: Reason, kind: str, key: str, version: str) -> None:
        """Count a record that has a name, and keep the name while there is room."""
        match outcome:
            case Outcome.SKIPPED:
                self.skipped[reason] += 1
            case Outcome.VANISHED:
                self.vanished += 1
            case Outcome.FAILED:
                self.failed += 1
        if sum(each.outcome is outcome for each in self.named) < NAMED_LIMIT:
            self.named.append(Named(outcome, reason, kind, key, version))

    def copy(self) -> Self:
        """Return a count that goes on from this one by itself."""
        return type(self)(
            *(self.scanned, self.re_encrypted, self.already_current, Count(self.skipped)),
            *(self.vanished, self.failed, self.size_bytes, list(self.named)),
        )


def begun(rotation: str, before: int, expected: int) -> Progress:
    """Return the progress of a walk that has looked at nothing. `before` is the generation to leave."""
    return Progress(
        format=FORMAT,
        rotation=rotation,
        before=before,
        kind="",
        cursor="",
        ended=False,
        expected=expected,
        scanned=0,
        re_encrypted=0,
        already_current=0,
        skipped={},
        vanished=0,
        failed=0,
        size_bytes=0,
        rate_per_s=0,
        named=(),
    )


def merged(
    progress: Progress, count: BatchCount, kind: str, cursor: str, rate_per_s: int
) -> Progress:
    """Return the progress after a batch; the walk goes on behind `cursor` of `kind`.

    Raises:
        ValueError: the counts of the batch do not add up: a fault of ours.
    """
    skipped = Count(progress.skipped) + count.skipped
    after = msgspec.structs.replace(
        progress,
        kind=kind,
        cursor=cursor,
        scanned=progress.scanned + count.scanned,
        re_encrypted=progress.re_encrypted + count.re_encrypted,
        already_current=progress.already_current + count.already_current,
        skipped={reason: skipped[reason] for reason in sorted(skipped)},
        vanished=progress.vanished + count.vanished,
        failed=progress.failed + count.failed,
        size_bytes=progress.size_bytes + count.size_bytes,
        rate_per_s=rate_per_s,
        named=_bounded((*progress.named, *count.named)),
    )
    if not after.adds_up:
        raise ValueError("the counts of a batch do not add up")
    return after


def finished(progress: Progress) -> Progress:
    """Return the progress of a walk that has looked at everything."""
    return msgspec.structs.replace(progress, ended=True)


def encode(progress: Progress) -> bytes:
    """Return its one encoding: JSON, fields in their order."""
    return msgspec.json.encode(progress)


class _Head(msgspec.Struct, frozen=True):
    """What every format begins with."""

    format: int


def decode_progress_untrusted(raw: bytes) -> Progress:
    """Read a progress. Sizes: at most 1 MiB.

    Raises:
        NewerFormatError: it is in the format of a newer SPIKE.
        FormatError: it is damaged, does not add up, or is not in its one form.
    """
    if len(raw) > LIMIT_BYTES:
        raise FormatError(f"the {_THING} is larger than {LIMIT_BYTES} bytes")
    try:
        found = msgspec.json.decode(raw, type=_Head).format
        if found > FORMAT:
            raise NewerFormatError(_THING, found, FORMAT)
        progress = msgspec.json.decode(raw, type=Progress)
        canonical = encode(progress) == raw
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise FormatError(f"the {_THING} is damaged: it has another form") from None
    if not canonical or not _is_consistent(progress):
        raise FormatError(f"the {_THING} is damaged: it is not in its one form")
    return progress


def _is_consistent(progress: Progress) -> bool:
    reasons = list(progress.skipped)
    return (
        progress.adds_up
        and reasons == sorted(reasons)
        and SKIP_REASONS.issuperset(reasons)
        and 0 not in progress.skipped.values()
        and progress.named == _bounded(progress.named)
    )


def _bounded(named: tuple[Named, ...]) -> tuple[Named, ...]:
    """Return the first names of each outcome, in their order."""
    if len(named) <= NAMED_LIMIT:
        return named
    room: Count[Outcome] = Count(dict.fromkeys(Outcome, NAMED_LIMIT))
    kept = []
    for each in named:
        if room[each.outcome]:
            room[each.outcome] -= 1
            kept.append(each)
    return tuple(kept)
