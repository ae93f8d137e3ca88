"""How soon a part that died is started again. Pure: times are of a monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST_PAUSE_S: Final = 0.2
LONGEST_PAUSE_S: Final = 30.0
# A part that ran this long was well; what ends it then has nothing to do with the last time.
STEADY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """The pause before the next start; it doubles with each death that comes soon after a start."""

    pause_s: float = 0.0

    def after_death(self, ran_s: float) -> Backoff:
        """Return the pause to make after a part died that had run for `ran_s` seconds."""
        if ran_s >= STEADY_S or self.pause_s == 0.0:
            return Backoff(FIRST_PAUSE_S)
        return Backoff(min(2 * self.pause_s, LONGEST_PAUSE_S))
