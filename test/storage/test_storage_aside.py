"""Moving a SQLite store aside: at each system call the process can die at, a state is present or aside, and whole."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from spike.error import InputError, StoreUnavailableError
from spike.storage import sqlite_aside, sqlite_directory
from spike.storage.ability import CanSetAside
from spike.storage.registry import open_store
from spike.storage.sqlite_aside import Asides
from storage.conformance.engine import new


class Dead(BaseException):
    """The process is gone."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir(mode=0o700)
    (place / "store.sqlite").write_bytes(b"first")
    return place


def states(directory: Path) -> list[bytes]:
    """Return every state that is there, the present one first if there is one."""
    aside = sorted(directory.glob("aside/*/store.sqlite"))
    return [path.read_bytes() for path in (directory / "store.sqlite", *aside) if path.is_file()]


def dying(monkeypatch: pytest.MonkeyPatch, at: int) -> Callable[[], int]:
    """Let the process die at its n-th move or sync; return a count of those that were made."""
    count = 0

    def mortal(act: Callable[..., None]) -> Callable[..., None]:
        def do(*arguments: object) -> None:
            nonlocal count
            count += 1
            if count == at:
                raise Dead
            act(*arguments)

        return do

    monkeypatch.setattr(os, "replace", mortal(os.replace))
    monkeypatch.setattr(sqlite_aside, "sync_directory", mortal(sqlite_directory.sync_directory))
    return lambda: count


def test_killed_at_any_call_of_setting_aside_the_state_is_there_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in range(1, 6):
        with monkeypatch.context() as patch:
            dying(patch, at)
            with pytest.raises(Dead):
                Asides(directory).put(f"try-{at}")
        assert states(directory) == [b"first"]
        for name in Asides(directory).names():
            Asides(directory).take(name, None)
    Asides(directory).put("done")
    assert Asides(directory).names() == ["done"]


def test_killed_at_any_call_of_bringing_back_both_states_are_there(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Asides(directory).put("old")
    (directory / "store.sqlite").write_bytes(b"second")
    at = 0
    while True:
        at += 1
        with monkeypatch.context() as patch:
            made = dying(patch, at)
            try:
                Asides(directory).take("old", f"new-{at}")
            except Dead:
                pass
            else:
                assert made() == at - 1
                break
        assert sorted(states(directory)) == [b"first", b"second"]
        # What the next process does: an empty store where there is none, and the same command.
        if not (directory / "store.sqlite").is_file():
            Asides(directory).take("old", None)
        if (directory / "store.sqlite").read_bytes() == b"first":
            Asides(directory).put("old")
            (newer,) = (n for n in Asides(directory).names() if n.startswith("new-"))
            Asides(directory).take(newer, None)
    assert at > 5
    assert states(directory)[0] == b"first"


def test_a_log_that_somebody_holds_open_keeps_the_file_where_it_is(directory: Path) -> None:
    (directory / "store.sqlite-wal").write_bytes(b"pages")
    with pytest.raises(StoreUnavailableError, match="something else has the store's file open"):
        Asides(directory).put("one")
    with pytest.raises(StoreUnavailableError, match="something else has the store's file open"):
        Asides(directory).remove_present()
    assert states(directory) == [b"first"]
    with pytest.raises(InputError):
        Asides(directory).put("..")


async def test_another_program_that_reads_the_store_keeps_it_from_being_moved(
    tmp_path: Path,
) -> None:
    store = await open_store("sqlite", tmp_path / "data")
    assert isinstance(store, CanSetAside)
    await store.apply([new("a")], fence=None)
    other = sqlite3.connect(tmp_path / "data" / "store.sqlite", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM record").fetchall()
    with pytest.raises(StoreUnavailableError, match="something else has the store's file open"):
        await store.set_aside("one")
    # The store is as it was, and serves.
    assert len(await store.census()) == 1
    assert list(await store.asides()) == []
    other.close()
    await store.close()
