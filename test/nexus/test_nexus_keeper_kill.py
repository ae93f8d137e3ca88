"""Nexus or a Keeper killed at every step of a refresh and of bringing a share back.

A step is a call that reaches a Keeper or a write that reaches the store. A killed Nexus does nothing more, neither
here nor there, and another one starts on what is left; a killed Keeper has forgotten everything and goes on empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from around_kit import PASSWORD, Around, eventually, put, states, surroundings, value
from nexus_kit import RunningNexus, running
from size import record, seed, size
from spike.error import SpikeError, StoreUnavailableError
from spike.lifecycle.supply import KeeperState
from spike.nexus.keeper_refresh import refresh
from spike.nexus.keeper_reshape import reshape, take_leave
from spike.nexus.keeper_setting import KeeperSetting
from spike.storage.protocol import Change, Revision, Store
from spike.storage.registry import open_store


class Victim(Enum):
    """Who is killed, and on which side of the effect."""

    NEXUS_BEFORE = "Nexus, before the effect"
    NEXUS_AFTER = "Nexus, after the effect and before its answer"
    KEEPER = "the Keeper that is called, or Keeper 1 at a write"


@dataclass
class Killer:
    """Counts the steps and kills at one of them."""

    around: Around
    kill_at: int | None = None
    victim: Victim = Victim.NEXUS_BEFORE
    steps: list[str] = field(default_factory=list)
    nexus_is_dead: bool = False
    armed: bool = False

    async def keeper_called(self, index: int, action: str) -> None:
        await self._step(f"{action} at Keeper {index}", index)

    async def _step(self, name: str, keeper: int) -> None:
        if self.nexus_is_dead:
            raise StoreUnavailableError("a dead Nexus calls nobody")
        if not self.armed:
            return
        self.steps.append(name)
        if len(self.steps) - 1 != self.kill_at:
            return
        if self.victim is Victim.KEEPER:
            self.around.keepers[keeper].safe.wipe()
        else:
            self.nexus_is_dead = True
            if self.victim is Victim.NEXUS_BEFORE:
                raise StoreUnavailableError("killed")

    async def write(self, apply: Callable[[], Awaitable[Any]]) -> Any:
        await self._step("a write to the store", 1)
        done = await apply()
        if self.nexus_is_dead:
            raise StoreUnavailableError("killed")
        return done


class KilledStore:
    """A store that a killed Nexus can no longer write to, and whose last answer it may not see."""

    def __init__(self, store: Store, killer: Killer) -> None:
        self._store = store
        self._killer = killer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        done: tuple[Revision, ...] = await self._killer.write(
            lambda: self._store.apply(changes, fence=fence)
        )
        return done


@contextlib.asynccontextmanager
async def nexus_on(
    around: Around, killer: Killer, *, born: bool = False, unattended: bool = False
) -> AsyncIterator[RunningNexus]:
    setting: KeeperSetting = around.setting_of(1, 2, 3)
    store = await open_store("sqlite", around.directory / "data")
    try:
        wrapped: Any = KilledStore(store, killer)
        async with running(
            store=wrapped,
            place=around.directory / "place",
            ca=around.ca,
            born=born,
            password=PASSWORD if born else None,
            keepers=setting,
            unattended=unattended,
        ) as nexus:
            yield nexus
    finally:
        await store.close()


Deed = Callable[[RunningNexus, Around], Awaitable[None]]


async def refreshed(nexus: RunningNexus, _around: Around) -> None:
    await refresh(nexus.keepers, "nexus", least=3)
    await nexus.keepers.look()


async def supplied(nexus: RunningNexus, around: Around) -> None:
    around.keepers[2].safe.wipe()
    await nexus.keepers.look()


async def reshaped(nexus: RunningNexus, around: Around) -> None:
    await reshape(nexus.keepers, around.setting_of(4, 3, 2).peers, 3, "nexus")
    await nexus.keepers.look()
    await take_leave(nexus.keepers)


DEEDS: dict[str, Deed] = {"refresh": refreshed, "supply": supplied, "reshape": reshaped}
COUNT: dict[str, int] = {"refresh": 15, "supply": 6, "reshape": 16}
"""How many steps each has at least."""


async def play(directory: Path, deed: Deed, kill_at: int | None, victim: Victim) -> list[str]:
    """Do the deed, kill at a step, start again, and require that nothing is lost. Return the steps."""
    async with surroundings(directory, 4 if deed is reshaped else 3, 2) as around:
        killer = Killer(around, kill_at, victim)
        around.before = killer.keeper_called
        async with nexus_on(around, killer, born=True) as nexus:
            await put(nexus, "a")
            killer.armed = True
            with contextlib.suppress(SpikeError):
                await deed(nexus, around)
            killer.armed = False
            if not killer.nexus_is_dead:
                await require_whole(nexus, around, ended=False)
        killer.nexus_is_dead = False
        async with nexus_on(around, killer, unattended=True) as nexus:
            await eventually(lambda: nexus.vault.is_open)
            await require_whole(nexus, around, ended=True)
        return killer.steps


async def require_whole(nexus: RunningNexus, around: Around, *, ended: bool) -> None:
    """Require that everything is readable and writable and that all Keepers hold the one set in force.

    `ended`: what was begun must have ended, too. Where the loop does not run, nobody ends what has failed.
    """
    await nexus.keepers.look()
    await nexus.keepers.look()
    assert await value(nexus, "a") == "a"
    await put(nexus, "a")
    await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)
    if not ended:
        return
    await eventually(lambda: nexus.vault.opened.document.operation is None)
    await eventually(lambda: not nexus.vault.opened.document.leaving)
    await nexus.keepers.look()
    (in_force,) = nexus.vault.opened.document.share_sets
    members = {view.link.peer.address.port for view in nexus.keepers.views}
    for keeper in around.keepers.values():
        is_member = keeper.server.port in members
        assert keeper.committed_set == (in_force.id if is_member else None)
    await eventually(lambda: all(keeper.staged_set is None for keeper in around.keepers.values()))


@pytest.mark.parametrize("name", DEEDS)
async def test_a_kill_at_any_step_loses_nothing_and_is_made_good(tmp_path: Path, name: str) -> None:
    number = seed()
    chance = random.Random(number)
    steps = await play(tmp_path / "whole", DEEDS[name], None, Victim.NEXUS_BEFORE)
    assert len(steps) >= COUNT[name], steps
    cases = [(step, victim) for step in range(len(steps)) for victim in Victim]
    chosen = chance.sample(cases, min(len(cases), size(test=12, proof=len(cases))))
    for step, victim in chosen:
        print(f"{name}: {victim.value}, at step {step} ({steps[step]}), seed {number}")
        directory = tmp_path / f"{step}-{victim.name}"
        directory.mkdir()
        async with asyncio.timeout(60):
            await play(directory, DEEDS[name], step, victim)
    record(f"kills at a step of {name}", len(chosen), "nothing lost, made good", seed=number)
