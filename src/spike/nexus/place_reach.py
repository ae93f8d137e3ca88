"""Reaching a disk that may never answer: a backup place is often a network mount, and such a mount can hang for ever.

Each call runs in a thread of its own and is waited for within a limit. One that still hangs is left behind, and the
next ones fail at once until it has ended: so no threads pile up, and nothing overtakes a write that is under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from spike.error import StoreUnavailableError

LIMIT_S: Final = 10.0
P = ParamSpec("P")
T = TypeVar("T")


class Reach:
    """The one way to one place."""

    def __init__(self, name: str, limit_s: float | None = None) -> None:
        self._name = name
        self._limit_s = LIMIT_S if limit_s is None else limit_s
        self._turn = asyncio.Lock()
        self._last: asyncio.Future[object] | None = None
        self._hangs = False

    @property
    def is_free(self) -> bool:
        """Whether no call is under way, also none that nobody waits for any more."""
        return self._last is None or self._last.done()

    async def call(self, act: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `act` returns, called in a thread; one call at a time.

        Raises:
            StoreUnavailableError: it has not ended in time, or one before it has not. It may still have its effect.
        """
        async with self._turn:
            if self._last is not None and not self.is_free:
                # Somebody stopped waiting for it.
                await self._ended(self._last, 0.0 if self._hangs else self._limit_s)
            future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
            future.add_done_callback(_look_at)
            self._last = future  # type: ignore[assignment]  # whatever it gives, only its end counts
            # A daemon: one that never ends must not keep the program from ending.
            threading.Thread(
                target=_run,
                args=(future, lambda: act(*args, **kwargs)),
                name=f"place {self._name}",
                daemon=True,
            ).start()
            await self._ended(future, self._limit_s)
            return future.result()

    async def _ended(self, future: asyncio.Future[T], limit_s: float) -> None:
        await asyncio.wait({future}, timeout=limit_s)
        self._hangs = not future.done()
        if self._hangs:
            raise StoreUnavailableError(f"the backup place {self._name} does not answer")


def _run(future: asyncio.Future[T], act: Callable[[], T]) -> None:
    try:
        result = act()
    except BaseException as error:  # noqa: BLE001  whatever it is, it belongs to who waits
        _settle(future, lambda error=error: future.set_exception(error))  # type: ignore[misc]
    else:
        _settle(future, lambda: future.set_result(result))


def _settle(future: asyncio.Future[T], settle: Callable[[], None]) -> None:
    # The loop may have ended meanwhile: then nobody wants to know.
    with contextlib.suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(settle)


def _look_at(future: asyncio.Future[T]) -> None:
    # Of one that was left behind nobody else asks how it ended, and asyncio would complain about that.
    if not future.cancelled():
        future.exception()
