"""A store whose process dies at its k-th durable write, before or after it, and can be found again by another one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from spike.storage.memory import MemoryStore
from spike.storage.protocol import Change, Revision

_Result = TypeVar("_Result")


class Dead(BaseException):
    """The process is gone: no handler of errors runs in a process that was killed."""


class MortalStore(MemoryStore):
    """Counts its durable writes in `writes`; dies at number `dies_at`, from 1."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.dies_at = 0
        self.after = False
        self.names: list[str] = []

    def live_again(self) -> None:
        """Let the next process find what the last one left."""
        self.writes, self.dies_at = 0, 0

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        return await self._mortal(
            "apply", lambda: super(MortalStore, self).apply(changes, fence=fence)
        )

    async def set_aside(self, name: str) -> None:
        await self._mortal("set aside", lambda: super(MortalStore, self).set_aside(name))

    async def bring_back(self, name: str, present_as: str | None) -> None:
        if present_as is not None:  # two renames, and a process can die between them
            await self._mortal("move away", lambda: super(MortalStore, self).set_aside(present_as))
        await self._mortal("bring back", lambda: super(MortalStore, self).bring_back(name, None))

    async def erase(self) -> None:
        await self._mortal("erase", super().erase)

    async def _mortal(self, name: str, act: Callable[[], Awaitable[_Result]]) -> _Result:
        if self.dies_at and self.writes >= self.dies_at:
            raise Dead  # whatever the dead process would still do
        self.writes += 1
        self.names.append(name)
        if self.writes == self.dies_at and not self.after:
            raise Dead
        done = await act()
        if self.writes == self.dies_at:
            raise Dead
        return done
