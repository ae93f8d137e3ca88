"""What goes wrong beside a rotation: it is named, nothing is lost, and what cannot be proven is not destroyed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from around_kit import PASSWORD, Around, eventually, states, surroundings
from nexus_kit import SUPERUSER, RunningNexus, running
from rotating_kit import Holding, asked, emergency, generations, get, put, rotated, seen, until
from spike.error import StoreUnavailableError
from spike.lifecycle.keyring import Phase
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.state import State
from spike.lifecycle.supply import KeeperState
from spike.memory.key_memory import KeyMemory
from spike.nexus.performer import Performer, Point
from spike.storage.protocol import SECRET, SET_ASIDE, Put, Record

T = TypeVar("T")


@contextlib.asynccontextmanager
async def with_keepers(around: Around, *, born: bool = True) -> AsyncIterator[RunningNexus]:
    async with running(
        around.directory / "data",
        place=around.directory / "place",
        ca=around.ca,
        born=born,
        password=PASSWORD if born else None,
        keepers=around.setting,
        unattended=True,
        performer=Performer(),
    ) as nexus:
        await eventually(lambda: nexus.vault.is_open)
        await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * len(around.keepers))
        yield nexus


async def secret_rows(nexus: RunningNexus) -> list[Record]:
    page = await nexus.store.scan(SECRET, "", None, 1000)
    return list(page.items)


async def overwrite(nexus: RunningNexus, record: Record, blob: bytes, generation: int) -> None:
    """Write past SPIKE, as whoever holds the store can."""
    change = Put(record.id, blob, generation, record.revision)
    await nexus.store.apply((change,), fence=None)


async def test_a_keeper_that_is_away_stops_a_planned_rotation_before_it_begins(
    tmp_path: Path,
) -> None:
    async with surroundings(tmp_path, 3, 2) as around, with_keepers(around) as nexus:
        await around.stop(3)
        with pytest.raises(RefusalError, match="Keeper 3") as caught:
            await nexus.rotations.start(asked(), SUPERUSER)
        assert caught.value.reason is Reason.PREFLIGHT
        assert nexus.vault.opened.document.rotation is None
        started = await nexus.rotations.start(
            asked(window_s=0, without=("3",), force=True), SUPERUSER
        )
        assert started.started
        await until(nexus, "finalized")
        await around.restart(3)
        await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)


async def test_a_keeper_lost_on_the_way_drops_the_rotation_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    async with surroundings(tmp_path, 3, 2) as around, with_keepers(around) as nexus:
        await put(nexus, "a", "value")

        async def lose(index: int, action: str) -> None:
            if (index, action) == (2, "stage"):
                around.keepers[2].safe.wipe()
            if (index, action) == (2, "get"):
                around.keepers[2].safe.wipe()

        around.before = lose
        await nexus.rotations.start(asked(), SUPERUSER)
        await eventually(
            lambda: (view := nexus.rotations.view()) is not None and view.phase == "failed"
        )
        view = nexus.rotations.view()
        assert view is not None
        assert "Keeper 2" in view.fault
        around.before = None
        document = nexus.vault.opened.document
        assert document.rotation is None
        assert document.active_root.number == 1
        assert document.roots[1].state is State.DESTROYED
        # The states are of the last look, which may have been before Keeper 2 was emptied.
        await eventually(lambda: all(k.committed_set for k in around.keepers.values()))
        await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)
        await eventually(lambda: all(k.staged_set is None for k in around.keepers.values()))
        assert not list((tmp_path / "place").glob("*.pending"))
        await rotated(nexus, asked(window_s=0))
        assert await get(nexus, "a") == "value"


async def test_a_leaked_keeper_gets_no_share_of_the_new_key(tmp_path: Path) -> None:
    async with surroundings(tmp_path, 3, 2) as around, with_keepers(around) as nexus:
        before = around.keepers[3].committed_set
        request = emergency("keeper:spiffe://spike.ist/spike/keeper/3")
        await nexus.rotations.start(request, SUPERUSER)
        await until(nexus, "finalized")
        (in_force,) = nexus.vault.opened.document.share_sets
        assert [member.index for member in in_force.members] == [1, 2]
        assert around.keepers[1].committed_set == around.keepers[2].committed_set == in_force.id
        assert around.keepers[3].committed_set == before
        assert around.keepers[3].staged_set is None
        (barred,) = nexus.vault.opened.document.leaving
        assert (barred.index, barred.barred) == (3, True)


async def test_an_emergency_without_keepers_bars_the_one_that_had_leaked(tmp_path: Path) -> None:
    async with surroundings(tmp_path, 3, 2) as around, with_keepers(around) as nexus:
        leaked = emergency("keeper:spiffe://spike.ist/spike/keeper/3").emergency
        await nexus.rotations.start(asked(emergency=leaked, without_keepers=True), SUPERUSER)
        await until(nexus, "finalized")
        before = around.keepers[3].committed_set
        await eventually(lambda: bool(nexus.vault.opened.document.share_sets))
        await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 2)
        (in_force,) = nexus.vault.opened.document.share_sets
        assert [member.index for member in in_force.members] == [1, 2]
        assert (around.keepers[3].committed_set, around.keepers[3].staged_set) == (before, None)


async def test_an_emergency_goes_on_with_the_slots_alone(tmp_path: Path) -> None:
    async with surroundings(tmp_path, 3, 2) as around, with_keepers(around) as nexus:
        await put(nexus, "a", "value")
        for index in (2, 3):
            await around.stop(index)
        with pytest.raises(RefusalError, match="1 of 3 Keepers") as caught:
            await nexus.rotations.start(emergency(), SUPERUSER)
        assert "--without-keepers" in caught.value.next_step
        request = asked(emergency=emergency().emergency, without_keepers=True)
        await nexus.rotations.start(request, SUPERUSER)
        await until(nexus, "finalized")
        assert nexus.vault.opened.document.active_root.number == 2
        assert await get(nexus, "a") == "value"


async def test_a_pause_outlives_a_restart(tmp_path: Path) -> None:
    async with surroundings(tmp_path, 3, 2) as around:
        async with with_keepers(around) as nexus:
            for number in range(30):
                await put(nexus, f"a/{number}", "value")
            await nexus.rotations.start(asked(max_rate=1), SUPERUSER)
            await until(nexus, Phase.RE_ENCRYPTING)
            await nexus.rotations.pause(SUPERUSER)
        async with with_keepers(around, born=False) as nexus:
            view = await until(nexus, Phase.RE_ENCRYPTING)
            assert view.paused
            await nexus.rotations.set_max_rate(0, SUPERUSER)
            await nexus.rotations.resume(SUPERUSER)
            await until(nexus, Phase.VERIFIED)
            assert await generations(nexus) == {2}


async def test_a_record_that_does_not_open_keeps_the_old_keys_alive(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a/good", "value")
        await put(nexus, "z/bad", "value")
        (row,) = [row for row in await secret_rows(nexus) if row.id.key == "z/bad"]
        await overwrite(nexus, row, row.blob[:-1] + bytes([row.blob[-1] ^ 1]), row.generation)
        await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        view = await seen(nexus, lambda view: view.paused and bool(view.fault))
        assert "secret z/bad" in view.fault
        document = nexus.vault.opened.document
        assert document.rotation is not None
        assert document.rotation.phase is Phase.RE_ENCRYPTING
        assert await get(nexus, "a/good") == "value"
        (spoilt,) = [each for each in await secret_rows(nexus) if each.id == row.id]
        await overwrite(nexus, spoilt, row.blob, row.generation)
        await nexus.rotations.resume(SUPERUSER)
        await until(nexus, "finalized")
        assert await get(nexus, "z/bad") == "value"


async def test_why_a_rotation_rests_is_told_after_a_restart_too(tmp_path: Path) -> None:
    async with surroundings(tmp_path, 3, 2) as around:
        async with with_keepers(around) as nexus:
            await put(nexus, "a/good", "value")
            await put(nexus, "z/bad", "value")
            (row,) = [row for row in await secret_rows(nexus) if row.id.key == "z/bad"]
            await overwrite(nexus, row, row.blob[:-1] + bytes([row.blob[-1] ^ 1]), row.generation)
            await nexus.rotations.start(asked(window_s=0), SUPERUSER)
            await seen(nexus, lambda view: view.paused and bool(view.fault))
        async with with_keepers(around, born=False) as nexus:
            view = await until(nexus, Phase.RE_ENCRYPTING)
            assert view.paused
            assert "secret z/bad" in view.fault
            (spoilt,) = [each for each in await secret_rows(nexus) if each.id == row.id]
            await overwrite(nexus, spoilt, row.blob, row.generation)
            await nexus.rotations.resume(SUPERUSER)
            assert not (await until(nexus, "finalized")).fault


async def test_a_row_put_back_behind_the_walk_is_set_aside_and_a_person_is_asked(
    tmp_path: Path,
) -> None:
    holding = Holding(Point.VERIFIED)
    async with running(tmp_path / "data", place=tmp_path / "p", performer=holding) as nexus:
        await put(nexus, "a", "first")
        (old,) = await secret_rows(nexus)
        await nexus.rotations.start(asked(), SUPERUSER)
        await holding.reached.wait()
        holding.go_on.set()
        await until(nexus, Phase.VERIFIED)
        (row,) = await secret_rows(nexus)
        await overwrite(nexus, row, old.blob, old.generation)
        await nexus.rotations.finalize(SUPERUSER)
        view = await seen(nexus, lambda view: view.paused and bool(view.fault))
        assert "secret a" in view.fault
        assert nexus.vault.opened.document.roots[0].state is State.SUSPENDED
        page = await nexus.store.scan(SET_ASIDE, "", None, 10)
        assert [record.blob for record in page.items] == [old.blob]


async def test_old_keys_are_wiped_behind_the_last_request(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        root: KeyMemory = nexus.vault.opened.ring.root
        record: KeyMemory = nexus.vault.opened.ring.active_record.key
        await rotated(nexus)
        assert not root.wiped
        with nexus.vault.in_use.one():
            await nexus.rotations.finalize(SUPERUSER)
            await asyncio.sleep(0.2)
            assert not record.wiped
        await until(nexus, "finalized")
        assert root.wiped
        assert record.wiped
        assert not nexus.vault.opened.ring.mismatches()


async def test_the_answer_of_the_flip_may_be_lost(tmp_path: Path) -> None:
    class LosesTheFlip(Performer):
        async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
            if point is Point.FLIP:
                store: Any = nexus.store
                keep = store.apply

                async def lost(*args: Any, **more: Any) -> Any:
                    store.apply = keep
                    await keep(*args, **more)
                    raise StoreUnavailableError("the answer was lost")

                store.apply = lost
            return await act()

    async with running(tmp_path / "data", place=tmp_path / "p", performer=LosesTheFlip()) as nexus:
        await put(nexus, "a", "value")
        await rotated(nexus, asked(window_s=0))
        assert nexus.vault.opened.document.active_root.number == 2
        assert await get(nexus, "a") == "value"
        await until(nexus, "finalized")
