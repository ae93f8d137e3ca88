"""What a storage engine may be able to do beyond the `Store` protocol. Each ability is a protocol of its own.

Whoever needs one asks `isinstance(store, CanSnapshot)` and says so where the engine has none. What an ability promises
is checked by the suite in test/storage/conformance for every engine that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from spike.storage.protocol import Record


class Snapshot(Protocol):
    """All records as they were at one moment, whatever is written meanwhile. Close it: it holds the engine's space."""

    @property
    def fence(self) -> int:
        """The store's fence at that moment."""
        ...

    async def read(self, limit_bytes: int) -> Sequence[Record]:
        """Return the next records in the order of kinds, keys and versions; none at the end.

        They end with the record that brings their blobs to `limit_bytes` (at least 1), or before.

        Raises:
            StoreUnavailableError, StoreCorruptError: it cannot be read on.
        """
        ...

    async def close(self) -> None:
        """Let go of it. Idempotent."""
        ...


@runtime_checkable
class CanSnapshot(Protocol):
    """An engine that shows one moment while it serves."""

    async def snapshot(self) -> Snapshot:
        """Return the store as it is now: with all that was acknowledged before, and with nothing half done.

        Raises:
            StoreUnavailableError: the engine does not answer.
        """
        ...


@runtime_checkable
class CanSetAside(Protocol):
    """An engine that can keep its present state beside an empty one. Names are 1 to 64 of a–z, A–Z, 0–9 and "-".

    Killed at any moment, the present state is where it was or aside whole. Other operations are refused as unavailable
    while it goes on. A state that is aside keeps its fence; the empty one begins at 0.
    """

    async def set_aside(self, name: str) -> None:
        """Move all that is stored aside; the store is empty then, as a new one.

        Raises:
            InputError: the name is none, or taken.
            StoreUnavailableError: it could not be moved; it is as it was.
        """
        ...

    async def asides(self) -> Sequence[str]:
        """Return the names of what is aside, sorted."""
        ...

    async def bring_back(self, name: str, present_as: str | None) -> None:
        """Put what is aside under a name in the place of the present state.

        The present state is set aside as `present_as`; None drops it, which is for an empty one. Killed in between,
        the store is empty, both states are aside, and the same call with None completes it.

        Raises:
            InputError: nothing is aside under this name, or `present_as` is taken.
            StoreUnavailableError: it could not be moved.
        """
        ...


@runtime_checkable
class CanErase(Protocol):
    """An engine that can become as new. What is aside stays."""

    async def erase(self) -> None:
        """Drop every record and the fence, all at one moment.

        Raises:
            StoreUnavailableError: it could not be; everything is still there.
        """
        ...
