"""Whole rotations beside everybody: nothing acknowledged is lost, nothing deleted comes back, no request fails."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from around_kit import PASSWORD, eventually, states, surroundings
from nexus_kit import SUPERUSER, RunningNexus, running
from owner_kit import Busy, CipherUser, Owner, at_work
from rotating_kit import asked, emergency, generations, rotated, until
from size import record, seed, size
from spike.lifecycle.supply import KeeperState
from spike.nexus.performer import Performer

ROUNDS_EACH = 15
"""So many on one store: its keyring tells of every key there ever was."""


async def one_round(nexus: RunningNexus, *, is_urgent: bool) -> int:
    """Rotate, roll back, and rotate again for good or in an emergency; return how many rotations that were."""
    vault = nexus.vault
    before = vault.opened.ring.active_record.generation
    await rotated(nexus)
    between = vault.opened.ring.active_record.generation
    assert await generations(nexus) == {between}, "something is left under the old key"
    await nexus.rotations.rollback("a test", SUPERUSER)
    await until(nexus, "finalized")
    assert vault.opened.ring.active_record.generation == before
    assert await generations(nexus) == {before}, "something is left under the key taken back"
    await rotated(nexus, emergency() if is_urgent else asked(window_s=0))
    await until(nexus, "finalized")
    after = vault.opened.ring.active_record.generation
    assert after > between
    assert await generations(nexus) == {after}, "something is left under the old key"
    return 3


async def beside_everybody(
    nexus: RunningNexus, chance: random.Random, end_s: float
) -> tuple[int, int]:
    """Let everybody work beside rounds until the time is over; return how many requests and rotations there were."""
    await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)
    owners = [Owner(nexus, f"owner{n}", random.Random(chance.random())) for n in range(4)]
    users = [CipherUser(nexus, random.Random(chance.random())) for _ in range(2)]
    everybody: list[Busy] = [*owners, *users]
    rotations = 0
    async with at_work(everybody):
        for number in range(ROUNDS_EACH):
            rotations += await one_round(nexus, is_urgent=number % 2 == 1)
            if asyncio.get_running_loop().time() >= end_s:
                break
    for each in everybody:
        await each.look_at_all()
    run, _ = nexus.verifier.start("a test")
    await nexus.verifier.ended()
    assert (run.outcome, run.tally.named) == ("good", [])
    document = nexus.vault.opened.document
    assert document.rotation is None
    return sum(each.count for each in everybody), rotations


async def test_everybody_goes_on_beside_rotations_a_rollback_and_an_emergency(
    tmp_path: Path,
) -> None:
    number = seed()
    print(f"SPIKE_SEED={number}")
    chance = random.Random(number)
    loop = asyncio.get_running_loop()
    end_s = loop.time() + size(test=0, proof=600)
    requests = rotations = stores = 0
    while not stores or loop.time() < end_s:
        directory = tmp_path / str(stores)
        directory.mkdir()
        stores += 1
        async with (
            surroundings(directory, 3, 2) as around,
            running(
                directory / "data",
                place=directory / "place",
                ca=around.ca,
                born=True,
                password=PASSWORD,
                keepers=around.setting,
                performer=Performer(),
            ) as nexus,
        ):
            done = await beside_everybody(nexus, chance, end_s)
            requests, rotations = requests + done[0], rotations + done[1]
    told = f"{rotations} rotations and rollbacks, no request failed, nothing lost"
    record("requests over mTLS beside whole rotations", requests, told, seed=number)
