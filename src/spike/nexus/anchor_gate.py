"""Nothing is acknowledged before somebody outside of the store knows of the last change of keys and rights.

Changes are counted in turns. An anchor that is made of what holds in one turn speaks for all turns before it.
"""

from __future__ import annotations

import asyncio


class AnchorGate:
    """How many changes there were, and up to which one an anchor is held outside of the store."""

    def __init__(self) -> None:
        self._turn = 0
        self._held = 0
        self._news = asyncio.Event()

    @property
    def turn(self) -> int:
        """The number of the last change. Read it together with what an anchor is made of."""
        return self._turn

    @property
    def is_open(self) -> bool:
        """Whether the anchor of the last change is held."""
        return self._held == self._turn

    def change(self) -> None:
        """Count a change that has just been committed."""
        self._turn += 1

    def hold(self, turn: int) -> None:
        """Take note that the anchor of a turn is held."""
        self._held = max(self._held, turn)
        self._news.set()
        self._news = asyncio.Event()

    async def wait(self, patience_s: float) -> None:
        """Return once the anchor of every change until now is held.

        Raises:
            TimeoutError: it is not within `patience_s`.
        """
        turn = self._turn
        async with asyncio.timeout(patience_s):
            while self._held < turn:
                await self._news.wait()
