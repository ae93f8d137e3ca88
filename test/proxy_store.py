"""Stores seen through a test: a real one, of which some calls do something else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from spike.error import StoreUnavailableError
from spike.storage.protocol import Store


class Proxy:
    """A store seen through a test: what a subclass does not answer, `real` does."""

    def __init__(self, store: Store) -> None:
        self.real = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class Faulty(Proxy):
    """A store that does not answer one of its calls, whether it has done what was asked or not.

    `counted` names the calls that count and may fail.
    """

    def __init__(self, store: Store, *counted: str) -> None:
        super().__init__(store)
        assert all(hasattr(store, name) for name in counted), counted
        self._counted = counted
        self.calls = 0
        self._fail_at = 0
        self._is_done = False

    def __getattr__(self, name: str) -> Any:
        found = super().__getattr__(name)
        return partial(self._through, found) if name in self._counted else found

    def arm(self, fail_at: int, *, is_done: bool) -> None:
        """Count from now, and fail at the call with this number, from 1; with `is_done` only the answer is lost."""
        self.calls, self._fail_at, self._is_done = 0, fail_at, is_done

    async def _through(
        self, call: Callable[..., Awaitable[object]], *given: object, **named: object
    ) -> object:
        self.calls += 1
        if self.calls != self._fail_at:
            return await call(*given, **named)
        if self._is_done:
            await call(*given, **named)
        raise StoreUnavailableError("the disk is full")
