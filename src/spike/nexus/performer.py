"""Who performs the durable effects of rotations. Each is named, so that none can be forgotten by those who test them.

The performer that is shipped performs and nothing else. Tests pass in one that kills the process before or behind a
point, or loses its answer; there is no switch for that here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Point(StrEnum):
    """Every durable effect of a rotation, a rollback, an abort and a finalization."""

    PREPARED = "keyring: prepared"
    STAGE = "Keepers: shares staged"
    DISTRIBUTED = "keyring: distributed"
    PENDING = "places: pending backup"
    BACKED_UP = "keyring: backed up"
    FLIP = "keyring: flip"
    CLEAR_PENDING = "places: pending backup removed"
    COMMIT = "Keepers: shares committed"
    BATCH = "records: batch"
    VERIFIED = "keyring: verified"
    FINALIZING = "keyring: finalizing"
    REOPENED = "keyring: reopened"
    PURGE = "store: purged"
    FINALIZED = "keyring: finalized"
    DROPPED = "keyring: dropped"
    WITHDRAW = "Keepers: shares withdrawn"
    HELD = "keyring: paused or resumed"
    PACED = "keyring: paced"
    NOTED = "keyring: noted"
    SET_ASIDE = "records: set aside"


class Performer:
    """Performs each effect as it is."""

    async def do(self, _point: Point, act: Callable[[], Awaitable[T]]) -> T:
        """Perform one durable effect and return what it gives."""
        return await act()
