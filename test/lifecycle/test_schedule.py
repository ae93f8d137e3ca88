"""The maintenance windows of a schedule: what they come to on real days, also when the clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest

from spike.error import InputError
from spike.lifecycle import schedule as rules
from spike.lifecycle.schedule import Day, Schedule, Span, Window, window_of

BERLIN = ZoneInfo("Europe/Berlin")
EVERY_DAY = list(Day)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def scheduled(*windows: tuple[list[Day], str, str]) -> Schedule:
    made = tuple(window_of([d.value for d in days], begin, end) for days, begin, end in windows)
    return Schedule(zone="Europe/Berlin", windows=made)


NIGHTLY = scheduled((EVERY_DAY, "22:00", "06:00"))
EARLY = scheduled((EVERY_DAY, "02:00", "03:00"))


def test_without_windows_any_time_will_do() -> None:
    now = utc("2026-11-27T12:00:00")
    assert rules.is_open(Schedule(), UTC, now)
    assert rules.first_open(Schedule(), UTC, now) == now
    assert rules.open_span(Schedule(), UTC, now) is None
    assert rules.next_edge(Schedule(), UTC, now) is None


def test_a_window_across_midnight_is_open_on_both_sides_of_it() -> None:
    night = Span(utc("2026-11-27T21:00:00"), utc("2026-11-28T05:00:00"))
    for moment in ("2026-11-27T21:00:00", "2026-11-27T23:30:00", "2026-11-28T04:59:59"):
        assert rules.open_span(NIGHTLY, BERLIN, utc(moment)) == night
    for moment in ("2026-11-27T20:59:59", "2026-11-28T05:00:00"):
        assert not rules.is_open(NIGHTLY, BERLIN, utc(moment))


def test_the_next_edge_is_the_end_inside_and_the_begin_outside() -> None:
    assert rules.next_edge(NIGHTLY, BERLIN, utc("2026-11-27T22:00:00")) == utc(
        "2026-11-28T05:00:00"
    )
    assert rules.next_edge(NIGHTLY, BERLIN, utc("2026-11-28T05:00:00")) == utc(
        "2026-11-28T21:00:00"
    )


def test_a_weekly_window_opens_on_its_day_alone() -> None:
    sunday = scheduled(([Day.SUNDAY], "01:00", "05:00"))
    thursday = utc("2026-11-26T12:00:00")
    assert rules.first_open(sunday, BERLIN, thursday) == utc("2026-11-29T00:00:00")
    inside = utc("2026-11-29T03:00:00")
    assert rules.first_open(sunday, BERLIN, inside) == inside


def test_windows_that_touch_are_one() -> None:
    weekend = scheduled(
        ([Day.FRIDAY], "22:00", "00:00"),
        ([Day.SATURDAY], "00:00", "00:00"),
        ([Day.SATURDAY, Day.SUNDAY], "00:00", "12:00"),
    )
    assert rules.open_span(weekend, BERLIN, utc("2026-11-27T22:00:00")) == Span(
        utc("2026-11-27T21:00:00"), utc("2026-11-29T11:00:00")
    )


@pytest.mark.parametrize(
    ("night", "hours"),
    [
        ("an ordinary night", 8),
        ("the night in which the clock skips an hour", 7),
        ("the night in which an hour comes twice", 9),
    ],
)
def test_a_night_lasts_from_clock_to_clock(night: str, hours: int) -> None:
    evening = {8: "2026-11-27T21:30:00", 7: "2026-03-28T21:30:00", 9: "2026-10-24T20:30:00"}
    span = rules.open_span(NIGHTLY, BERLIN, utc(evening[hours]))
    assert span is not None, night
    assert span.end - span.begin == timedelta(hours=hours)
    assert span.begin.astimezone(BERLIN).hour == 22
    assert span.end.astimezone(BERLIN).hour == 6


def test_a_window_in_the_hour_that_is_skipped_opens_on_the_next_day() -> None:
    evening = utc("2026-03-28T20:00:00")
    assert rules.first_open(EARLY, BERLIN, evening) == utc("2026-03-30T00:00:00")


def test_a_window_that_reaches_into_the_hour_that_is_skipped_ends_or_begins_at_the_skip() -> None:
    skip = utc("2026-03-29T01:00:00")
    ends = scheduled((EVERY_DAY, "01:00", "02:30"))
    begins = scheduled((EVERY_DAY, "02:30", "04:00"))
    assert rules.open_span(ends, BERLIN, skip - timedelta(minutes=1)) == Span(
        utc("2026-03-29T00:00:00"), skip
    )
    assert rules.open_span(begins, BERLIN, skip) == Span(skip, utc("2026-03-29T02:00:00"))


def test_a_window_in_the_hour_that_comes_twice_is_open_from_the_first_to_the_second() -> None:
    assert rules.open_span(EARLY, BERLIN, utc("2026-10-25T00:30:00")) == Span(
        utc("2026-10-25T00:00:00"), utc("2026-10-25T02:00:00")
    )


def test_every_hour_of_two_years_agrees_with_the_clock_on_the_wall() -> None:
    hour, end, opened = utc("2026-01-01T00:00:00"), utc("2028-01-01T00:00:00"), 0
    while hour < end:
        wall = hour.astimezone(BERLIN).hour
        assert rules.is_open(NIGHTLY, BERLIN, hour) == (wall >= 22 or wall < 6), hour
        opened += wall >= 22 or wall < 6
        hour += timedelta(hours=1)
    assert opened == 730 * 8


@pytest.mark.parametrize(
    ("days", "begin", "end", "why"),
    [
        (["mun"], "22:00", "06:00", "no day is called 'mun'"),
        ([], "22:00", "06:00", "no day"),
        (["mon"], "24:00", "06:00", "'24:00' is no time of day"),
        (["mon"], "22:00", "6:00", "'6:00' is no time of day"),
        (["mon"], "22:00", "06:00\n", "no time of day"),
    ],
)
def test_a_window_that_is_none_is_refused_with_what_is_wrong(
    days: list[str], begin: str, end: str, why: str
) -> None:
    with pytest.raises(InputError, match=why):
        window_of(days, begin, end)


def test_the_days_of_a_window_have_one_order() -> None:
    assert window_of(["sun", "mon", "sun"], "22:00", "06:00").days == (Day.MONDAY, Day.SUNDAY)


@pytest.mark.parametrize(
    "name", ["", "/etc/localtime", "../../etc/passwd", "Europe//Berlin", "a b"]
)
def test_a_name_that_no_zone_can_have_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="Europe/Berlin"):
        rules.check_zone_name(name)


@pytest.mark.parametrize(
    "wrong",
    [
        Schedule(record_days=3651),
        Schedule(root_days=-1),
        Schedule(usage_limit=-1),
        Schedule(windows=(Window((Day.MONDAY,), "00:00", "01:00"),) * 33),
    ],
)
def test_a_schedule_out_of_bounds_is_refused(wrong: Schedule) -> None:
    with pytest.raises(InputError):
        rules.check(wrong)


def test_a_schedule_reads_back_as_it_was_written_and_refuses_what_it_could_not_mean() -> None:
    raw = msgspec.json.encode(NIGHTLY)
    assert msgspec.json.decode(raw, type=Schedule) == NIGHTLY
    for change, into in ((b"22:00", b"22:60"), (b'"mon"', b'"day"'), (b'"zone"', b'"zonf"')):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(raw.replace(change, into), type=Schedule)
