"""Which requests are running: so that a key is wiped only when nothing that began before can still want it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator


class InUse:
    """Counts running requests by turn. A turn ends when somebody asks for all that have begun to be over."""

    def __init__(self) -> None:
        self._turn = 0
        self._running: Counter[int] = Counter()
        self._news = asyncio.Event()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count one request while it runs."""
        turn = self._turn
        self._running[turn] += 1
        try:
            yield
        finally:
            self._running[turn] -= 1
            if not self._running[turn]:
                del self._running[turn]
                self._news.set()

    async def over(self) -> None:
        """Return once every request that runs now has ended. Those that begin meanwhile are not waited for."""
        turn = self._turn
        self._turn += 1
        while any(running <= turn for running in self._running):
            self._news.clear()
            await self._news.wait()
