"""How fast records are re-encrypted: flat out while nobody asks for anything, in small bites beside requests.

* **Whether anybody is there** is seen by the requests that were answered since the last look.
* **Beside requests** a batch is small, so that nobody waits long behind it, on the event loop or in the store; after it
  the walk rests RELIEF times as long as the batch took. Where the event loop comes late to what was due, or a batch
  takes twice as long as it can, requests wait, too: then the rest grows, up to RELIEF_LIMIT times, and shrinks again.
* **A maximum rate** and a pause hold in any case. Both are looked at for each batch, and while waiting every POLL_S.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

SMALL: Final = 16
"""Records in a batch beside requests."""
LARGE: Final = 1000
"""Records in a batch while nobody asks for anything."""
BATCH_BYTES: Final = 1 << 20
"""A batch ends with the record that brings its blobs to this size."""
POLL_S: Final = 0.1
RELIEF: Final = 2.0
"""Beside requests it rests so many times as long as a batch took."""
RELIEF_LIMIT: Final = 4.0
LONGEST_REST_S: Final = 5.0
"""A batch may have waited for a store that was away for hours: nobody is helped by a rest as long."""
_NOBODY_S: Final = 0.2
"""Nobody is there when so long nothing was asked for."""
_LATE_S: Final = 0.001_5
_BURSTS_PER_S: Final = 10
_METERED_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What an operator sets: records a second, 0 for no maximum; and whether it rests altogether."""

    max_rate: int = 0
    paused: bool = False


class WalkPace:
    """The pace of one walk. `served` counts the requests answered so far, `limits` gives what is set now."""

    def __init__(
        self,
        served: Callable[[], int],
        limits: Callable[[], Limits],
        *,
        time: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._served, self._limits, self._time, self._sleep = served, limits, time, sleep
        self._seen = served()
        self._alone_since = time() - _NOBODY_S
        self._size = SMALL
        self._relief = RELIEF
        self._late = False
        self._least_s = math.inf
        self._due = self._rate_due = time()
        self._marks: deque[tuple[float, int]] = deque()

    @property
    def is_alone(self) -> bool:
        """Whether nobody has asked for anything of late."""
        now, served = self._time(), self._served()
        if served != self._seen:
            self._seen, self._alone_since = served, now
        return now - self._alone_since >= _NOBODY_S

    async def permit(self) -> int:
        """Return, when the next batch may begin, how many records it may have."""
        while True:
            limits = self._limits()
            if limits.paused:
                self._marks.clear()  # a pause is no part of a rate
                await self._sleep(POLL_S)
                continue
            due = max(self._due, self._rate_due) if limits.max_rate else self._due
            now = self._time()
            if now >= due:
                return self._size_under(limits)
            await self._rest(min(due - now, POLL_S))

    async def _rest(self, pause_s: float) -> None:
        began = self._time()
        await self._sleep(pause_s)
        self._late |= self._time() - began - pause_s > _LATE_S

    def _size_under(self, limits: Limits) -> int:
        self._size = min(self._size * 2, LARGE) if self.is_alone else SMALL
        if limits.max_rate:
            return max(1, min(self._size, limits.max_rate // _BURSTS_PER_S))
        return self._size

    def note(self, records: int, took_s: float) -> None:
        """Take note of a batch that was committed: how many records, and how long it was in work."""
        now = self._time()
        if self.is_alone:
            self._due = now
        else:
            self._regulate(took_s)
            self._due = now + min(took_s * self._relief, LONGEST_REST_S)
        rate = self._limits().max_rate
        if rate:
            # What was not used before is gone: after a pause nothing is made up for.
            self._rate_due = max(self._rate_due, now - 1 / _BURSTS_PER_S) + records / rate
        else:
            self._rate_due = now
        self._mark(now, records)

    def _regulate(self, took_s: float) -> None:
        # What a batch takes on this disk, undisturbed; it rises slowly, as a store may become slower.
        self._least_s = min(took_s, self._least_s * 1.02)
        in_the_way = self._late or took_s > 2 * self._least_s
        self._late = False
        self._relief = min(max(self._relief * (1.5 if in_the_way else 0.9), RELIEF), RELIEF_LIMIT)

    def _mark(self, now: float, records: int) -> None:
        self._marks.append((now, records))
        while now - self._marks[0][0] > _METERED_S:
            self._marks.popleft()

    @property
    def rate_per_s(self) -> int:
        """Records a second over the last seconds; 0 while that is not known."""
        if len(self._marks) < 2:
            return 0
        (first, before), (last, _) = self._marks[0], self._marks[-1]
        done = sum(records for _, records in self._marks) - before
        return round(done / (last - first)) if last > first else 0
