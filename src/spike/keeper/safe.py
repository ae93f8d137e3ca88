"""The one thing in a Keeper that changes, and the wiping of what falls out of it."""

from __future__ import annotations

from spike.keeper.holding import Holding
from spike.memory.key_memory import KeyMemory


class Safe:
    """Owns every share value that a Keeper holds. Used on one event loop, and never across an await."""

    def __init__(self) -> None:
        self._holding: Holding[KeyMemory] = Holding()

    @property
    def holding(self) -> Holding[KeyMemory]:
        """What is held now."""
        return self._holding

    def become(self, holding: Holding[KeyMemory]) -> None:
        """Hold this from now on; values that it has no more are overwritten."""
        before, self._holding = self._holding, holding
        kept = {id(value) for value in holding.values()}
        for value in before.values():
            if id(value) not in kept:
                value.wipe()

    def wipe(self) -> None:
        """Hold nothing; every value is overwritten."""
        self.become(Holding())
