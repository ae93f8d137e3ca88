"""How many records each generation of a key has sealed: the `usage` record. Pure.

A number for schedule and reports and for nothing else: no write is ever refused for it. What was counted in the last
minute before a crash is missing from it. It also holds the last moment at which a running Nexus wrote it, by which a
clock that is wrong at the next start is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from spike.error import FormatError, NewerFormatError
from spike.lifecycle.keyring import Counter, KeyPurpose, Moment

FORMAT: Final = 1
LIMIT_BYTES: Final = 64 << 10
KEPT_GENERATIONS: Final = 1_000
"""Of each purpose; the oldest are forgotten first."""
_THING: Final = "usage record"

Counts = Annotated[tuple[tuple[Annotated[int, Meta(ge=1)], Counter], ...], Meta(max_length=1_000)]
"""Generation and number of records, in the order of generations."""


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Counts by generation, as of `at`."""

    format: int
    at: Moment
    record: Counts = ()
    cipher: Counts = ()

    def of(self, purpose: KeyPurpose, generation: int) -> int | None:
        """Return how many records a generation has sealed; None for a purpose that is not counted."""
        match purpose:
            case KeyPurpose.RECORD:
                return dict(self.record).get(generation, 0)
            case KeyPurpose.CIPHER:
                return dict(self.cipher).get(generation, 0)
            case _:
                return None


def added(
    usage: Usage | None, record: Mapping[int, int], cipher: Mapping[int, int], at: str
) -> Usage:
    """Return the usage with what was counted since."""
    before = usage or Usage(FORMAT, at)
    return Usage(FORMAT, at, _sum(before.record, record), _sum(before.cipher, cipher))


def _sum(
    before: tuple[tuple[int, int], ...], more: Mapping[int, int]
) -> tuple[tuple[int, int], ...]:
    total = dict(before)
    for generation, count in more.items():
        total[generation] = total.get(generation, 0) + count
    return tuple(sorted(total.items())[-KEPT_GENERATIONS:])


def encode(usage: Usage) -> bytes:
    """Return the plain text of the record."""
    return msgspec.json.encode(usage)


def decode_untrusted(raw: bytes) -> Usage:
    """Read the plain text of a usage record.

    Raises:
        NewerFormatError: it is in the format of a newer SPIKE.
        FormatError: it is damaged, larger than 64 KiB, or not in its one form.
    """
    if len(raw) > LIMIT_BYTES:
        raise FormatError(f"the {_THING} is larger than {LIMIT_BYTES} bytes")
    try:
        found = msgspec.json.decode(raw, type=_Head).format
        if found > FORMAT:
            raise NewerFormatError(_THING, found, FORMAT)
        usage = msgspec.json.decode(raw, type=Usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FormatError(f"the {_THING} is damaged: it has another form") from None
    if usage.format != FORMAT or encode(usage) != raw:
        raise FormatError(f"the {_THING} is damaged: it is not in its one form")
    return usage


class _Head(msgspec.Struct, frozen=True):
    """What every format of the record begins with."""

    format: int
