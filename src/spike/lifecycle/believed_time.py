"""Which time is believed: a clock that jumps expires nothing. Pure.

Two things are held against the clock of the machine: the clock that only goes forward and counts while the machine
sleeps (`steady`), and the last date that the store itself knows.

* More than a day off against the steady clock since this process began: the clock has jumped. Time goes on from where
  it was, as the steady clock counts it, until the clock is back or Nexus is started again.
* More than a day before the last date of the store: the clock is behind.
* More than a day after it: Nexus was off, or the clock is ahead, and nobody can tell which. So for a day nothing
  expires, and whatever is due has a day to be done.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

TOLERANCE: Final = timedelta(days=1)
_TOLERANCE_S: Final = TOLERANCE.total_seconds()
_DAY_S: Final = 86_400


class Sight(NamedTuple):
    """Both clocks at one moment: seconds since 1970 in UTC, and seconds since some moment that stays the same."""

    wall_s: float
    steady_s: float


class Belief(NamedTuple):
    """The time to go by. `may_expire`: whether a key may be refused for its age by it. `fault` is for a person."""

    at_s: float
    may_expire: bool
    fault: str = ""

    @property
    def at(self) -> datetime:
        """The time to go by."""
        return datetime.fromtimestamp(self.at_s, UTC)


def believe(first: Sight, now: Sight, last_known_s: float) -> Belief:
    """Judge a clock by what it was when this process began, and by the last date the store knows of before that."""
    ran_s = now.steady_s - first.steady_s
    jump_s = (now.wall_s - first.wall_s) - ran_s
    if abs(jump_s) > _TOLERANCE_S:
        way = "forward" if jump_s > 0 else "back"
        return Belief(
            first.wall_s + ran_s,
            may_expire=False,
            fault=f"the clock has jumped {way} by {_days(jump_s)} since Nexus was started",
        )
    if now.wall_s < last_known_s - _TOLERANCE_S:
        behind = _days(last_known_s - now.wall_s)
        return Belief(
            now.wall_s,
            may_expire=False,
            fault=f"the clock is {behind} behind the last date that this store knows",
        )
    was_off = first.wall_s > last_known_s + _TOLERANCE_S
    return Belief(now.wall_s, may_expire=not was_off or ran_s >= _TOLERANCE_S)


def _days(seconds: float) -> str:
    return f"{abs(seconds) / _DAY_S:.1f} days"
