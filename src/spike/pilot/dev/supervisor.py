"""Keeps the parts running: starts them in steps, starts again what dies, stops them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from spike.error import SettingError, SpikeError, UnreachableError
from spike.pilot.dev.backoff import FIRST_PAUSE_S, Backoff
from spike.pilot.dev.part import Part, RunningPart, last_words

# Before that, a part that neither works nor ends is given up.
START_LIMIT_S: Final = 60.0

# Returns when the part does its work; is cancelled when it dies before.
Ready = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Supervised:
    """A part, how to know that it is ready, and what to do each time it is."""

    part: Part
    ready: Ready
    served: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Death:
    """A part ended that nobody had stopped; it is started again after `pause_s`."""

    name: str
    code: int
    pause_s: float
    last_words: str

    @property
    def how(self) -> str:
        """How it ended, in words."""
        if self.code < 0:
            return f"was killed ({signal.Signals(-self.code).name})"
        return f"ended with code {self.code}"


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A part that had died could not be started again; that is tried again after `pause_s`."""

    name: str
    message: str
    pause_s: float


class Supervisor:
    """Runs parts from `start` to `stop`, on one event loop."""

    def __init__(self, tell: Callable[[Death | NotStarted], None]) -> None:
        """`tell` is called for each death, and each start after it that fails."""
        self._tell = tell
        self._kept: list[tuple[Supervised, asyncio.Task[None]]] = []
        self._running: dict[str, RunningPart] = {}

    async def start(self, *together: Supervised) -> None:
        """Start parts at the same time and return once all are ready; they are kept from then on.

        Raises:
            SettingError: a part died before it was ready; its last words are in the message.
        """
        starts = [asyncio.create_task(self._first_start(each)) for each in together]
        try:
            await asyncio.gather(*starts)
        finally:
            for start in starts:
                start.cancel()
            await asyncio.gather(*starts, return_exceptions=True)
        for each in together:
            task = asyncio.create_task(self._keep(each), name=each.part.name)
            self._kept.append((each, task))

    async def failed(self) -> None:
        """Wait for ever, or raise what kept a part from being kept: a fault of ours."""
        await asyncio.gather(*(task for _, task in self._kept))

    async def stop(self) -> None:
        """Stop the parts, the last one first. Idempotent."""
        while self._kept:
            supervised, task = self._kept.pop()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._end(supervised.part.name)
        for name in tuple(self._running):  # one that did not get ready
            await self._end(name)

    def kill(self) -> None:
        """End everything at once, without order."""
        for running in self._running.values():
            running.kill()

    async def _end(self, name: str) -> None:
        running = self._running.get(name)
        if running is not None:
            await running.stop()
            del self._running[name]

    async def _first_start(self, supervised: Supervised) -> None:
        part = supervised.part
        running = self._start(part)
        try:
            async with asyncio.timeout(START_LIMIT_S):
                code = await _ready_or_dead(supervised, running)
        except TimeoutError:
            raise SettingError(
                f"{part.name} does not get ready within {START_LIMIT_S:g} s", f"see {part.log}"
            ) from None
        if code is not None:
            raise SettingError(
                f"{part.name} does not start: {last_words(part.log) or f'it ended with code {code}'}",
                f"see {part.log}",
            )

    def _start(self, part: Part) -> RunningPart:
        running = RunningPart(part)
        self._running[part.name] = running
        return running

    async def _keep(self, supervised: Supervised) -> None:
        """Wait for each death and start the part again. Ends only by cancellation."""
        part, backoff, is_ready = supervised.part, Backoff(), True
        while True:
            running = self._running[part.name]
            code = await (_served_until_dead(supervised, running) if is_ready else running.ended())
            backoff = backoff.after_death(running.ran_s)
            self._tell(Death(part.name, code, backoff.pause_s, last_words(part.log)))
            await asyncio.sleep(backoff.pause_s)
            backoff = await self._start_again(part, backoff)
            is_ready = await _ready_or_dead(supervised, self._running[part.name]) is None

    async def _start_again(self, part: Part, backoff: Backoff) -> Backoff:
        """Start a part as soon as that is possible; return the pause to go on from."""
        while True:
            try:
                self._start(part)
            except UnreachableError:  # the one it depends on is away too
                await asyncio.sleep(FIRST_PAUSE_S)
            except SpikeError as error:  # killed before it could begin, no memory for a process, …
                backoff = backoff.after_death(0.0)
                self._tell(NotStarted(part.name, error.message, backoff.pause_s))
                await asyncio.sleep(backoff.pause_s)
            else:
                return backoff


async def _ready_or_dead(supervised: Supervised, running: RunningPart) -> int | None:
    """Wait until the part is ready: None; or return the code it ended with before that."""
    ready = asyncio.ensure_future(supervised.ready())
    ended = asyncio.create_task(running.ended())
    try:
        await asyncio.wait((ready, ended), return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            return ended.result()
        ready.result()
        return None
    finally:
        await _cancel(ready)
        await _cancel(ended)


async def _served_until_dead(supervised: Supervised, running: RunningPart) -> int:
    """Do what is due now that the part is ready, until it ends; return its code."""
    served = asyncio.ensure_future(supervised.served())
    ended = asyncio.create_task(running.ended())
    try:
        await asyncio.wait((served, ended), return_when=asyncio.FIRST_COMPLETED)
        if served.done():
            served.result()
        return await ended
    finally:
        await _cancel(served)
        await _cancel(ended)


async def _cancel(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
