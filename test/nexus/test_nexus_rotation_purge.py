"""A purge never keeps anybody waiting: what is asked for begins at once, and what was left is purged later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar, cast

import pytest

from around_kit import eventually
from nexus_kit import SUPERUSER, RunningNexus, running
from rotating_kit import PATIENCE_S, asked, emergency, get, put, until
from spike.lifecycle.keyring import Phase
from spike.lifecycle.refusal import RefusalError
from spike.lifecycle.state import State
from spike.nexus.performer import Performer, Point
from spike.nexus.record_check import SEALED_KINDS
from spike.nexus.rotation_end import PURGE_AGAIN_S, purge
from spike.storage.ability import CanSnapshot

T = TypeVar("T")


class Stalling(Performer):
    """Purges as asked, and while it is told to stall says that there is always more to do: a store of any size."""

    def __init__(self, *, behind: Point | None = None) -> None:
        """From the first `behind` on it stalls; without one from the start."""
        self._behind = behind
        self.stalls = behind is None
        self.stalled = asyncio.Event()
        self.log: list[str] = []
        self.ended = False
        """Whether the last purge came to its end."""

    @property
    def is_last_purged(self) -> bool:
        """Whether a purge came to its end behind all else."""
        return self.ended and self.log[-1] == Point.PURGE

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        if point is Point.PURGE:
            return await self._purged(act)
        self.log.append(point)
        done = await act()
        if point is self._behind:
            self._behind, self.stalls = None, True
        return done

    async def _purged(self, act: Callable[[], Awaitable[T]]) -> T:
        self.log.append(Point.PURGE)
        self.ended = False
        left = await act()
        if not self.stalls:
            self.ended = left == 0
            return left
        self.stalled.set()
        await asyncio.sleep(0)
        return cast("T", 1)

    def go_on(self) -> None:
        self.stalls = False


async def abort(nexus: RunningNexus) -> None:
    with pytest.raises(RefusalError):
        await nexus.rotations.abort(SUPERUSER, "a test")


async def rollback(nexus: RunningNexus) -> None:
    with pytest.raises(RefusalError):
        await nexus.rotations.rollback("a test", SUPERUSER)


async def rotate(nexus: RunningNexus) -> None:
    assert (await nexus.rotations.start(asked(window_s=0), SUPERUSER)).started


async def replace_at_once(nexus: RunningNexus) -> None:
    assert (await nexus.rotations.start(emergency(), SUPERUSER)).started


COMMANDS = {"abort": abort, "rollback": rollback, "rotate": rotate, "emergency": replace_at_once}
BEHIND = {"after a start": None, "at the end": Point.FINALIZING, "behind it": Point.FINALIZED}


async def blobs(nexus: RunningNexus) -> list[bytes]:
    """Return what is sealed in the store now."""
    pages = [await nexus.store.scan(kind, "", None, 1000) for kind in SEALED_KINDS]
    return [record.blob for page in pages for record in page.items]


def require_purged(directory: Path, old: list[bytes]) -> None:
    """Return if no file of the store holds a part of what was sealed before."""
    files = [each.read_bytes() for each in directory.iterdir() if each.is_file()]
    assert old
    assert files
    for blob in old:
        assert not any(blob[6:38] in content for content in files)


async def kinds_of(nexus: RunningNexus, rotation_id: str) -> list[str]:
    status, told = await nexus.call(SUPERUSER, "/v1/key?action=history", {"limit": 100})
    assert status == 200
    mine = [event for event in told["events"] if event.get("detail", {}).get("id") == rotation_id]
    return [f"{event['kind']} {event['detail'].get('when', '')}".strip() for event in mine]


CASES = [
    (where, command)
    for where in BEHIND
    for command in COMMANDS
    # At its end the same one runs: it is joined, and nobody waits.
    if (where, command) != ("at the end", "rotate")
]


@pytest.mark.parametrize(("where", "command"), CASES)
async def test_what_is_asked_for_while_a_purge_goes_on_does_not_wait_for_its_end(
    tmp_path: Path, where: str, command: str
) -> None:
    performer = Stalling(behind=BEHIND[where])
    directory = tmp_path / "data"
    async with running(directory, place=tmp_path / "place", performer=performer) as nexus:
        await put(nexus, "a", "value")
        old = await blobs(nexus)
        if BEHIND[where] is not None:
            await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        async with asyncio.timeout(PATIENCE_S):
            await performer.stalled.wait()
            await COMMANDS[command](nexus)
        performer.go_on()
        if command in ("rotate", "emergency"):
            await until(nexus, "finalized")
        # What was interrupted was purged later, and there is nothing left.
        await eventually(
            lambda: performer.is_last_purged and not nexus.rotations.is_busy, PATIENCE_S
        )
        assert nexus.vault.opened.document.rotation is None
        assert (await nexus.store.health()).reclaimable_bytes == 0
        if len(nexus.vault.opened.document.roots) > 1:
            require_purged(directory, old)
        assert await get(nexus, "a") == "value"


async def test_no_more_than_the_step_under_way_is_purged_before_what_was_asked_for(
    tmp_path: Path,
) -> None:
    performer = Stalling(behind=Point.FINALIZED)
    async with running(tmp_path / "data", place=tmp_path / "place", performer=performer) as nexus:
        await put(nexus, "a", "value")
        await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        async with asyncio.timeout(PATIENCE_S):
            await performer.stalled.wait()
            before = len(performer.log)
            await nexus.rotations.start(emergency(), SUPERUSER)
        since = performer.log[before : performer.log.index(Point.PREPARED, before)]
        assert since.count(Point.PURGE) <= 1
        performer.go_on()
        await until(nexus, "finalized")


async def test_nothing_is_said_to_be_destroyed_before_its_purge_has_ended(tmp_path: Path) -> None:
    performer = Stalling(behind=Point.FINALIZING)
    directory = tmp_path / "data"
    async with running(directory, place=tmp_path / "place", performer=performer) as nexus:
        for number in range(50):
            await put(nexus, f"a/{number}", "value" * 100)
        old = await blobs(nexus)
        started = await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(3):
                performer.stalled.clear()
                await performer.stalled.wait()
                await abort(nexus)
        document, view = nexus.vault.opened.document, nexus.rotations.view()
        assert view is not None
        assert view.phase == Phase.FINALIZING
        assert document.roots[0].state is State.SUSPENDED
        assert Point.FINALIZED not in performer.log
        performer.go_on()
        await until(nexus, "finalized")
        require_purged(directory, old)
        assert nexus.vault.opened.document.roots[0].state is State.DESTROYED
        status, told = await nexus.call(SUPERUSER, "/v1/key?action=report", {"id": started.id})
        assert status == 200
        # Also what was purged before somebody interrupted it.
        assert int(told["report"]["purgedBytes"]) > 0


class Interrupted(Performer):
    """Waits behind the write that ends a rotation, once."""

    def __init__(self) -> None:
        self.written = asyncio.Event()

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        done = await act()
        if point is Point.FINALIZED and not self.written.is_set():
            self.written.set()
            await asyncio.Event().wait()
        return done


@pytest.mark.parametrize("command", ["abort", "emergency"])
async def test_who_comes_at_the_moment_of_the_end_does_not_take_it_out_of_sight(
    tmp_path: Path, command: str
) -> None:
    performer = Interrupted()
    async with running(tmp_path / "data", place=tmp_path / "place", performer=performer) as nexus:
        await put(nexus, "a", "value")
        first = await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        async with asyncio.timeout(PATIENCE_S):
            await performer.written.wait()
            await COMMANDS[command](nexus)
        ended = await until(nexus, "finalized")
        assert (ended.id == first.id) == (command == "abort")
        told = await kinds_of(nexus, first.id)
        assert told[-2:] == ["rotation-finalized", "rotation-checked after"]


class Clocked(Performer):
    """Notes when each step of a purge begins, and lets something happen before the third."""

    def __init__(self, before_the_third: Callable[[], Awaitable[None]]) -> None:
        self._before_the_third = before_the_third
        self.begins: list[float] = []

    async def do(self, _point: Point, act: Callable[[], Awaitable[T]]) -> T:
        self.begins.append(asyncio.get_running_loop().time())
        if len(self.begins) == 3:
            await self._before_the_third()
        return await act()


async def test_a_purge_rests_while_a_reader_of_an_older_state_keeps_it_from_its_end(
    tmp_path: Path,
) -> None:
    async with running(tmp_path / "data") as nexus:
        await eventually(lambda: not nexus.rotations.is_busy, PATIENCE_S)
        assert isinstance(nexus.store, CanSnapshot)
        snapshot = await nexus.store.snapshot()
        performer = Clocked(snapshot.close)
        await put(nexus, "a", "value")
        async with asyncio.timeout(PATIENCE_S):
            assert await purge(nexus.vault, performer)
        _, second, third = performer.begins[:3]
        assert third - second >= PURGE_AGAIN_S > 0
        assert (await nexus.store.health()).reclaimable_bytes == 0
