"""The tally of a verification: every record looked at has one outcome, and the sum adds up. Pure.

    scanned = good + bad + vanished

* A record that should be there and is not counts as scanned and bad (MISSING): it was looked for.
* Vanished: it was there when its page was read and had been removed, honestly, when it was looked at.
* The census says how many records of each kind are under which generation. It is read from the blobs' headers, never
  from the column of the store, which whoever writes the store can set as he likes.

What is kept does not grow with the number of records: bad ones are counted without end and named up to a limit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

NAMED_LIMIT: Final = 1_000
"""Bad records kept by name."""
UNKNOWN_GENERATION: Final = 0
"""Stands in a census for every generation the keyring has no key of, and for what has no header: no key has it."""


class BadReason(StrEnum):
    """Why a record is not as it must be; docs/guide/operation.md says what to do about each."""

    UNOPENABLE = "does-not-open"
    NO_KEY = "no-key"
    MALFORMED = "malformed"
    MISLABELED = "mislabeled"
    MISSING = "missing"
    ORPHAN = "orphan"
    UNLISTED = "unlisted"
    DIFFERING = "differing"
    NOT_IN_FORCE = "not-in-force"
    BROKEN_CHAIN = "broken-chain"
    UNKNOWN_KIND = "unknown-kind"


@dataclass(frozen=True, slots=True)
class Finding:
    """One bad record. `detail` holds nothing of what is sealed."""

    kind: str
    key: str
    version: str
    reason: BadReason
    detail: str


@dataclass(slots=True)
class Tally:
    """Counts of one pass. Only its methods change it."""

    good: int = 0
    vanished: int = 0
    size_bytes: int = 0
    bad: Counter[BadReason] = field(default_factory=Counter)
    named: list[Finding] = field(default_factory=list)
    census: Counter[tuple[str, int]] = field(default_factory=Counter)

    @property
    def scanned(self) -> int:
        """How many records were looked at, or looked for."""
        return self.good + self.vanished + self.bad_total

    @property
    def bad_total(self) -> int:
        """How many of them are bad."""
        return self.bad.total()

    @property
    def unnamed(self) -> int:
        """Bad records that were counted and not kept by name."""
        return self.bad_total - len(self.named)

    def note_generation(
        self, kind: str, generation: int, known: Collection[int], size_bytes: int
    ) -> None:
        """Count a record for the census, under the generation its header names.

        One that is not among the `known` is counted with all others like it: headers can name 2^32 of them.
        """
        number = generation if generation in known else UNKNOWN_GENERATION
        self.census[kind, number] += 1
        self.size_bytes += size_bytes

    def note_good(self) -> None:
        """Count a record that opens and fits."""
        self.good += 1

    def note_vanished(self) -> None:
        """Count a record that was removed between the reading of its page and its turn."""
        self.vanished += 1

    def note_bad(self, finding: Finding, count: int = 1) -> None:
        """Count bad records of one name (`count` of them) and keep the name while there is room."""
        self.bad[finding.reason] += count
        if len(self.named) < NAMED_LIMIT:
            self.named.append(finding)
