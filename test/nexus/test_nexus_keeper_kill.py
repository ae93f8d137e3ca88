"""Nexus or a Keeper killed at every step of a refresh and of bringing a share back.

Another Nexus starts on what a killed one has left; a killed Keeper has forgotten everything and goes on empty.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from around_kit import PASSWORD, Around, eventually, put, states, surroundings, value
from killer_kit import Killer, Step, Victim, nexus_on
from nexus_kit import RunningNexus
from size import record, seed, size
from spike.error import SpikeError
from spike.lifecycle.supply import KeeperState
from spike.nexus.keeper_refresh import refresh
from spike.nexus.keeper_reshape import reshape, take_leave

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


async def play(
    directory: Path, deed: Deed, kill_at: int | None, victim: Victim = Victim.NEXUS_BEFORE
) -> list[Step]:
    """Do the deed, kill at a step, start again, and require that nothing is lost. Return the steps."""
    async with surroundings(directory, 4 if deed is reshaped else 3, 2) as around:
        killer = Killer(around)
        around.before = killer.keeper_called
        setting = around.setting_of(1, 2, 3)
        async with nexus_on(directory, killer, password=PASSWORD, keepers=setting) as nexus:
            await put(nexus, "a")
            killer.aim(kill_at, victim)
            with contextlib.suppress(SpikeError):
                await deed(nexus, around)
            if not killer.nexus_is_dead:
                killer.rest()
                await require_whole(nexus, around, ended=False)
        killer.rest()
        async with nexus_on(directory, killer, keepers=setting, unattended=True) as nexus:
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
    steps = await play(tmp_path / "whole", DEEDS[name], None)
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
