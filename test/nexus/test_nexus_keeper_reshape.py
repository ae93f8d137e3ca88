"""Other Keepers and other numbers while Nexus serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from around_kit import Around, eventually, keeper_id, put, states, surroundings, value
from nexus_kit import SUPERUSER, RunningNexus
from spike.lifecycle import refresh as rules
from spike.lifecycle.supply import KeeperState
from spike.nexus.keeper_recovery import recover
from spike.nexus.keeper_reshape import take_leave

RESHAPE = "/v1/keeper?action=reshape"


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    async with surroundings(tmp_path, 5, 2) as made:
        yield made


def peers(around: Around, *indexes: int) -> list[str]:
    return [
        f"https://127.0.0.1:{around.keepers[index].server.port}#{keeper_id(index)}"
        for index in indexes
    ]


async def ask(
    nexus: RunningNexus, shares: int, threshold: int, named: list[str] | None = None
) -> tuple[int, Any]:
    asked = {"shares": shares, "threshold": threshold, "peers": named or []}
    return await nexus.call(SUPERUSER, RESHAPE, asked)


async def test_other_keepers_take_over_and_the_one_that_leaves_forgets(around: Around) -> None:
    before = around.setting_of(1, 2, 3)
    async with around.nexus(born=True, setting=before) as nexus:
        await put(nexus, "a")
        epoch = nexus.vault.opened.document.epoch
        status, told = await ask(nexus, 4, 3, peers(around, 2, 3, 4, 5))
        assert status == 200, told
        assert (told["changed"], told["epoch"], told["threshold"]) == (True, epoch + 1, 3)
        assert [each["state"] for each in told["keepers"]] == ["current"] * 4
        assert told["leaving"] == []
        assert around.keepers[1].committed_set is None
        assert told["setting"] == [
            f"SPIKE_NEXUS_KEEPER_PEERS={','.join(peers(around, 2, 3, 4, 5))}",
            "SPIKE_NEXUS_SHAMIR_SHARES=4",
            "SPIKE_NEXUS_SHAMIR_THRESHOLD=3",
        ]
        event = await nexus.call(SUPERUSER, "/v1/key?action=history", {})
        assert event[1]["events"][-1]["kind"] == "reshape"
        await put(nexus, "b")
    async with around.nexus(setting=before) as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "b") == "b"
        await nexus.keepers.look()
        assert states(nexus) == [KeeperState.CURRENT] * 4
        assert around.keepers[1].committed_set is None
    await around.stop(2)
    async with around.nexus(setting=around.setting_of(2, 3, 4, 5, threshold=3)) as nexus:
        assert await recover(nexus.keepers)
        await nexus.keepers.look()
        assert nexus.keepers.remarks == ()


async def test_only_the_threshold_changes_and_the_present_keepers_stay(around: Around) -> None:
    async with around.nexus(born=True, setting=around.setting_of(1, 2, 3)) as nexus:
        first = around.keepers[1].committed_set
        assert (await ask(nexus, 3, 3))[0] == 200
        assert around.keepers[1].committed_set not in (None, first)
        assert nexus.keepers.threshold == 3
        second = around.keepers[1].committed_set
        status, told = await ask(nexus, 3, 3)
        assert (status, told["changed"]) == (200, False)
        assert around.keepers[1].committed_set == second


async def test_a_threshold_below_the_environments_needs_as_many_keepers_to_stand_for_it(
    around: Around,
) -> None:
    before = around.setting_of(1, 2, 3, 4, 5, threshold=3)
    async with around.nexus(born=True, setting=before) as nexus:
        await put(nexus, "a")
        assert (await ask(nexus, 3, 2, peers(around, 1, 2, 3)))[0] == 200
    async with around.nexus(setting=before) as nexus:
        assert await recover(nexus.keepers)
    for index in (3, 4, 5):
        await around.stop(index)
    async with around.nexus(setting=before) as nexus:
        assert not await recover(nexus.keepers)
        assert "SPIKE_NEXUS_SHAMIR_THRESHOLD" in nexus.keepers.waits_for
    async with around.nexus(setting=around.setting_of(1, 2, 3)) as nexus:
        assert await recover(nexus.keepers)


async def test_a_keeper_that_cannot_take_its_share_stops_it_and_nothing_is_changed(
    around: Around,
) -> None:
    async with around.nexus(born=True, setting=around.setting_of(1, 2, 3)) as nexus:
        document = nexus.vault.opened.document
        await around.stop(4)
        status, told = await ask(nexus, 3, 2, peers(around, 2, 3, 4))
        assert (status, told["err"]) == (400, "refused_keeper")
        assert "Keeper 3 (https://127.0.0.1" in told["message"]
        assert nexus.vault.opened.document == document
        around.lies[5] = lambda action, answer: (
            {**answer, "shard": [1] * 32} if action == "get" else answer
        )
        status, told = await ask(nexus, 3, 2, peers(around, 2, 3, 5))
        assert (status, told["err"]) == (400, "refused_keeper")
        assert nexus.vault.opened.document.share_sets == document.share_sets
        assert all(keeper.staged_set is None for keeper in around.keepers.values())
        around.lies.clear()
        await nexus.keepers.look()
        assert states(nexus) == [KeeperState.CURRENT] * 3


@pytest.mark.parametrize(
    ("shares", "threshold", "named", "said"),
    [
        (3, 4, [], "4 of 3 Keepers cannot bring a root key back"),
        (1, 1, [], "1 of 1 Keepers cannot"),
        (4, 2, [], "3 Keepers are in the keyring, and there are to be 4 shares"),
        (2, 2, ["https://a.example.org"], "1 Keepers are named, and there are to be 2 shares"),
        (2, 2, ["https://a.example.org", "https://a.example.org"], "names one address twice"),
        (2, 2, ["https://a.example.org", "http://b.example.org"], "element 2"),
        (2, 2, ["https://a.example.org,https://b.example.org", "https://c.example.org"], "a comma"),
    ],
)
async def test_what_does_not_go_together_is_refused_with_the_reason(
    around: Around, shares: int, threshold: int, named: list[str], said: str
) -> None:
    async with around.nexus(born=True, setting=around.setting_of(1, 2, 3)) as nexus:
        status, told = await ask(nexus, shares, threshold, named)
        assert (status, told["err"]) == (400, "refused_keeper")
        assert said in told["message"]


async def test_a_keeper_that_left_while_it_was_away_is_told_when_it_comes_back(
    around: Around,
) -> None:
    before = around.setting_of(1, 2, 3)
    async with around.nexus(born=True, setting=before, unattended=True) as nexus:
        await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)
        cut_off = {1}

        async def before_call(index: int, _action: str) -> None:
            if index in cut_off:
                raise ConnectionError("it is cut off")

        around.before = before_call
        status, told = await ask(nexus, 3, 2, peers(around, 2, 3, 4))
        assert status == 200, told
        assert told["leaving"] == [f"https://127.0.0.1:{around.keepers[1].server.port}"]
        assert around.keepers[1].committed_set is not None
        _, status_told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert any("was not seen to erase its old share" in each for each in status_told["remarks"])
        cut_off.clear()
        await eventually(lambda: not nexus.vault.opened.document.leaving)
        assert around.keepers[1].committed_set is None
        assert states(nexus) == [KeeperState.CURRENT] * 3


async def test_writes_and_reads_go_on_meanwhile(around: Around) -> None:
    async with around.nexus(born=True, setting=around.setting_of(1, 2, 3)) as nexus:
        done = asyncio.Event()

        async def work(name: str) -> int:
            count = 0
            while not done.is_set() or count < 3:
                await put(nexus, f"{name}/{count}")
                assert await value(nexus, f"{name}/{count}") == f"{name}/{count}"
                count += 1
            return count

        async def change() -> None:
            for named in ((2, 3, 4), (3, 4, 5), (1, 2, 3, 4, 5), (1, 2, 3)):
                status, told = await ask(nexus, len(named), 2, peers(around, *named))
                assert status == 200, told
            done.set()

        await asyncio.gather(change(), *(work(f"w{n}") for n in range(3)))
        assert {index for index, each in around.keepers.items() if each.committed_set} == {1, 2, 3}


async def test_a_barred_keeper_stays_named_until_a_person_takes_it_back(around: Around) -> None:
    async with around.nexus(born=True, setting=around.setting_of(1, 2, 3)) as nexus:
        vault = nexus.vault
        before, at = vault.opened.document, vault.moment()
        (in_force,) = before.share_sets
        assert (await ask(nexus, 2, 2, peers(around, 1, 2)))[0] == 200
        (after,) = vault.opened.document.share_sets
        gone = rules.leaving(in_force, after, at, barred=frozenset({3}))
        assert [(each.index, each.barred) for each in gone] == [(3, True)]
        later = rules.with_leaving(vault.opened.document, gone, at)
        async with vault.lock:
            await vault.advance(vault.opened.ring.replaced(later))
        await take_leave(nexus.keepers)
        assert vault.opened.document.leaving == gone
        assert (await ask(nexus, 3, 2, peers(around, 1, 2, 3)))[0] == 200
        assert vault.opened.document.leaving == ()


async def test_one_keeper_does_not_stand_in_for_two(around: Around) -> None:
    """Who took a superuser's identity and runs one Keeper would have the root key."""
    async with around.nexus(born=True, setting=around.setting_of(1, 2, 3)) as nexus:
        before = nexus.vault.opened.document.share_sets
        await around.start(6, identity=keeper_id(5))
        both = [f"https://127.0.0.1:{around.keepers[i].server.port}" for i in (5, 6)]
        pinned = f"{both[0]}#{keeper_id(5)}"
        for named in (both, [pinned, both[1]]):
            status, told = await ask(nexus, 2, 2, named)
            assert (status, told["err"]) == (400, "refused_keeper")
            assert "told apart" in told["message"]
        assert nexus.vault.opened.document.share_sets == before
        assert around.keepers[5].staged_set is None
        assert around.keepers[6].staged_set is None
