"""Attacks on rotations: the worst moment for everything, row by row, and what has to come of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from around_kit import PASSWORD, Around, eventually, states, surroundings
from nexus_kit import RESTORE, SUPERUSER, RunningNexus, running
from rotating_kit import Holding, asked, emergency, get, put, rotated, until
from spike.error import StoreUnavailableError
from spike.lifecycle import backup
from spike.lifecycle.keyring import Emergency, Phase, Scope
from spike.lifecycle.refusal import RefusalError
from spike.lifecycle.supply import KeeperState
from spike.memory.key_memory import KeyMemory
from spike.nexus.key_life import KeyLife
from spike.nexus.performer import Performer, Point
from spike.nexus.unbroken import unbroken
from spike.nexus.vault import KEYRING_ID
from spike.storage.protocol import Put
from spike.wire.go_time import UnixNs

T = TypeVar("T")


@contextlib.asynccontextmanager
async def kept(around: Around, performer: Performer) -> AsyncIterator[RunningNexus]:
    """Run a Nexus with all its Keepers and one place."""
    async with running(
        around.directory / "data",
        place=around.directory / "place",
        ca=around.ca,
        password=PASSWORD,
        keepers=around.setting,
        unattended=True,
        performer=performer,
    ) as nexus:
        await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * len(around.keepers))
        yield nexus


async def test_who_begins_a_rotation_while_old_keys_wait_for_his_request_to_end(
    tmp_path: Path,
) -> None:
    holding = Holding(Point.FINALIZED)
    async with running(tmp_path / "data", place=tmp_path / "p", performer=holding) as nexus:
        await rotated(nexus)
        await nexus.rotations.finalize(SUPERUSER)
        await holding.reached.wait()
        with nexus.vault.in_use.one():  # he is there already, and has not yet come to the keys
            holding.go_on.set()
            await eventually(lambda: nexus.vault.opened.document.rotation is None)
            await asyncio.sleep(0.05)
            async with asyncio.timeout(10):
                await nexus.rotations.start(asked(), SUPERUSER)
        await until(nexus, Phase.VERIFIED)


@pytest.mark.parametrize("way", ["emergency", "rollback"])
async def test_a_root_key_that_is_gone_from_is_in_no_memory(tmp_path: Path, way: str) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        if way == "rollback":
            await rotated(nexus)
        root: KeyMemory = nexus.vault.opened.ring.root
        if way == "rollback":
            await nexus.rotations.rollback("a test", SUPERUSER)
        else:
            await nexus.rotations.start(emergency(), SUPERUSER)
        await until(nexus, "finalized")
        assert root.wiped
        assert await get(nexus, "a") == "value"


async def test_an_emergency_that_is_given_up_leaves_the_rotation_before_it(tmp_path: Path) -> None:
    holding = Holding(Point.BACKED_UP)
    holding.go_on.set()
    async with running(tmp_path / "data", place=tmp_path / "p", performer=holding) as nexus:
        await put(nexus, "a", "value")
        first = await rotated(nexus)
        holding.go_on.clear()
        holding.reached.clear()
        await nexus.rotations.start(emergency(), SUPERUSER)
        await holding.reached.wait()
        await nexus.rotations.abort(SUPERUSER, "a mistake")
        holding.go_on.set()
        document = nexus.vault.opened.document
        assert document.rotation is not None
        assert document.rotation.id == first.id
        assert document.rotation.phase is Phase.VERIFIED
        await nexus.rotations.rollback("a test", SUPERUSER)
        await until(nexus, "finalized")
        assert nexus.vault.opened.document.active_root.number == 1
        assert await get(nexus, "a") == "value"


async def test_a_clock_that_jumps_does_not_end_the_way_back(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "p", performer=Performer()) as nexus:
        ahead_s = looks = 0

        def clock() -> UnixNs:
            nonlocal looks
            looks += 1
            return UnixNs(time.time_ns() + ahead_s * 1_000_000_000)

        nexus.vault.clock, nexus.vault.life = clock, KeyLife(clock)
        await rotated(nexus)
        ahead_s, before = 400 * 86_400, looks
        loop = nexus.rotations._loop
        loop.wake()
        await eventually(lambda: looks > before)
        async with loop.halted():  # what it was about to do is done
            rotation = nexus.vault.opened.document.rotation
        assert rotation is not None
        assert rotation.phase is Phase.VERIFIED
        await nexus.rotations.finalize(SUPERUSER)  # a person may
        await until(nexus, "finalized")


class HeldUp(Performer):
    """Does one effect, and then waits for ever before it says so."""

    def __init__(self, point: Point) -> None:
        self._point = point
        self.reached = asyncio.Event()

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        done = await act()
        if point is self._point and not self.reached.is_set():
            self.reached.set()
            await asyncio.Event().wait()
        return done


async def test_an_abort_in_the_moment_of_the_flip_leaves_nexus_the_new_shares(
    tmp_path: Path,
) -> None:
    held_up = HeldUp(Point.FLIP)
    async with surroundings(tmp_path, 3, 2) as around, kept(around, held_up) as nexus:
        await nexus.rotations.start(asked(), SUPERUSER)
        await held_up.reached.wait()
        (dealt,) = nexus.vault.opened.document.share_sets
        with pytest.raises(RefusalError, match="in force"):
            await nexus.rotations.abort(SUPERUSER, "too late")
        await until(nexus, Phase.VERIFIED)
        await eventually(lambda: all(k.committed_set == dealt.id for k in around.keepers.values()))
        assert nexus.keepers.held is not None
        assert nexus.keepers.held.set_id == dealt.id
        await around.restart(2)
        await eventually(lambda: around.keepers[2].committed_set == dealt.id)


async def test_a_place_that_fails_behind_the_flip_keeps_the_pending_backup(tmp_path: Path) -> None:
    holding = Holding(Point.FLIP)
    place = tmp_path / "place"
    async with surroundings(tmp_path, 3, 2) as around, kept(around, holding) as nexus:
        await nexus.rotations.start(asked(), SUPERUSER)
        await holding.reached.wait()
        place.chmod(0o755)  # nothing is written where others can enter
        holding.go_on.set()
        await until(nexus, Phase.VERIFIED)
        await eventually(lambda: not nexus.vault.stops)  # the Keepers hold the anchor
        await put(nexus, "a", "written under the new keys")
        assert [state.fault for state in nexus.vault.places] != [""]
        (pending,) = place.glob("*.pending")
        kept_there = backup.decode_untrusted(pending.read_bytes())
        assert kept_there.confirmed_by(nexus.vault.opened.ring.root) is not None
        place.chmod(0o700)
        await nexus.vault.renew_places()
        await nexus.rotations.finalize(SUPERUSER)
        await until(nexus, "finalized")
        await eventually(lambda: not list(place.glob("*.pending")))


async def test_what_must_not_stop_is_done_though_its_caller_is_cancelled_twice() -> None:
    go_on, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go_on.wait()
        done.set()

    async def wait() -> None:
        try:
            await unbroken(work())
        finally:
            assert done.is_set()

    waiting = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    for _ in range(3):
        waiting.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert not waiting.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_fault_of_ours_does_not_end_the_loop(tmp_path: Path) -> None:
    async with running(tmp_path / "data", performer=Performer()) as nexus:
        met = asyncio.Event()

        async def faulty() -> None:
            met.set()
            raise RuntimeError("a fault of ours")

        loop = nexus.rotations._loop
        loop.wanted = faulty
        loop.wake()
        await met.wait()
        loop.wanted = None
        await rotated(nexus)


async def test_a_forced_emergency_is_still_forced_when_it_is_prepared_again(tmp_path: Path) -> None:
    class FailsOnce(Performer):
        failed = False

        async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
            if point is Point.BACKED_UP and not self.failed:
                self.failed = True
                raise StoreUnavailableError("no answer")
            return await act()

    async with surroundings(tmp_path, 3, 2) as around, kept(around, FailsOnce()) as nexus:
        await around.stop(3)
        request = asked(emergency=Emergency(("root",)), window_s=None, force=True)
        await nexus.rotations.start(request, SUPERUSER)
        view = await until(nexus, "finalized")
        assert view.attempt == 2


async def test_a_pending_keyring_of_a_rotation_that_was_aborted_is_an_old_copy(
    tmp_path: Path,
) -> None:
    """It is authentic: the root key stayed. Whoever kept it puts it into the store."""
    holding = Holding(Point.FLIP)
    data, place = tmp_path / "data", tmp_path / "place"
    async with running(data, place=place, password=PASSWORD, performer=holding) as nexus:
        await nexus.rotations.start(asked(Scope.DATA_ONLY), SUPERUSER)
        await holding.reached.wait()
        (pending,) = place.glob("*.pending")
        planted = backup.decode_untrusted(pending.read_bytes()).keyring
        await nexus.rotations.abort(SUPERUSER, "a mistake")
        assert planted.confirmed_by(nexus.vault.opened.ring.root) is not None
        row = await nexus.store.get(KEYRING_ID)
        assert row is not None
        await nexus.store.apply((Put(row.id, planted.raw, 1, row.revision),), fence=None)
    async with running(data, place=place, born=False) as nexus:
        status, told = await nexus.call(
            RESTORE,
            "/v1/operator/restore?action=password",
            await nexus.seal(RESTORE, PASSWORD),
        )
        assert (status, told["err"]) == (400, "refused_stale_store")
