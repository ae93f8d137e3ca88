"""Nexus or a Keeper killed at every durable step of a rotation, a rollback, an abort, an emergency and a finalization.

Another Nexus starts on what a killed one has left; it may be killed again. In the end everything that was acknowledged
is there, one generation of each key is active, and nothing lies under a destroyed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import rotating_kit
from around_kit import PASSWORD, Around, eventually, states, surroundings
from killer_kit import Killer, Step, Victim, is_dead, nexus_on
from nexus_kit import SUPERUSER, RunningNexus
from rotating_kit import PATIENCE_S, asked, decrypt, encrypt, generations, get, put
from size import record, seed, size
from spike.error import SpikeError
from spike.lifecycle.keyring import KeyPurpose, Phase
from spike.lifecycle.state import State
from spike.lifecycle.supply import KeeperState

POLICY = {
    "name": "web",
    "spiffeidPattern": "^spiffe://spike\\.ist/web$",
    "pathPattern": "^a/",
    "permissions": ["read"],
}


@dataclass
class Kept:
    """What was acknowledged, and has to be there whatever happens."""

    values: dict[tuple[str, int], str] = field(default_factory=dict)
    blobs: list[dict[str, object]] = field(default_factory=list)

    async def fill(self, nexus: RunningNexus) -> None:
        for path in ("a/live", "a/older", "a/deleted"):
            for version in (1, 2):
                await put(nexus, path, f"{path} {version}")
                self.values[path, version] = f"{path} {version}"
        target = "/v1/store/secrets?action=delete"
        assert (await nexus.call(SUPERUSER, target, {"path": "a/deleted", "versions": [1]}))[
            0
        ] == 200
        assert (await nexus.call(SUPERUSER, "/v1/acl/policy", POLICY))[0] == 200
        self.blobs.append(await encrypt(nexus, b"for others"))

    async def require(self, nexus: RunningNexus) -> None:
        for (path, version), value in self.values.items():
            if (path, version) == ("a/deleted", 1):
                target = "/v1/store/secrets?action=undelete"
                told = await nexus.call(SUPERUSER, target, {"path": path, "versions": [1]})
                assert told[0] == 200, told
            assert await get(nexus, path, version) == value
        status, told = await nexus.call(SUPERUSER, "/v1/acl/policy?action=get", {"id": "web"})
        assert (status, told["pathPattern"]) == (200, POLICY["pathPattern"])
        for blob in self.blobs:
            assert await decrypt(nexus, blob) == b"for others"


Deed = Callable[[RunningNexus], Awaitable[None]]


async def rotated(nexus: RunningNexus) -> None:
    await nexus.rotations.start(asked(window_s=0), SUPERUSER)
    await over(nexus)


async def rolled_back(nexus: RunningNexus) -> None:
    await nexus.rotations.rollback("a test", SUPERUSER)
    # Dropped, it leaves the rotation that it should have taken back as it was.
    await carried_out(nexus)


async def aborted(nexus: RunningNexus) -> None:
    started = await nexus.rotations.start(asked(window_s=0), SUPERUSER)
    with contextlib.suppress(SpikeError):
        await nexus.rotations.abort(SUPERUSER, "a test")
    assert started.id
    await over(nexus)


async def replaced_at_once(nexus: RunningNexus) -> None:
    await nexus.rotations.start(rotating_kit.emergency(), SUPERUSER)
    await over(nexus)


async def carried_out(nexus: RunningNexus) -> None:
    """Wait until nothing is left to do but to wait for the end of a window, or this Nexus is dead."""

    def rests() -> bool:
        rotation = nexus.vault.opened.document.rotation
        return rotation is None or (rotation.phase is Phase.VERIFIED and bool(rotation.window_s))

    await eventually(lambda: rests() or is_dead(nexus), PATIENCE_S)
    await eventually(lambda: not nexus.rotations.is_busy or is_dead(nexus), PATIENCE_S)


async def over(nexus: RunningNexus) -> None:
    """Wait until a rotation has ended, or this Nexus is dead and nothing can."""
    await eventually(
        lambda: nexus.vault.opened.document.rotation is None or is_dead(nexus), PATIENCE_S
    )
    await eventually(lambda: not nexus.rotations.is_busy or is_dead(nexus), PATIENCE_S)


DEEDS: dict[str, Deed] = {
    "rotation": rotated,
    "rollback": rolled_back,
    "abort": aborted,
    "emergency": replaced_at_once,
}


async def play(directory: Path, name: str, kills: Sequence[tuple[int, Victim]]) -> list[Step]:
    """Do the deed, kill at a step; start again, perhaps kill again; require that nothing is lost. Return the steps."""
    async with surroundings(directory, 3, 2) as around:
        killer = Killer(around)
        around.before = killer.keeper_called
        kept, waiting = Kept(), [*kills]
        async with nexus_on(directory, killer, password=PASSWORD, keepers=around.setting) as nexus:
            await kept.fill(nexus)
            if name == "rollback":
                await nexus.rotations.start(asked(), SUPERUSER)
                await rotating_kit.until(nexus, Phase.VERIFIED)
            killer.aim(*(waiting.pop(0) if waiting else (None,)))
            with contextlib.suppress(SpikeError):
                await DEEDS[name](nexus)
            first = killer.steps
        while waiting:
            killer.aim(*waiting.pop(0))
            async with following(around, killer) as nexus:
                with contextlib.suppress(SpikeError):
                    await opened(nexus)
                    await carried_out(nexus)
        killer.rest()
        async with following(around, killer) as nexus:
            await opened(nexus)
            rotation = nexus.vault.opened.document.rotation
            if rotation is not None and rotation.window_s:
                # The rollback never began: what it should have taken back stands.
                await nexus.rotations.finalize(SUPERUSER)
            await over(nexus)
            await require_whole(nexus, around, kept, name)
        return first


def following(
    around: Around, killer: Killer
) -> contextlib.AbstractAsyncContextManager[RunningNexus]:
    """Run the Nexus that finds what was left, and does by itself what is to be done."""
    return nexus_on(around.directory, killer, keepers=around.setting, unattended=True)


async def opened(nexus: RunningNexus) -> None:
    await eventually(lambda: nexus.vault.is_open or is_dead(nexus))


async def require_whole(nexus: RunningNexus, around: Around, kept: Kept, name: str) -> None:
    await kept.require(nexus)
    await put(nexus, "a/new", "new")
    document = nexus.vault.opened.document
    assert document.rotation is None
    assert [root.state for root in document.roots].count(State.ACTIVE) == 1
    assert {root.state for root in document.roots} <= {State.ACTIVE, State.DESTROYED}
    live = {k.number for k in document.keys if k.purpose is KeyPurpose.RECORD and k.is_live}
    assert live == {document.active_key(KeyPurpose.RECORD).number}
    assert await generations(nexus) == live
    if name == "emergency" and len(document.roots) > 1:  # once begun, it is never given up
        assert document.active_root.number > 1
    await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)
    (in_force,) = document.share_sets
    assert {keeper.committed_set for keeper in around.keepers.values()} == {in_force.id}
    await eventually(lambda: all(keeper.staged_set is None for keeper in around.keepers.values()))
    assert not list((around.directory / "place").glob("*.pending"))


@pytest.mark.parametrize("name", DEEDS)
async def test_a_kill_at_any_step_loses_nothing_and_is_made_good(tmp_path: Path, name: str) -> None:
    number = seed()
    chance = random.Random(number)
    whole = tmp_path / "whole"
    whole.mkdir()
    steps = await play(whole, name, [])
    print(f"{name}: {len(steps)} steps")
    unnamed = [step for step in steps if not step.point and "store" in step.name]
    assert not unnamed, unnamed
    cases = [(step, victim) for step in range(len(steps)) for victim in Victim]
    chosen = chance.sample(cases, min(len(cases), size(test=4, proof=len(cases))))
    for step, victim in chosen:
        # Two of three Keepers lost at once are more than what is promised.
        able = [each for each in Victim if each is not Victim.KEEPER or victim is not each]
        second = (chance.randrange(len(steps)), chance.choice(able))
        print(f"{name}: {victim.value}, at {step} ({steps[step]}); then {second}; seed {number}")
        directory = tmp_path / f"{step}-{victim.name}"
        directory.mkdir()
        async with asyncio.timeout(300):
            await play(directory, name, [(step, victim), second])
    record(f"kills at a step of a {name}, twice each", len(chosen), "nothing lost", seed=number)
