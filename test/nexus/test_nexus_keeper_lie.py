"""Keepers that lie: what they can bring about is to be named, and no more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from around_kit import (
    PASSWORD,
    Around,
    Lie,
    Told,
    eventually,
    put,
    states,
    surroundings,
    value,
)
from nexus_kit import SUPERUSER
from spike.lifecycle.supply import KeeperState
from spike.nexus.keeper_recovery import recover

LIAR = 2


@dataclass
class Neighbour:
    """Repeats what another Keeper has answered."""

    heard: dict[str, Told] = field(default_factory=dict)

    def listen(self, action: str, told: Told) -> Told:
        self.heard[action] = told
        return told

    def repeat(self, action: str, told: Told) -> Told:
        return self.heard.get(action, told)


def in_committed(**changes: Any) -> Lie:
    """Lie about what is committed."""

    def lie(action: str, told: Told) -> Told:
        if action == "status" and told.get("committed"):
            return {**told, "committed": {**told["committed"], **changes}}
        return told

    return lie


def in_share(**changes: Any) -> Lie:
    """Lie about the share that is given."""
    return lambda action, told: {**told, **changes} if action == "get" else told


def other_bytes(action: str, told: Told) -> Told:
    """Give a share with one bit changed."""
    if action != "get" or "shard" not in told:
        return told
    return {**told, "shard": [told["shard"][0] ^ 1, *told["shard"][1:]]}


async def never(action: str, told: Told) -> Told:
    """Answer nothing."""
    await asyncio.Event().wait()
    return told


def malformed(_action: str, _told: Told) -> Told:
    return {"committed": 7}


HEX = secrets.token_hex(16)
LIES: dict[str, Lie] = {
    "a later epoch": in_committed(epoch=2**40),
    "another store": in_committed(storeId=HEX),
    "another lineage": in_committed(lineage=HEX),
    "another set": in_committed(setId=HEX),
    "another generation": in_committed(generation=7),
    "another index": in_committed(index=3),
    "a proof it cannot make": in_committed(proof="0" * 64),
    "a share with one bit changed": other_bytes,
    "a share with another tag": in_share(tag="0" * 64),
    "a share of another index": in_share(index=1),
    "a share of another set": in_share(setId=HEX),
    "a share with another threshold": in_share(threshold=1),
    "an anchor of its own": lambda action, told: (
        {**told, "anchor": "AAAA"} if action == "status" else told
    ),
    "something else": malformed,
}


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    async with surroundings(tmp_path, 3, 2) as made:
        yield made


@pytest.mark.parametrize("lie", LIES)
async def test_no_lie_of_one_keeper_keeps_the_key_away(around: Around, lie: str) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    around.lies[LIAR] = LIES[lie]
    async with around.nexus(unattended=True) as nexus:
        await eventually(lambda: nexus.vault.is_open)
        assert await value(nexus, "a") == "a"
        await put(nexus, "b")
        await nexus.keepers.look()
        assert states(nexus)[::2] == [KeeperState.CURRENT] * 2


@pytest.mark.parametrize(
    ("lie", "state"),
    [
        (
            "a later epoch",
            KeeperState.CURRENT,
        ),  # of our own set, which it has proven: no claim against us
        ("another store", KeeperState.FOREIGN),
        ("another lineage", KeeperState.FOREIGN),
        ("another index", KeeperState.SUSPECT),
        ("a proof it cannot make", KeeperState.SUSPECT),
        ("something else", KeeperState.SUSPECT),
    ],
)
async def test_a_lie_about_what_it_holds_is_named(
    around: Around, lie: str, state: KeeperState
) -> None:
    async with around.nexus(born=True) as nexus:
        around.lies[LIAR] = LIES[lie]
        await nexus.keepers.look()
        assert states(nexus) == [KeeperState.CURRENT, state, KeeperState.CURRENT]
        await put(nexus, "a")
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert told["keepers"][1]["state"] == state
        assert told.get("stops") == []


async def test_who_repeats_a_neighbours_answer_is_not_taken_for_it(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        neighbour = Neighbour()
        around.lies[1] = neighbour.listen
        await nexus.keepers.look()
        around.lies[LIAR] = neighbour.repeat
        await nexus.keepers.look()
        assert states(nexus)[LIAR - 1] is KeeperState.SUSPECT
    await around.stop(3)
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        assert "it answers with the share of another Keeper" in nexus.keepers.waits_for


async def test_who_never_answers_holds_nobody_up(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    around.lies[LIAR] = never
    async with around.nexus() as nexus:
        assert await asyncio.wait_for(recover(nexus.keepers), 2)
        assert await value(nexus, "a") == "a"


async def test_as_many_liars_as_the_threshold_are_believed(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    for index in (1, 2):
        around.lies[index] = LIES["another lineage"]
    await around.stop(3)
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        assert f"lineage {HEX}" in nexus.keepers.waits_for


@pytest.mark.parametrize("liars", [*combinations(range(1, 6), 2)], ids=str)
async def test_two_bad_shares_of_five_are_named_and_the_key_comes_back(
    tmp_path: Path, liars: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    async with surroundings(tmp_path, 5, 3) as around:
        async with around.nexus(born=True) as nexus:
            await put(nexus, "a")
        for index in liars:
            around.lies[index] = other_bytes
        async with around.nexus() as nexus:
            assert await recover(nexus.keepers)
            assert await value(nexus, "a") == "a"
            await nexus.keepers.look()
            assert states(nexus) == [KeeperState.CURRENT] * 5
        told = [record.getMessage() for record in caplog.records]
        named = {int(each.split()[1]) for each in told if "gave a wrong share" in each}
        assert named <= set(liars)


async def test_a_witness_that_lies_stops_a_person_until_the_person_decides(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    for index in (1, 3):
        await around.restart(index)
    around.lies[LIAR] = LIES["a later epoch"]
    async with around.nexus() as nexus:
        status, told = await nexus.restore(PASSWORD)
        assert (status, told["err"]) == (400, "refused_stale_store")
        assert f"Keeper {LIAR}" in told["message"]
        around.lies.clear()
        assert (await nexus.restore(PASSWORD))[0] == 200
