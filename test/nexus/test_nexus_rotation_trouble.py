"""Trouble around a rotation: a store, a place, a Keeper or a clock that fails it. It ends well, or it never began."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

import rotating_kit
from around_kit import PASSWORD, Told, eventually, states, surroundings
from clock_kit import clocked
from nexus_kit import SUPERUSER, RunningNexus, running
from proxy_store import Faulty
from rotating_kit import PATIENCE_S, asked, decrypt, encrypt, generations, get, put, until
from size import record, seed, size
from spike.error import SettingError, SpikeError, StoreUnavailableError
from spike.lifecycle import backup
from spike.lifecycle.keyring import KeyPurpose, Phase
from spike.lifecycle.state import State
from spike.lifecycle.supply import KeeperState
from spike.nexus.performer import Performer, Point
from spike.nexus.rotation_view import RotationView
from spike.storage.registry import open_store

T = TypeVar("T")


async def require_whole(nexus: RunningNexus) -> None:
    """Require one root and record key, with everything under it."""
    document = nexus.vault.opened.document
    assert document.rotation is None
    assert [root.state for root in document.roots].count(State.ACTIVE) == 1
    assert {root.state for root in document.roots} <= {State.ACTIVE, State.DESTROYED}
    assert await generations(nexus) == {document.active_key(KeyPurpose.RECORD).number}
    assert not nexus.vault.opened.ring.mismatches()


async def over(nexus: RunningNexus) -> str:
    """Wait until a rotation has ended; return how."""

    def has_ended() -> bool:
        view = nexus.rotations.view()
        return view is not None and view.phase in ("finalized", "failed", "dropped")

    await eventually(has_ended, PATIENCE_S)
    view = nexus.rotations.view()
    assert view is not None
    return view.phase


async def with_a_failing_write(directory: Path, fails_at: int, *, is_done: bool) -> int:
    """Rotate while one write fails; rotate again if that ended the first; return how many writes there were."""
    store = await open_store("sqlite", directory / "data")
    failing = Faulty(store, "apply", "purge")
    try:
        async with running(
            store=failing, place=directory / "place", performer=Performer()
        ) as nexus:
            for number in range(10):
                await put(nexus, f"a/{number}", f"{number}")
            blob = await encrypt(nexus, b"for others")
            await eventually(lambda: not nexus.rotations.is_busy)
            failing.arm(fails_at, is_done=is_done)
            with contextlib.suppress(SpikeError):
                await nexus.rotations.start(asked(window_s=0), SUPERUSER)
            await eventually(lambda: not nexus.vault.stops)
            running_now = nexus.vault.opened.document.rotation is not None
            if running_now or nexus.rotations.view() is not None:
                await over(nexus)
            await eventually(lambda: not nexus.rotations.is_busy)
            writes = failing.calls
            failing.arm(0, is_done=False)
            if nexus.vault.opened.document.active_root.number == 1:
                await nexus.rotations.start(asked(window_s=0), SUPERUSER)
                await until(nexus, "finalized")
            await require_whole(nexus)
            for number in range(10):
                assert await get(nexus, f"a/{number}") == f"{number}"
            assert await decrypt(nexus, blob) == b"for others"
            assert not list((directory / "place").glob("*.pending"))
            return writes
    finally:
        await store.close()


async def test_whichever_write_of_a_rotation_fails_nothing_is_lost(tmp_path: Path) -> None:
    number = seed()
    print(f"SPIKE_SEED={number}")
    writes = await with_a_failing_write(tmp_path / "none", 0, is_done=False)
    assert writes > 8
    every = [(at, is_done) for at in range(1, writes + 1) for is_done in (False, True)]
    chosen = random.Random(number).sample(every, size(test=6, proof=len(every)))
    for at, is_done in chosen:
        print(f"write {at} of {writes} fails, {'done' if is_done else 'not done'}")
        async with asyncio.timeout(PATIENCE_S):
            await with_a_failing_write(tmp_path / f"{at}{is_done}", at, is_done=is_done)
    record("a write of a rotation fails", len(chosen), "nothing lost", seed=number)


async def command(*words: str) -> None:
    child = await asyncio.create_subprocess_exec(*words)
    assert await child.wait() == 0, words


@pytest.mark.root
async def test_a_disk_that_fills_up_holds_a_rotation_up_and_no_more(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    await command("mount", "-t", "tmpfs", "-o", "size=110m,mode=0700", "tmpfs", str(small))
    try:
        async with running(
            small / "data", place=tmp_path / "place", performer=Performer()
        ) as nexus:
            for number in range(200):
                await put(nexus, f"a/{number}", f"{number} " + "x" * 2_000)
            await nexus.rotations.start(asked(window_s=0, max_rate=50), SUPERUSER)
            await until(nexus, Phase.RE_ENCRYPTING)
            filler = small / "filler"
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            view = await rotating_kit.seen(nexus, lambda view: bool(view.fault))
            assert view.phase == Phase.RE_ENCRYPTING
            assert await get(nexus, "a/1") == "1 " + "x" * 2_000
            filler.unlink()
            await eventually(lambda: not nexus.vault.stops)
            await nexus.rotations.set_max_rate(0, SUPERUSER)
            await until(nexus, "finalized")
            await require_whole(nexus)
            for number in range(200):
                assert await get(nexus, f"a/{number}") == f"{number} " + "x" * 2_000
    finally:
        await command("umount", str(small))


def other_share(action: str, told: Told) -> Told:
    """Give another share back than was staged."""
    if action != "get" or "shard" not in told:
        return told
    return {**told, "shard": [told["shard"][0] ^ 1, *told["shard"][1:]]}


def other_tag(action: str, told: Told) -> Told:
    return {**told, "tag": "0" * 64} if action == "get" else told


LIES = {"another share": other_share, "another tag": other_tag}


@pytest.mark.parametrize("name", LIES)
async def test_a_keeper_that_lies_about_what_it_has_staged_keeps_the_old_key_in_force(
    tmp_path: Path, name: str
) -> None:
    async with (
        surroundings(tmp_path, 3, 2) as around,
        running(
            tmp_path / "data",
            place=tmp_path / "place",
            ca=around.ca,
            password=PASSWORD,
            keepers=around.setting,
            unattended=True,
            performer=Performer(),
        ) as nexus,
    ):
        current = [KeeperState.CURRENT] * 3
        await eventually(lambda: states(nexus) == current)
        await put(nexus, "a", "value")
        around.lies[2] = LIES[name]
        await nexus.rotations.start(asked(), SUPERUSER)
        assert await over(nexus) == "failed"
        view = nexus.rotations.view()
        assert view is not None
        assert "Keeper 2" in view.fault
        assert nexus.vault.opened.document.active_root.number == 1
        await require_whole(nexus)
        around.lies.clear()
        await eventually(lambda: states(nexus) == current)
        await eventually(lambda: all(k.staged_set is None for k in around.keepers.values()))
        await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        await until(nexus, "finalized")
        await require_whole(nexus)
        assert await get(nexus, "a") == "value"


class Between(Performer):
    """Does something just before one effect."""

    def __init__(self, point: Point, act: Callable[[], None]) -> None:
        self._point, self._act = point, act

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        if point is self._point:
            self._act()
        return await act()


@pytest.mark.parametrize("fate", ["one bit flipped", "vanished", "replaced by an old one"])
async def test_a_pending_backup_spoilt_before_the_flip_is_not_what_is_left_behind_it(
    tmp_path: Path, fate: str
) -> None:
    place = tmp_path / "place"

    def spoil() -> None:
        (pending,) = place.glob("*.pending")
        raw = pending.read_bytes()
        if fate == "vanished":
            pending.unlink()
        elif fate == "one bit flipped":
            pending.write_bytes(raw[:-9] + bytes([raw[-9] ^ 1]) + raw[-8:])
        else:
            (in_force,) = place.glob("*.key-backup")
            pending.write_bytes(in_force.read_bytes())

    async with running(
        tmp_path / "data", place=place, password=PASSWORD, performer=Between(Point.FLIP, spoil)
    ) as nexus:
        await put(nexus, "a", "value")
        await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        await until(nexus, "finalized")
        await require_whole(nexus)
        assert not list(place.glob("*.pending"))
        (path,) = place.glob("*.key-backup")
        held = backup.decode_untrusted(path.read_bytes())
        confirmed = held.confirmed_by(nexus.vault.opened.ring.root)
        assert confirmed is not None
        assert confirmed.active_root.number == 2
        assert not held.pending
    async with running(tmp_path / "data", place=place, born=False) as nexus:
        status, told = await nexus.restore(PASSWORD)
        assert status == 200, told
        assert await get(nexus, "a") == "value"


async def test_a_rotation_asked_for_while_a_password_brings_the_key_back_begins_only_behind_it(
    tmp_path: Path,
) -> None:
    place = tmp_path / "place"
    async with running(tmp_path / "data", place=place, password=PASSWORD) as nexus:
        await put(nexus, "a", "value")
    async with running(tmp_path / "data", place=place, born=False, performer=Performer()) as nexus:
        restore = asyncio.create_task(nexus.restore(PASSWORD))
        refused = 0
        while not restore.done():
            status, told = await nexus.call(SUPERUSER, "/v1/key?action=rotate", {"windowS": 0})
            if status == 200:
                break
            assert status == 503, told
            refused += 1
        assert (await restore)[0] == 200
        assert refused
        await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        await until(nexus, "finalized")
        await require_whole(nexus)
        assert await get(nexus, "a") == "value"


class Jumping(Performer):
    """Sets the clock just before one effect, once."""

    def __init__(self, point: Point, days: float) -> None:
        self._point, self._days = point, days
        self.jump: Callable[[float], None] | None = None

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        if point is self._point and self.jump is not None:
            jump, self.jump = self.jump, None
            jump(self._days)
        return await act()


PHASES = (
    Point.PREPARED,
    Point.BACKED_UP,
    Point.FLIP,
    Point.BATCH,
    Point.VERIFIED,
    Point.FINALIZING,
    Point.FINALIZED,
)


@pytest.mark.parametrize("days", [-1.0, 365.0], ids=["a day back", "a year on"])
@pytest.mark.parametrize("point", PHASES, ids=[point.name.lower() for point in PHASES])
async def test_a_clock_that_is_set_in_any_phase_spoils_nothing(
    tmp_path: Path, point: Point, days: float
) -> None:
    jumping = Jumping(point, days)
    async with running(tmp_path / "data", place=tmp_path / "place", performer=jumping) as nexus:
        clocks = clocked(nexus, 30)
        await put(nexus, "a", "value")
        jumping.jump = clocks.jump
        await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        await until(nexus, "finalized")
        assert jumping.jump is None
        await require_whole(nexus)
        assert await get(nexus, "a") == "value"


@pytest.mark.parametrize("days", [-1.0, 365.0], ids=["a day back", "a year on"])
async def test_a_clock_that_is_set_ends_nobodys_way_back(tmp_path: Path, days: float) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place", performer=Performer()) as nexus:
        clocks = clocked(nexus, 30)
        await put(nexus, "a", "value")
        await rotating_kit.rotated(nexus)
        clocks.jump(days)
        assert await nexus.rotations._loop._turn() > 0
        assert nexus.vault.opened.document.roots[0].state is State.SUSPENDED
        clocks.jump(-days)  # put right: nothing begins on a clock that is behind the keyring
        await nexus.rotations.rollback("a test", SUPERUSER)
        await until(nexus, "finalized")
        assert nexus.vault.opened.document.active_root.number == 1
        await require_whole(nexus)
        assert await get(nexus, "a") == "value"


async def test_a_second_nexus_on_the_same_store_is_refused_while_one_rotates(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place", performer=Performer()) as nexus:
        for number in range(20):
            await put(nexus, f"a/{number}", "value")
        await nexus.rotations.start(asked(window_s=0, max_rate=5), SUPERUSER)
        await until(nexus, Phase.RE_ENCRYPTING)
        with pytest.raises(SettingError, match="another process"):
            await open_store("sqlite", tmp_path / "data")
        assert (await until(nexus, Phase.RE_ENCRYPTING)).phase == Phase.RE_ENCRYPTING
        await nexus.rotations.set_max_rate(0, SUPERUSER)
        await until(nexus, "finalized")
        await require_whole(nexus)


async def test_twenty_starts_at_once_over_connections_of_their_own_are_one_rotation(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place", performer=Performer()) as nexus:
        await put(nexus, "a", "value")
        target, message = "/v1/key?action=rotate", {"windowS": 3600}
        answers = await asyncio.gather(*(nexus.call(SUPERUSER, target, message) for _ in range(20)))
        assert {status for status, _ in answers} == {200}, answers
        assert len({told["id"] for _, told in answers}) == 1
        assert [told["started"] for _, told in answers].count(True) == 1
        await until(nexus, Phase.VERIFIED)
        assert len(nexus.vault.opened.document.roots) == 2


class Failing(Performer):
    """Fails at the pending backup, once, and then waits before that is cleared away."""

    def __init__(self) -> None:
        self.has_failed = False
        self.clears, self.go_on = asyncio.Event(), asyncio.Event()

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        if point is Point.PENDING and not self.has_failed:
            self.has_failed = True
            raise StoreUnavailableError("the disk is full")
        if point is Point.CLEAR_PENDING and self.has_failed:
            self.clears.set()
            await self.go_on.wait()
        return await act()


async def test_who_begins_while_a_failed_one_is_cleared_away_keeps_his_keys(tmp_path: Path) -> None:
    performer = Failing()
    async with running(tmp_path / "data", place=tmp_path / "place", performer=performer) as nexus:
        await put(nexus, "a", "value")
        await nexus.rotations.start(asked(), SUPERUSER)
        async with asyncio.timeout(PATIENCE_S):
            await performer.clears.wait()
            assert nexus.rotations.is_busy, "what a failure clears away is of the step that failed"
            start = asyncio.create_task(nexus.rotations.start(asked(window_s=0), SUPERUSER))
            performer.go_on.set()
            started = await start
        ended = await until_of(nexus, started.id)
        assert (ended.phase, ended.attempt) == ("finalized", 1)
        assert await get(nexus, "a") == "value"


async def until_of(nexus: RunningNexus, rotation_id: str) -> RotationView:
    """Return how a rotation has ended; the one before it may have failed."""

    def found() -> RotationView | None:
        view = nexus.rotations.view()
        has_ended = view is not None and view.phase in ("finalized", "failed", "dropped")
        return view if view is not None and has_ended and view.id == rotation_id else None

    await eventually(lambda: found() is not None, PATIENCE_S)
    view = found()
    assert view is not None
    return view


async def test_who_gives_up_waiting_for_a_halt_halts_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "data", performer=Performer()) as nexus:
        loop = nexus.rotation_loop

        async def halt() -> None:
            async with loop.halted():
                raise AssertionError("it had its turn")

        async with loop._step_lock:  # as while a step is under way
            waiting = asyncio.create_task(halt())
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert not loop._interrupt.is_set(), "the loop would find every step interrupted"
