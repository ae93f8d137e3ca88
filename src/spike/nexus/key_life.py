"""How long the keys in force may be used, by a clock that is believed; and how much they were used.

Asked at each write, by itself: no task has to run for a key that is too old to be refused.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final

from spike.error import NotReadyError
from spike.lifecycle import due
from spike.lifecycle.believed_time import Belief, Sight, believe
from spike.lifecycle.keyring import KeyPurpose, Keyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.wire.go_time import UnixNs

_NS_PER_S: Final = 1_000_000_000
_ROTATE: Final = "replace it: spike key rotate"
_PURPOSES: Final = (KeyPurpose.RECORD, KeyPurpose.CIPHER, KeyPurpose.ROOT)


def steady_s() -> float:
    """Return the seconds since the machine was started, sleep included: what no clock setting changes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class KeyLife:
    """The age of the keys, in one process."""

    def __init__(self, clock: Callable[[], UnixNs], steady: Callable[[], float] = steady_s) -> None:
        self._clock = clock
        self._steady = steady
        self._first = self._sight()
        self._last_known_s: float | None = None
        self._of: Keyring | None = None
        self._expiry: dict[KeyPurpose, float] = {}

    def note_seen(self, at: datetime) -> None:
        """Take note of a moment before this process began at which Nexus is known to have run."""
        self._last_known_s = max(self._last_known_s or 0.0, at.timestamp())

    def belief(self, document: Keyring) -> Belief:
        """Return which time it is, and whether keys may expire by it."""
        if self._last_known_s is None:
            self._last_known_s = due.newest_date(document).timestamp()
        return believe(self._first, self._sight(), self._last_known_s)

    def require_sealing(self, document: Keyring, purpose: KeyPurpose) -> None:
        """Return if the active record or cipher key may seal what a caller gives.

        Raises:
            NotReadyError: it has been in use for twice its interval.
        """
        expired = self.expired(document, purpose)
        if expired:
            raise NotReadyError(expired, _ROTATE)

    def require_wrapping(self, present: Keyring, following: Keyring) -> None:
        """Return unless a change wraps one more key under a root key that has been in use for too long.

        Raises:
            RefusalError: KEY_EXPIRED.
        """
        expired = self.expired(present, KeyPurpose.ROOT)
        if expired and due.wraps_more(present, following):
            raise RefusalError(Reason.KEY_EXPIRED, expired, _ROTATE)

    def reasons(self, document: Keyring) -> tuple[str, ...]:
        """Return what is not done because a key has been in use for too long."""
        return tuple(filter(None, (self.expired(document, each) for each in _PURPOSES)))

    def expired(self, document: Keyring, purpose: KeyPurpose) -> str:
        """Return why the active key of a purpose may not be used any more, or "" while it may."""
        if self._of is not document:
            dates = ((each, due.expiry(document, each)) for each in _PURPOSES)
            self._expiry = {each: at.timestamp() for each, at in dates if at is not None}
            self._of = document
        expires_s = self._expiry.get(purpose)
        # First the clock alone: what a write pays for. Only a key that seems too old is worth a second look.
        if expires_s is None or self._clock() < expires_s * _NS_PER_S:
            return ""
        belief = self.belief(document)
        if belief.at_s < expires_s or not belief.may_expire:
            return ""
        does = "wraps no more keys" if purpose is KeyPurpose.ROOT else "seals nothing more"
        return f"the {purpose} key has been in use for twice its interval and {does}; reads go on"

    @property
    def steady_s(self) -> float:
        """Seconds by the clock that only goes forward."""
        return self._steady()

    def _sight(self) -> Sight:
        return Sight(self._clock() / _NS_PER_S, self._steady())


class SealCount:
    """Records sealed since they were last added up, by generation. One addition for each.

    Threads that seal at the same time may lose a count: it is a number for a schedule, not for a proof.
    """

    def __init__(self) -> None:
        self.record: Counter[int] = Counter()
        self.cipher: Counter[int] = Counter()

    def __bool__(self) -> bool:
        return self.record.total() + self.cipher.total() > 0

    def take(self) -> SealCount:
        """Return what was counted, and begin anew."""
        taken = SealCount()
        taken.record, self.record = self.record, taken.record
        taken.cipher, self.cipher = self.cipher, taken.cipher
        return taken

    def give_back(self, taken: SealCount) -> None:
        """Count again what could not be added up."""
        self.record.update(taken.record)
        self.cipher.update(taken.cipher)
