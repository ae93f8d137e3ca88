"""How much one user, and all users together, may take of Authority. Pure counting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

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


class Guest(Protocol):
    """A connection, as far as its right to stay goes."""

    def is_needed(self) -> bool:
        """Tell whether a call is open on it."""


GuestT = TypeVar("GuestT", bound=Guest)


class Guests(Generic[GuestT]):
    """Who is connected, by user. When there is no room, the user with the most connections gives one up.

    So users who fill every place between them cannot keep another one out.
    """

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._of_user: dict[Uid, dict[GuestT, None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of_user.values()))

    def admit(self, uid: Uid, guest: GuestT) -> GuestT | None:
        """Count one more, and return the one that has to leave for it: none, another, or itself.

        What is returned is no longer counted. Of the crowded user's it is the newest one without a call,
        else the newest one: old ones with a call are workloads that follow their identity.
        """
        own = self._of_user.setdefault(uid, {})
        own[guest] = None
        if len(own) > self._limit.of_user:
            leaving, crowd = guest, uid
        elif len(self) > self._limit.of_all:
            crowd = max(self._of_user, key=lambda each: len(self._of_user[each]))
            leaving = guest if crowd == uid else self._least_needed(crowd)
        else:
            return None
        self.leave(crowd, leaving)
        return leaving

    def leave(self, uid: Uid, guest: GuestT) -> None:
        """Forget one; nothing happens if it is not counted."""
        own = self._of_user.get(uid, {})
        own.pop(guest, None)
        if not own:
            self._of_user.pop(uid, None)

    def _least_needed(self, uid: Uid) -> GuestT:
        newest_first = list(reversed(self._of_user[uid]))
        return next((each for each in newest_first if not each.is_needed()), newest_first[0])
