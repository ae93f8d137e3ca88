"""A Nexus and its Keepers: real ones on loopback, each step taken by the test."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from around_kit import PASSWORD, SECRETS, Around, eventually, put, states, surroundings, value
from nexus_kit import SUPERUSER
from spike.lifecycle.supply import KeeperState
from spike.nexus.keeper_loop import KeeperLoop
from spike.nexus.keeper_recovery import recover
from spike.nexus.watch import MemoryWatch


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    async with surroundings(tmp_path, 3, 2) as made:
        yield made


async def test_a_nexus_that_lost_its_memory_gets_the_root_key_back(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        assert states(nexus) == [KeeperState.CURRENT] * 3
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "a") == "a"
        await put(nexus, "b")
        await nexus.keepers.look()
        assert states(nexus) == [KeeperState.CURRENT] * 3


async def test_an_empty_keeper_is_given_its_share_again(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        before = around.keepers[2].committed_set
        await around.restart(2)
        assert around.keepers[2].committed_set is None
        await nexus.keepers.look()
        after = around.keepers[2].committed_set
        assert states(nexus) == [KeeperState.CURRENT] * 3
        assert before is not None
        assert after is not None
        assert before == after


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_any_two_of_three_bring_the_root_key_back(around: Around, lost: int) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    await around.stop(lost)
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "a") == "a"
        await nexus.keepers.look()
        expected = [KeeperState.CURRENT] * 3
        expected[lost - 1] = KeeperState.UNREACHABLE
        assert states(nexus) == expected
        assert nexus.keepers.status() is not None
        await around.start(lost, around.keepers[lost].server.port)
        await nexus.keepers.look()
        assert states(nexus) == [KeeperState.CURRENT] * 3


async def test_one_of_three_is_too_few_and_what_is_missing_is_said(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    await around.stop(1)
    await around.restart(2)
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert "2 of 3 Keepers have to give their shares" in told["recovery"]
        assert "Keeper 1" in told["recovery"]
        assert "Keeper 2: it holds no share" in told["recovery"]
        assert "Keeper 3" not in told["recovery"]
        assert (await nexus.restore(PASSWORD))[0] == 200
        assert await value(nexus, "a") == "a"


async def test_after_a_restore_the_keepers_have_new_shares(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        before = around.keepers[1].committed_set
    for index in (1, 2, 3):
        await around.restart(index)
    async with around.nexus(unattended=True) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)
        after = around.keepers[1].committed_set
        assert after not in (None, before)
    async with around.nexus(unattended=True) as nexus:
        await eventually(lambda: nexus.vault.is_open)
        assert await value(nexus, "a") == "a"


async def test_a_restore_with_one_keeper_away_supplies_the_others_now_and_this_one_later(
    around: Around,
) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    for index in (1, 2, 3):
        await around.stop(index)
    for index in (1, 3):
        await around.start(index, around.keepers[index].server.port)
    async with around.nexus(unattended=True) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        await eventually(lambda: states(nexus)[::2] == [KeeperState.CURRENT] * 2)
        assert states(nexus)[1] is KeeperState.UNREACHABLE
        await around.start(2, around.keepers[2].server.port)
        await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)


async def test_a_refresh_gives_new_shares_to_all_and_the_old_ones_are_gone(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        epoch = nexus.vault.opened.document.epoch
        before = around.keepers[1].committed_set
        status, told = await nexus.call(SUPERUSER, "/v1/keeper?action=refresh")
        assert (status, told["epoch"]) == (200, epoch + 1)
        assert [each["state"] for each in told["keepers"]] == ["current"] * 3
        assert len({keeper.committed_set for keeper in around.keepers.values()}) == 1
        assert around.keepers[1].committed_set != before
        assert all(keeper.staged_set is None for keeper in around.keepers.values())
        assert nexus.vault.opened.document.operation is None
        await put(nexus, "b")
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "b") == "b"


async def test_a_refresh_without_every_keeper_changes_nothing(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        before = nexus.vault.opened.document
        await around.stop(3)
        status, told = await nexus.call(SUPERUSER, "/v1/keeper?action=refresh")
        assert (status, told["err"]) == (400, "refused_keeper")
        assert nexus.vault.opened.document == before


async def test_writes_go_on_while_the_keyring_is_replaced(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        refreshed = asyncio.Event()

        async def write(name: str) -> int:
            count = 0
            while not refreshed.is_set() or count < 3:
                await put(nexus, f"{name}/{count}")
                count += 1
            return count

        async def refresh_often() -> None:
            for _ in range(5):
                assert (await nexus.call(SUPERUSER, "/v1/keeper?action=refresh"))[0] == 200
            refreshed.set()

        writers = asyncio.gather(*(write(f"w{n}") for n in range(4)))
        await refresh_often()
        for name, count in enumerate(await writers):
            assert await value(nexus, f"w{name}/{count - 1}") == f"w{name}/{count - 1}"


async def test_policies_written_while_the_keyring_is_replaced_are_all_there(around: Around) -> None:
    async with around.nexus(born=True) as nexus:

        async def write(number: int) -> None:
            asked = {
                "name": f"p{number}",
                "spiffeidPattern": "^spiffe://spike.ist/x$",
                "pathPattern": "^x$",
                "permissions": ["read"],
            }
            status, told = await nexus.call(SUPERUSER, "/v1/acl/policy", asked)
            assert status == 200, told

        async def refresh_often() -> None:
            for _ in range(5):
                assert (await nexus.call(SUPERUSER, "/v1/keeper?action=refresh"))[0] == 200

        await asyncio.gather(refresh_often(), *(write(number) for number in range(20)))
        assert {policy.name for policy in nexus.vault.opened.policies.all()} == {
            f"p{number}" for number in range(20)
        }
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert len(nexus.vault.opened.policies.all()) == 20


async def test_an_init_against_the_keepers_of_another_store_is_refused(
    around: Around, tmp_path: Path
) -> None:
    async with around.nexus(born=True):
        pass
    other = replace(around, directory=tmp_path / "other")
    async with other.nexus() as nexus:
        asked = await nexus.seal(SUPERUSER, PASSWORD)
        status, told = await nexus.call(
            SUPERUSER, "/v1/operator/init", {**asked, "slotName": "ada"}
        )
        assert (status, told["err"]) == (400, "refused_foreign")
        assert "Keeper 1 holds a share" in told["message"]
        assert await nexus.store.census() == {}


async def test_an_init_without_every_keeper_is_refused(around: Around) -> None:
    await around.stop(2)
    async with around.nexus() as nexus:
        asked = await nexus.seal(SUPERUSER, PASSWORD)
        status, told = await nexus.call(
            SUPERUSER, "/v1/operator/init", {**asked, "slotName": "ada"}
        )
        assert (status, told["err"]) == (400, "refused_keeper")
        assert "Keeper 2" in told["message"]
        assert await nexus.store.census() == {}


async def test_an_init_gives_each_keeper_its_share_and_leaves_nothing_when_it_fails(
    around: Around,
) -> None:
    async with around.nexus() as nexus:
        asked = await nexus.seal(SUPERUSER, b"weak")
        target = "/v1/operator/init"
        assert (await nexus.call(SUPERUSER, target, {**asked, "slotName": "ada"}))[0] == 400
        around.lies[2] = lambda action, told: (
            {"err": "api_bad_request"} if action == "get" else told
        )
        asked = await nexus.seal(SUPERUSER, PASSWORD)
        status, told = await nexus.call(SUPERUSER, target, {**asked, "slotName": "ada"})
        assert (status, told["err"]) == (400, "refused_keeper")
        assert await nexus.store.census() == {}
        assert all(keeper.staged_set is None for keeper in around.keepers.values())
        around.lies.clear()
        asked = await nexus.seal(SUPERUSER, PASSWORD)
        status, told = await nexus.call(SUPERUSER, target, {**asked, "slotName": "ada"})
        assert status == 200, told
        assert states(nexus) == [KeeperState.CURRENT] * 3


async def test_a_store_with_the_keepers_of_another_one_does_not_come_back_by_itself(
    around: Around, tmp_path: Path
) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    for index in (1, 2, 3):
        await around.restart(index)
    other = replace(around, directory=tmp_path / "other")
    async with other.nexus(born=True) as nexus:
        await put(nexus, "b")
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        assert "it holds a share of another store only" in nexus.keepers.waits_for
        status, told = await nexus.restore(PASSWORD)
        assert (status, told["err"]) == (400, "refused_foreign")


async def test_a_share_of_a_later_set_is_told_as_what_an_old_copy_looks_like(
    around: Around,
) -> None:
    data, old = around.directory / "data", around.directory / "old"
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    shutil.copytree(data, old)
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert (await nexus.call(SUPERUSER, "/v1/keeper?action=refresh"))[0] == 200
    shutil.rmtree(data)
    shutil.move(old, data)
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        assert "it holds a share of epoch 2, and the store is at epoch 1" in nexus.keepers.waits_for


async def test_an_old_copy_of_the_store_is_noticed_by_the_keepers_anchors(around: Around) -> None:
    data, old, new = (around.directory / name for name in ("data", "old", "new"))
    async with around.nexus(born=True, place=False) as nexus:
        await put(nexus, "a")
    shutil.copytree(data, old)
    async with around.nexus(place=False) as nexus:
        assert await recover(nexus.keepers)
        await nexus.keepers.look()
        asked = {
            "name": "p",
            "spiffeidPattern": "^spiffe://spike.ist/x$",
            "pathPattern": "^x$",
            "permissions": ["read"],
        }
        acknowledged = asyncio.create_task(nexus.call(SUPERUSER, "/v1/acl/policy", asked))
        await eventually(lambda: not nexus.vault.guard.is_anchored)
        assert not acknowledged.done()
        await nexus.keepers.look()
        assert (await acknowledged)[0] == 200
    shutil.move(data, new)
    shutil.copytree(old, data)
    async with around.nexus(place=False) as nexus:
        assert not await recover(nexus.keepers)
        assert "old copy" in nexus.keepers.waits_for
        status, told = await nexus.restore(PASSWORD)
        assert (status, told["err"]) == (400, "refused_stale_store")
    shutil.rmtree(data)
    shutil.move(new, data)
    async with around.nexus(place=False) as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "a") == "a"


async def test_without_a_place_writes_wait_until_enough_keepers_hold_the_anchor(
    around: Around,
) -> None:
    async with around.nexus(born=True) as nexus:
        shutil.rmtree(around.directory / "place")
        await nexus.vault.renew_places()
        asked = {"path": "a", "values": {"k": "a"}}
        assert (await nexus.call(SUPERUSER, SECRETS, asked))[0] == 503
        await around.stop(1)
        await nexus.keepers.look()
        assert (await nexus.call(SUPERUSER, SECRETS, asked))[0] == 200
        assert (await nexus.call(SUPERUSER, "/v1/keeper?action=refresh"))[0] == 400
        await around.stop(2)
        await nexus.vault.renew_places()
        await nexus.keepers.look()
        assert (await nexus.call(SUPERUSER, SECRETS, asked))[0] == 503


@pytest.mark.parametrize("which", ["root", "record"])
async def test_a_key_that_is_not_what_it_was_is_fetched_again(around: Around, which: str) -> None:
    async with around.nexus(born=True, unattended=True) as nexus:
        await put(nexus, "a")
        ring = nexus.vault.opened.ring
        key = ring.root if which == "root" else ring.active_record.key
        with key.view() as view:
            view[7] ^= 1
        assert MemoryWatch(nexus.vault).last.wrong_keys
        nexus.vault.changed.set()
        await eventually(lambda: not nexus.vault.stops)
        assert nexus.vault.opened.ring is not ring
        assert await value(nexus, "a") == "a"
        await put(nexus, "b")
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "b") == "b"


async def test_the_loop_ends_also_when_a_change_comes_with_the_end(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        setting = replace(nexus.keepers.roster.setting, interval_s=60.0)
        nexus.keepers.roster.setting = setting
        for steps in range(6):
            loop = asyncio.create_task(KeeperLoop(nexus.keepers).run())
            looks = len(around.calls)
            await eventually(lambda before=looks: len(around.calls) >= before + 3)  # type: ignore[misc]
            await nexus.keepers.look()
            nexus.vault.changed.set()
            for _ in range(steps):
                await asyncio.sleep(0)
            loop.cancel()
            ended, _ = await asyncio.wait([loop], timeout=10)
            assert ended, f"it goes on, {steps} steps after the change"
