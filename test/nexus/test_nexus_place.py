"""A backup place that does not answer, such as a network mount that hangs, or is full."""

from __future__ import annotations

import asyncio
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from around_kit import eventually
from lifecycle_kit import with_next_cipher
from lost_kit import PASSWORD, POLICIES, SECRETS, WEB, lose, put
from nexus_kit import SUPERUSER, running
from spike.error import StoreUnavailableError
from spike.nexus import place_reach
from spike.nexus.place import Place
from spike.nexus.place_reach import Reach
from spike.storage.memory import MemoryStore


class Disk:
    """Calls that hang until it answers again."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.threads: set[int] = set()

    def wait(self) -> None:
        self.threads.add(threading.get_ident())
        assert self.answers.wait(60)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Every backup place lies on this one; a call is waited for a moment only."""
    made = Disk()
    for name in (
        "write_backup",
        "write_anchor",
        "read_backup",
        "read_anchor",
    ):
        monkeypatch.setattr(Place, name, _through(made, getattr(Place, name)))
    monkeypatch.setattr(place_reach, "LIMIT_S", 0.2)
    yield made
    made.answers.set()


def _through(disk: Disk, act: Any) -> Any:
    def call(*args: Any) -> Any:
        disk.wait()
        return act(*args)

    return call


async def test_what_hangs_is_left_behind_and_the_next_call_fails_at_once(disk: Disk) -> None:
    reach = Reach("x", 0.05)
    disk.answers.clear()
    with pytest.raises(StoreUnavailableError, match="x does not answer"):
        await reach.call(disk.wait)
    for _ in range(5):
        with pytest.raises(StoreUnavailableError, match="x does not answer"):
            await reach.call(disk.wait)
    assert len(disk.threads) == 1, "threads pile up"
    disk.answers.set()
    await eventually(lambda: reach.is_free)
    assert await reach.call(lambda: 7) == 7


async def test_one_call_at_a_time_also_behind_one_that_nobody_waits_for(disk: Disk) -> None:
    reach = Reach("x", 30)
    disk.answers.clear()
    order: list[str] = []

    def first() -> None:
        disk.wait()
        order.append("first")

    left = asyncio.create_task(reach.call(first))
    await eventually(lambda: bool(disk.threads))
    left.cancel()
    await asyncio.gather(left, return_exceptions=True)
    second = asyncio.create_task(reach.call(lambda: order.append("second")))
    assert order == []
    disk.answers.set()
    await second
    assert order == ["first", "second"]


async def test_what_a_call_raises_is_raised(disk: Disk) -> None:
    del disk
    reach = Reach("x")
    with pytest.raises(ZeroDivisionError):
        await reach.call(lambda: 1 // 0)


async def test_a_restore_does_not_wait_for_a_place_that_hangs(tmp_path: Path, disk: Disk) -> None:
    lost = await asyncio.to_thread(lose, tmp_path)
    disk.answers.clear()
    async with running(lost.data, place=lost.place, born=False) as nexus:
        status, told = await nexus.restore(PASSWORD, anchor=lost.anchor)
        assert (status, told["restored"]) == (200, True), told
        got = await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "a"})
        assert got == (200, {"data": {"k": "1"}})
        _, status_told = await nexus.call(SUPERUSER, "/v1/operator/status")
        (place,) = status_told["places"]
        assert place["state"] == "failed"
        assert "does not answer" in place["detail"]
        # Nothing else holds the anchor: what is changed now is not acknowledged, and nobody waits long to hear it.
        assert (await nexus.call(SUPERUSER, POLICIES, WEB))[0] == 503
        disk.answers.set()
        await eventually(lambda: nexus.vault.places[0].place.reach.is_free)
        await nexus.vault.renew_places()
        await put(nexus, "a", "2")
        assert next(lost.place.glob("*.anchor")).read_bytes() == nexus.vault.opened.anchor_raw()


async def test_a_place_that_others_can_enter_meanwhile_is_not_written(tmp_path: Path) -> None:
    place = tmp_path / "backup"
    async with running(tmp_path / "data", place=place) as nexus:
        place.chmod(0o755)
        await nexus.vault.renew_places()
        (state,) = nexus.vault.places
        assert "others can enter" in state.fault
        place.chmod(0o700)
        await nexus.vault.renew_places()
        assert nexus.vault.places[0].fault == ""


async def test_a_full_disk_leaves_the_old_backup_and_nothing_half_and_is_written_once_there_is_room(
    tmp_path: Path,
) -> None:
    place = tmp_path / "place"
    async with running(store=MemoryStore(), place=place) as nexus:
        before = {path.name: path.read_bytes() for path in place.iterdir()}
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
        try:
            await nexus.vault.change(with_next_cipher)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert str(place) in nexus.vault.places[0].fault
        assert {path.name: path.read_bytes() for path in place.iterdir()} == before
        await nexus.vault.renew_places()
        assert not nexus.vault.places[0].fault
        (backup,) = place.glob("*.key-backup")
        assert backup.read_bytes() != before[backup.name]
        assert {path.name for path in place.iterdir()} == set(before)
