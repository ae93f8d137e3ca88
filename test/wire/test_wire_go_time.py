"""Times as Go prints and reads them. The texts were printed by Go 1.26."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from size import size
from spike.error import FormatError
from spike.wire.go_time import EARLIEST, LATEST, UnixNs, go_time, parse_go_time_untrusted

PRINTED = [
    (0, "1970-01-01T00:00:00Z"),
    (1, "1970-01-01T00:00:00.000000001Z"),
    (1_500_000_000, "1970-01-01T00:00:01.5Z"),
    (1_764_000_000_123_456_789, "2025-11-24T16:00:00.123456789Z"),
    (1_764_000_000_120_000_000, "2025-11-24T16:00:00.12Z"),
    (1_764_000_000_000_001_000, "2025-11-24T16:00:00.000001Z"),
    (-1, "1969-12-31T23:59:59.999999999Z"),
    (EARLIEST, "0001-01-01T00:00:00Z"),
    (LATEST, "9999-12-31T23:59:59.999999999Z"),
]


@pytest.mark.parametrize(("moment", "text"), PRINTED)
def test_a_time_is_printed_as_go_prints_it_and_read_back(moment: int, text: str) -> None:
    assert go_time(UnixNs(moment)) == text
    assert parse_go_time_untrusted(text) == moment


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("2026-01-02T03:04:05.120Z", "2026-01-02T03:04:05.12Z"),
        ("2026-01-02T03:04:05+01:00", "2026-01-02T02:04:05Z"),
        ("2026-01-02T03:04:05.5-00:30", "2026-01-02T03:34:05.5Z"),
        ("2026-01-02T03:04:05+00:00", "2026-01-02T03:04:05Z"),
    ],
)
def test_any_zone_is_read(text: str, same: str) -> None:
    assert go_time(parse_go_time_untrusted(text)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-02T03:04:05",
        "2026-01-02 03:04:05Z",
        "2026-01-02t03:04:05z",
        "2026-01-02T24:00:00Z",
        "2026-01-02T03:04:60Z",
        "2026-02-30T03:04:05Z",
        "2026-13-01T03:04:05Z",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.1234567890Z",
        "2026-01-02T03:04:05Z\n",
        "2026-01-02T03:04:05+24:00",
        "2026-01-02T03:04:05+0100",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "２026-01-02T03:04:05Z",
        "20260102T030405Z",
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_go_time_untrusted(text)


@settings(max_examples=size(test=200, proof=50_000), derandomize=True)
@given(st.integers(EARLIEST, LATEST))
def test_every_moment_comes_back(moment: int) -> None:
    assert parse_go_time_untrusted(go_time(UnixNs(moment))) == moment
