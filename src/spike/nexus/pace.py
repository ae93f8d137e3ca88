"""Long work on the event loop that serves requests: small slices, and others first.

A slice is at most half a millisecond and one record. After it every request that waits has its turn; where there were
any, the work also rests for as long as it had worked, so that it takes at most half of a busy Nexus.
"""

from __future__ import annotations

import asyncio
from typing import Final

SLICE_S: Final = 0.000_5
_NOBODY_S: Final = 0.000_05
"""A turn of a loop with nothing to do takes less."""


class Pace:
    """The pace of one piece of work. Made on the loop it runs on."""

    def __init__(self) -> None:
        self._time = asyncio.get_running_loop().time
        self._began = self._time()

    async def give_way(self) -> None:
        """Return at once while the slice lasts, else when the others have had their turn. Call it for each record."""
        now = self._time()
        worked = now - self._began
        if worked < SLICE_S:
            return
        await asyncio.sleep(0)
        if self._time() - now > _NOBODY_S:
            await asyncio.sleep(worked)
        self._began = self._time()
