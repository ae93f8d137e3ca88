"""Delay after wrong passwords: it slows an online guesser, grows to 60 s and no further, and locks nobody out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

FIRST_DELAY_S: Final = 1.0
LAST_DELAY_S: Final = 60.0


@dataclass(slots=True)
class AttemptDelay:
    """Wrong attempts for each slot. Times are seconds of a monotonic clock, passed in."""

    _wrong: dict[str, tuple[int, float]] = field(default_factory=dict)

    def wait_s(self, slot_id: str, now_s: float) -> float:
        """Return how long the next attempt on this slot has to wait; 0 when it may be made now."""
        count, last_s = self._wrong.get(slot_id, (0, 0.0))
        if count == 0:
            return 0.0
        delay_s = min(LAST_DELAY_S, FIRST_DELAY_S * (1 << min(count - 1, 6)))
        return max(0.0, last_s + delay_s - now_s)

    def wrong(self, slot_id: str, now_s: float) -> None:
        """Note a wrong attempt."""
        count, _ = self._wrong.get(slot_id, (0, 0.0))
        self._wrong[slot_id] = (count + 1, now_s)

    def right(self, slot_id: str) -> None:
        """Forget the wrong attempts on a slot."""
        self._wrong.pop(slot_id, None)
