"""Moments as Go prints and reads them: RFC 3339 with zone, up to nanoseconds.

Inside SPIKE a moment is a whole number of nanoseconds since 1970-01-01 UTC, as `time.time_ns()`
gives it: Python's datetime would lose the last three digits, and two texts of one moment would not
compare.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, NewType

import msgspec

from spike.error import FormatError
from spike.wire.message import GoTime

UnixNs = NewType("UnixNs", int)

# A moment as it is stored: 64 bits, which are the years 1678 to 2262.
StoredMoment = Annotated[UnixNs, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]

_NS_PER_S = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What datetime can show: the years 1 to 9999. Go's marshaller refuses other years too.
EARLIEST = UnixNs(-62_135_596_800 * _NS_PER_S)
LATEST = UnixNs(253_402_300_800 * _NS_PER_S - 1)

_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})"
    r"(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})"
)


def go_time(moment: UnixNs) -> GoTime:
    """Return `moment` in UTC as Go's time.Time prints it: no trailing zeros in the fraction."""
    seconds, fraction_ns = divmod(moment, _NS_PER_S)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    if fraction_ns:
        text += f".{fraction_ns:09d}".rstrip("0")
    return GoTime(text + "Z")


def parse_go_time_untrusted(text: str) -> UnixNs:
    """Return the moment that `text` names, in any zone.

    Raises:
        FormatError: `text` is not RFC 3339 with a zone and at most nine digits of a second.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise FormatError("a time is not RFC 3339 with a zone")
    whole, fraction, zone = match.groups()
    try:
        since = datetime.fromisoformat(whole + zone.replace("Z", "+00:00")) - _EPOCH
    except (ValueError, OverflowError):
        raise FormatError("a time names a day, hour or zone that does not exist") from None
    seconds = since.days * 86_400 + since.seconds
    moment = UnixNs(seconds * _NS_PER_S + int((fraction or "").ljust(9, "0")))
    if not EARLIEST <= moment <= LATEST:
        raise FormatError("a time is outside the years 1 to 9999")
    return moment
