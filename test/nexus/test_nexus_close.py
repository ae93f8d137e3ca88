"""An undo and a reset beside changes of keys that are under way: a change is made whole, in the store it is of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from around_kit import eventually, states, surroundings
from lifecycle_kit import with_next_cipher
from nexus.test_nexus_system_restore import (
    PART_BYTES,
    Made,
    opened_again,
    opened_with,
    previewed,
    received,
    send,
    whole,
)
from nexus_kit import RESTORE, SUPERUSER, RunningNexus, running
from rotating_kit import Holding, asked, get, put, rotated
from spike.error import NotReadyError
from spike.lifecycle.keyring import decode_untrusted
from spike.lifecycle.refusal import RefusalError
from spike.lifecycle.supply import KeeperState
from spike.nexus.factory_reset import ResetDesk
from spike.nexus.opened import Opened, Phase
from spike.nexus.performer import Performer, Point
from spike.nexus.place import Place
from spike.nexus.place_lineage import lineage_of_untrusted
from spike.nexus.restore_undo import Undone, undo
from spike.nexus.vault import KEYRING_ID
from spike.storage.memory import MemoryStore
from spike.storage.protocol import Change, Put, Revision

__all__ = ["whole"]  # the fixture of the system backup
_TURNS = 200
"""So often others may run: far more than an undo or a reset on the memory engine takes when nothing holds it up."""


class SlowStore(MemoryStore):
    """Lets a keyring wait at the disk, once `is_slow`, until `go_on`."""

    def __init__(self) -> None:
        super().__init__()
        self.is_slow = False
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        if self.is_slow and any(isinstance(it, Put) and it.id == KEYRING_ID for it in changes):
            self.reached.set()
            await self.go_on.wait()
        return await super().apply(changes, fence=fence)


async def beside(
    nexus: RunningNexus, store: SlowStore, ending: Coroutine[Any, Any, Any]
) -> tuple[Opened, Any]:
    """Begin a change of the keyring as a rotation makes one, then the ending; return what both give."""
    store.is_slow = True
    change = asyncio.create_task(nexus.vault.change(with_next_cipher))
    await store.reached.wait()
    end = asyncio.create_task(ending)
    for _ in range(_TURNS):
        await asyncio.sleep(0)
    assert not end.done(), "it did not wait for the change that is under way"
    assert nexus.vault.is_open
    store.go_on.set()
    return await change, await end


async def test_an_undo_waits_for_a_change_of_the_keyring_and_keeps_it_with_its_state(
    whole: Made,
) -> None:
    store = SlowStore()
    async with running(store=store):
        before = await store.get(KEYRING_ID)
    async with running(store=store, born=False) as nexus:
        await received(nexus, whole.root, whole.raw)
        revision = nexus.vault.opened.document.revision
        changed, undone = await beside(
            nexus, store, undo(nexus.keepers, nexus.rotation_loop, RESTORE)
        )
        assert isinstance(undone, Undone)
        assert await store.get(KEYRING_ID) == before, "it reached the state that was put back"
        assert changed.document.revision == revision + 1
        assert changed.ring.root.wiped
        with pytest.raises(NotReadyError):
            await nexus.vault.change(with_next_cipher)
        store.go_on.set()
        await store.bring_back(undone.aside, "again")
        kept = await store.get(KEYRING_ID)
        assert kept is not None
        assert decode_untrusted(kept.blob).hint.revision == changed.document.revision


async def test_a_reset_waits_for_a_change_of_the_keyring_and_nothing_comes_behind_it() -> None:
    store = SlowStore()
    async with running(store=store) as nexus:
        desk = ResetDesk(nexus.keepers, nexus.rotation_loop)
        _, phrase = await desk.ask(SUPERUSER, "")
        changed, loss = await beside(nexus, store, desk.carry_out(SUPERUSER, phrase, ""))
        assert loss.phase is Phase.UNINITIALIZED
        assert changed.ring.root.wiped
        assert await store.census() == {}
        assert (await store.health()).fence == 0


@dataclass(frozen=True, slots=True)
class SlowPlace(Place):
    """Lets a key backup wait at the disk, once `is_slow`, until `go_on`."""

    is_slow: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)

    def write_backup(self, store_id: str, raw: bytes) -> None:
        if self.is_slow.is_set():
            self.reached.set()
            assert self.go_on.wait(60)
        Place.write_backup(self, store_id, raw)


async def test_an_undo_waits_for_what_is_on_its_way_to_a_backup_place(
    whole: Made, tmp_path: Path
) -> None:
    place, store = SlowPlace(tmp_path / "place"), MemoryStore()
    async with running(store=store, places=(place,), born=False) as nexus:
        await received(nexus, whole.root, whole.raw)
        store_id, lineage = (
            nexus.vault.opened.document.store_id,
            nexus.vault.opened.document.lineage,
        )
    async with running(store=store, places=(place,), born=False) as nexus:
        await received(nexus, whole.root, whole.raw, accept=True)
        assert nexus.vault.opened.document.lineage != lineage
        place.is_slow.set()
        change = asyncio.create_task(nexus.vault.change(with_next_cipher))
        await eventually(place.reached.is_set)
        undoing = asyncio.create_task(undo(nexus.keepers, nexus.rotation_loop, RESTORE))
        await eventually(lambda: not nexus.vault.is_open)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        assert not undoing.done(), "it did not wait for the place"
        place.go_on.set()
        await change
        assert (await undoing).lineage == lineage
        for kind in ("anchor", "key-backup"):
            lies = (place.directory / f"spike-{store_id}.{kind}").read_bytes()
            assert lineage_of_untrusted(kind, lies) == lineage, "what was on its way lies over it"


async def supplied(nexus: RunningNexus) -> None:
    await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 2 and not nexus.vault.stops)


@pytest.mark.parametrize(
    "point",
    [
        Point.DISTRIBUTED,
        Point.BACKED_UP,
        Point.FLIP,
        Point.COMMIT,
        Point.BATCH,
        Point.VERIFIED,
    ],
)
async def test_an_undo_in_the_middle_of_a_rotation_brings_back_a_store_that_rotates(
    whole: Made, tmp_path: Path, point: Point
) -> None:
    """Whatever the rotation was doing: the store that is put back knows nothing of it."""
    store = MemoryStore()
    async with surroundings(tmp_path, 2, 2) as around:

        def nexus_with(performer: Performer) -> Any:
            return running(
                store=store,
                born=False,
                ca=around.ca,
                keepers=around.setting,
                unattended=True,
                performer=performer,
            )

        async with nexus_with(Performer()) as nexus:
            await received(nexus, whole.root, whole.raw)
            lineage = nexus.vault.opened.document.lineage
            await supplied(nexus)
            await put(nexus, "own", "v")
        for index in around.keepers:
            await around.restart(index)
        holding = Holding(point)
        async with nexus_with(holding) as nexus:
            await received(nexus, whole.root, whole.raw, accept=True)
            await supplied(nexus)
            former = nexus.vault.opened.ring.root
            await nexus.rotations.start(asked(), SUPERUSER)
            await holding.reached.wait()
            undoing = asyncio.create_task(undo(nexus.keepers, nexus.rotation_loop, RESTORE))
            await asyncio.sleep(0)  # it has interrupted the step by now, or waits for its end
            holding.go_on.set()
            undone = await undoing
            assert (undone.phase, undone.lineage) == (Phase.LOCKED, lineage)
            await eventually(lambda: former.wiped)
            if point in (Point.DISTRIBUTED, Point.BACKED_UP):  # before the flip nothing of it stays
                assert all(keeper.staged_set is None for keeper in around.keepers.values())
            # What the Keepers hold is the key of the life that was undone; empty they take this one's.
            for index in around.keepers:
                await around.restart(index)
            await opened_again(nexus, whole.root)
            assert nexus.vault.opened.document.rotation is None
            assert await get(nexus, "own") == "v"
            await supplied(nexus)
            await rotated(nexus)
            assert await get(nexus, "own") == "v"


async def ended(nexus: RunningNexus, ending: str) -> None:
    if ending == "undo":
        await undo(nexus.keepers, nexus.rotation_loop, RESTORE)
        return
    desk = ResetDesk(nexus.keepers, nexus.rotation_loop)
    _, phrase = await desk.ask(SUPERUSER, "")
    await desk.carry_out(SUPERUSER, phrase, "")


@pytest.mark.parametrize("ending", ["undo", "reset"])
async def test_no_part_of_a_file_reaches_what_came_in_the_place_of_its_restore(
    whole: Made, ending: str
) -> None:
    store = MemoryStore()
    async with running(store=store):
        pass
    async with running(store=store, born=False) as nexus:
        _, preview = await previewed(nexus, whole.raw, set_aside=True)
        assert (await send(nexus, preview["confirm"], 0, whole.raw[:PART_BYTES]))[0] == 200
        await ended(nexus, ending)
        before = await store.census()
        piece = whole.raw[PART_BYTES : 2 * PART_BYTES]
        status, answer = await send(nexus, preview["confirm"], 1, piece)
        assert (status, answer["err"]) == (400, "refused_expired")
        assert await store.census() == before


@pytest.mark.parametrize("ending", ["undo", "reset"])
async def test_a_restore_that_waits_for_a_yes_does_not_outlive_its_store(
    whole: Made, ending: str
) -> None:
    store = MemoryStore()
    async with running(store=store):
        pass
    async with running(store=store, born=False) as nexus:
        await received(nexus, whole.root, whole.raw)
    async with running(store=store, born=False) as nexus:
        token = await opened_with(nexus, whole.root, None)
        await ended(nexus, ending)
        before = await store.get(KEYRING_ID)
        with pytest.raises(RefusalError, match="no longer awaited"):
            await nexus.restores.complete(token, RESTORE)
        assert await store.get(KEYRING_ID) == before
        assert not nexus.vault.is_open
