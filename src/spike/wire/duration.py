"""Durations as Go writes them: `90s`, `1h30m`, `1.5h`, `250ms`. Source: time.ParseDuration."""

from __future__ import annotations

import re
from typing import Final

from spike.error import InputError

_UNIT_S: Final = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0,
}  # fmt: skip
_PART: Final = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|μs|ms|s|m|h)"
_WHOLE: Final = re.compile(rf"[+-]?(?:0|(?:{_PART})+)")
_PIECE: Final = re.compile(r"([0-9.]+)(ns|us|µs|μs|ms|s|m|h)")
_LIMIT_CHARACTERS: Final = 64
_LIMIT_S: Final = (1 << 63) / 1e9


def parse_duration_untrusted(text: str) -> float:
    """Return a duration in seconds; negative ones are possible, as in Go.

    Raises:
        InputError: not a Go duration, or beyond the 290 years Go can hold.
    """
    if len(text) > _LIMIT_CHARACTERS or _WHOLE.fullmatch(text) is None:
        raise InputError("not a duration such as 90s or 1h30m")
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in _PIECE.findall(text))
    if seconds >= _LIMIT_S:
        raise InputError("a duration longer than 290 years")
    return -seconds if text.startswith("-") else seconds
