"""Nexus or a Keeper killed at one durable step, in the process of the test.

A step is a call that reaches a Keeper, a write that reaches the store, or one that reaches a backup place. A killed
Nexus does nothing more anywhere; a killed Keeper has forgotten everything and goes on empty.

killer = Killer(around)
async with nexus_on(directory, killer, born=True, ...) as nexus:
    killer.aim(3, Victim.NEXUS_AFTER)
    ...  # the deed; it ends with an error, or its steps are in killer.steps
killer.rest()
async with nexus_on(directory, killer, ...) as nexus: ...  # the next one
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TypeVar

from around_kit import Around
from nexus_kit import RunningNexus, running
from proxy_store import Proxy
from spike.error import StoreUnavailableError
from spike.nexus.keeper_setting import NO_KEEPERS, KeeperSetting
from spike.nexus.performer import Performer, Point
from spike.nexus.place import Place
from spike.storage.memory import MemoryStore
from spike.storage.protocol import Change, Revision, Store
from spike.storage.registry import open_store

T = TypeVar("T")
_point: ContextVar[str] = ContextVar("point", default="")


class Victim(Enum):
    """Who is killed, and on which side of the effect."""

    NEXUS_BEFORE = "Nexus, before the effect"
    NEXUS_AFTER = "Nexus, after the effect and before its answer"
    KEEPER = "the Keeper that is called, or Keeper 1 at any other step"


NEXUS = (Victim.NEXUS_BEFORE, Victim.NEXUS_AFTER)


class Dead(BaseException):
    """The process is gone: no handler of errors runs in a process that was killed."""


@dataclass(frozen=True)
class Step:
    """One durable effect: what it was, and the point it is named by, where that is known on this side."""

    name: str
    point: str


@dataclass
class Killer:
    """Counts the steps and kills at one of them, once it is told to."""

    around: Around | None = None
    fault: type[BaseException] = StoreUnavailableError
    """What whoever is in a killed Nexus meets: an error, with which loops and calls end, or `Dead`."""
    steps: list[Step] = field(default_factory=list)
    nexus_is_dead: bool = False
    _counts: bool = False
    _kill_at: int | None = None
    _victim: Victim = Victim.NEXUS_BEFORE

    def aim(self, kill_at: int | None, victim: Victim = Victim.NEXUS_BEFORE) -> None:
        """Count from now, and kill at the step with this number, from 0; with None at none."""
        self.rest()
        self._counts, self._kill_at, self._victim, self.steps = True, kill_at, victim, []

    def rest(self) -> None:
        """Count no more and kill nobody; whoever was killed has been started again."""
        self._counts = self.nexus_is_dead = False

    async def keeper_called(self, index: int, action: str) -> None:
        self.step(f"{action} at Keeper {index}", index)

    def step(self, name: str, keeper: int = 1) -> None:
        """Take note that an effect is about to be, or kill before it."""
        if self.nexus_is_dead:
            raise self.fault("a dead Nexus does nothing")
        if not self._counts:
            return
        self.steps.append(Step(name, _point.get()))
        if len(self.steps) - 1 != self._kill_at:
            return
        if self._victim is Victim.KEEPER:
            assert self.around is not None
            self.around.keepers[keeper].safe.wipe()
        else:
            self.nexus_is_dead = True
            if self._victim is Victim.NEXUS_BEFORE:
                raise self.fault("killed")

    def behind(self) -> None:
        """The effect is done; a Nexus that was killed behind it does not learn that."""
        if self.nexus_is_dead:
            raise self.fault("killed")

    async def mortal(self, name: str, act: Callable[[], Awaitable[T]]) -> T:
        """Do one effect as a step."""
        self.step(name)
        done = await act()
        self.behind()
        return done


class KilledStore(Proxy):
    """A store that a killed Nexus can no longer write to, and whose last answer it may not see."""

    def __init__(self, store: Store, killer: Killer) -> None:
        super().__init__(store)
        self.killer = killer

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        return await self.killer.mortal(
            "a write to the store", lambda: self.real.apply(changes, fence=fence)
        )

    async def purge(self, budget_bytes: int) -> int:
        return await self.killer.mortal(
            "a purge of the store", lambda: self.real.purge(budget_bytes)
        )


def is_dead(nexus: RunningNexus) -> bool:
    """Tell whether this Nexus, which `nexus_on` runs, was killed."""
    assert isinstance(nexus.store, KilledStore)
    return nexus.store.killer.nexus_is_dead


class MortalStore(MemoryStore):
    """A store in memory whose process is gone at a step, and which the next process finds."""

    def __init__(self) -> None:
        super().__init__()
        self.killer = Killer(fault=Dead)

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        act = super().apply
        return await self.killer.mortal("apply", lambda: act(changes, fence=fence))

    async def set_aside(self, name: str) -> None:
        act = super().set_aside
        await self.killer.mortal("set aside", lambda: act(name))

    async def bring_back(self, name: str, present_as: str | None) -> None:
        move_away, bring_back = super().set_aside, super().bring_back
        if present_as is not None:  # two renames, and a process can die between them
            await self.killer.mortal("move away", lambda: move_away(present_as))
        await self.killer.mortal("bring back", lambda: bring_back(name, None))

    async def erase(self) -> None:
        await self.killer.mortal("erase", super().erase)


@dataclass(frozen=True, slots=True)
class KilledPlace(Place):
    """A backup place that a killed Nexus can no longer write to."""

    killer: Killer

    def _write(self, path: Path, raw: bytes) -> None:
        self.killer.step(f"a write of {path.suffix[1:]} to the place")
        Place._write(self, path, raw)
        self.killer.behind()

    def remove_pending(self, store_id: str) -> None:
        self.killer.step("a removal at the place")
        Place.remove_pending(self, store_id)
        self.killer.behind()


class NamingPerformer(Performer):
    """Performs as the shipped one does, and lets each write know by which point it is named."""

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        token = _point.set(point.value)
        try:
            return await act()
        finally:
            _point.reset(token)


@contextlib.asynccontextmanager
async def nexus_on(
    directory: Path,
    killer: Killer,
    *,
    password: bytes | None = None,
    keepers: KeeperSetting = NO_KEEPERS,
    unattended: bool = False,
) -> AsyncIterator[RunningNexus]:
    """Run a Nexus on the store in `data` and the backups in `place`; with a `password` it is born there."""
    store = await open_store("sqlite", directory / "data")
    try:
        async with running(
            store=KilledStore(store, killer),
            places=(KilledPlace(directory / "place", killer),),
            ca=None if killer.around is None else killer.around.ca,
            born=password is not None,
            password=password,
            keepers=keepers,
            unattended=unattended,
            performer=NamingPerformer(),
        ) as nexus:
            yield nexus
    finally:
        await store.close()
