"""Which time is believed: a clock that jumps more than a day is noticed, and expires nothing."""

from __future__ import annotations

import pytest

from spike.lifecycle.believed_time import Sight, believe

DAY = 86_400.0
BEGAN = Sight(1_800_000_000.0, 5_000.0)


def seen(ran_days: float, jump_days: float = 0.0) -> Sight:
    return Sight(BEGAN.wall_s + (ran_days + jump_days) * DAY, BEGAN.steady_s + ran_days * DAY)


def test_a_clock_that_goes_as_the_steady_one_is_believed() -> None:
    belief = believe(BEGAN, seen(200), BEGAN.wall_s)
    assert belief == (BEGAN.wall_s + 200 * DAY, True, "")


@pytest.mark.parametrize("drift_days", [-0.9, 0.9])
def test_less_than_a_day_is_no_jump(drift_days: float) -> None:
    belief = believe(BEGAN, seen(3, drift_days), BEGAN.wall_s)
    assert belief == (seen(3, drift_days).wall_s, True, "")


@pytest.mark.parametrize(("jump_days", "way"), [(400, "forward by 400.0"), (-2, "back by 2.0")])
def test_a_jump_is_told_and_time_goes_on_without_it(jump_days: float, way: str) -> None:
    belief = believe(BEGAN, seen(3, jump_days), BEGAN.wall_s)
    assert belief.at_s == pytest.approx(BEGAN.wall_s + 3 * DAY)
    assert not belief.may_expire
    assert way in belief.fault


def test_a_clock_that_came_back_is_believed_again() -> None:
    assert believe(BEGAN, seen(3, 400), BEGAN.wall_s).fault
    assert believe(BEGAN, seen(3.1), BEGAN.wall_s) == (seen(3.1).wall_s, True, "")


def test_a_clock_behind_the_last_date_of_the_store_is_told() -> None:
    belief = believe(BEGAN, seen(0), BEGAN.wall_s + 5 * DAY)
    assert not belief.may_expire
    assert "5.0 days behind" in belief.fault


def test_after_a_gap_nothing_expires_for_a_day() -> None:
    last_known = BEGAN.wall_s - 400 * DAY
    assert believe(BEGAN, seen(0.99), last_known) == (seen(0.99).wall_s, False, "")
    assert believe(BEGAN, seen(1.01), last_known).may_expire
