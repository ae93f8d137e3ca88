"""How much one user, and all users together, may take of Authority. Pure counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from spike.authority.process import Uid


@dataclass(frozen=True, slots=True)
class Limit:
    """The most there may be at a time."""

    of_user: int
    of_all: int


class Admission:
    """Counts what is there now."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._taken: Counter[Uid] = Counter()

    @property
    def total(self) -> int:
        """How many are there now."""
        return self._taken.total()

    def enter(self, uid: Uid) -> bool:
        """Take one place, if there is one; `leave` gives it back."""
        if self._taken[uid] >= self._limit.of_user or self.total >= self._limit.of_all:
            return False
        self._taken[uid] += 1
        return True

    def leave(self, uid: Uid) -> None:
        """Give one place back."""
        self._taken[uid] -= 1
        if not self._taken[uid]:
            # A counter for each user that ever called would grow without end.
            del self._taken[uid]

    @contextmanager
    def place(self, uid: Uid) -> Iterator[bool]:
        """Hold one place; gives False if there was none."""
        entered = self.enter(uid)
        try:
            yield entered
        finally:
            if entered:
                self.leave(uid)
