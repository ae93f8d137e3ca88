"""Group commit of the SQLite engine: what is answered when, what shares a transaction, what fails
alone."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spike.error import StoreConflictError, StoreError, StoreUnavailableError
from spike.storage.protocol import SECRET, Delete, Put, Store
from spike.storage.sqlite import open_store
from spike.storage.sqlite_schema import WRITER_TIMEOUT_MS
from storage.conformance.engine import named, new
from storage.sqlite_store import Gate, open_with_connection


async def test_requests_that_wait_share_one_commit_and_each_keeps_its_outcome(
    tmp_path: Path,
) -> None:
    store, connection = open_with_connection(tmp_path / "store")
    gate = Gate(connection, "BEGIN")
    puts = [asyncio.create_task(store.put(new(f"{n}"), fence=None)) for n in range(100)]
    refused = asyncio.create_task(store.apply([new("x"), new("0")], fence=None))
    await asyncio.sleep(0)  # all have asked now; the writer stands before its first BEGIN
    gate.opened.set()
    revisions = await asyncio.gather(*puts)
    with pytest.raises(StoreConflictError):
        await refused
    assert len(set(revisions)) == 100
    # The first request may have been taken alone; all others share the second transaction.
    assert 1 <= gate.count("COMMIT") <= 2
    assert await store.get(named("x")) is None
    await store.close()


async def test_nothing_is_answered_or_seen_before_its_commit(tmp_path: Path) -> None:
    store, connection = open_with_connection(tmp_path / "store")
    gate = Gate(connection, "COMMIT")
    put = asyncio.create_task(store.put(new("a"), fence=None))
    assert await asyncio.to_thread(gate.reached.wait, 30)
    assert not put.done()
    assert await store.get(named("a")) is None  # and reads are answered meanwhile
    gate.opened.set()
    assert await put >= 1
    assert await store.get(named("a")) is not None
    await store.close()


async def test_a_request_cancelled_during_its_commit_happened_whole(tmp_path: Path) -> None:
    store, connection = open_with_connection(tmp_path / "store")
    gate = Gate(connection, "COMMIT")
    task = asyncio.create_task(store.apply([new("a"), new("b")], fence=None))
    assert await asyncio.to_thread(gate.reached.wait, 30)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    gate.opened.set()
    await store.put(new("c"), fence=None)
    assert [it.id.key for it in (await store.scan(SECRET, "", None, 9)).items] == ["a", "b", "c"]
    await store.close()


async def test_a_close_whose_task_is_cancelled_still_closes(tmp_path: Path) -> None:
    store, connection = open_with_connection(tmp_path / "store")
    gate = Gate(connection, "COMMIT")
    put = asyncio.create_task(store.put(new("a"), fence=None))
    assert await asyncio.to_thread(gate.reached.wait, 30)
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    gate.opened.set()
    await put
    await store.close()
    again = await open_store(tmp_path / "store")  # the lock was let go
    assert await again.get(named("a")) is not None
    await again.close()


async def test_a_refused_apply_costs_no_commit(tmp_path: Path) -> None:
    store, connection = open_with_connection(tmp_path / "store")
    revision = await store.put(new("a"), fence=None)
    gate = Gate(connection, "no such statement")
    with pytest.raises(StoreConflictError):
        await store.put(new("a"), fence=None)
    assert gate.count("COMMIT") == 0
    assert await store.put(new("b"), fence=None) == revision + 1
    await store.close()


async def check_starved(store: Store, large: int) -> None:
    """The disk has no room for `large` bytes: that one fails, its neighbours do not."""
    outcomes = await asyncio.gather(
        store.put(new("small 1"), fence=None),
        store.put(new("large", bytes(large)), fence=None),
        store.put(new("small 2"), fence=None),
        store.apply([new("small 3"), new("large too", bytes(large))], fence=None),
        store.put(new("small 4"), fence=None),
        return_exceptions=True,
    )
    kinds = [type(it) for it in outcomes]
    assert kinds == [int, StoreUnavailableError, int, StoreUnavailableError, int], outcomes
    found = await store.scan_key(SECRET, "", None, 10)
    assert [it.id.key for it in found.items] == ["small 1", "small 2", "small 4"]


async def check_recovered(store: Store, large: int) -> None:
    await store.put(new("large", bytes(large)), fence=None)
    found = await store.get(named("large"))
    assert found is not None
    assert found.blob == bytes(large)
    assert (await store.health()).fault == ""
    await store.check()


async def test_a_statement_that_fails_leaves_no_transaction_open(tmp_path: Path) -> None:
    store, connection = open_with_connection(tmp_path / "store")
    # Unlike a full disk, this error is one after which SQLite does not roll back by itself.
    before = connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
    with pytest.raises(StoreError):
        await store.apply([new("a"), new("large", bytes(1_000_001))], fence=None)
    assert await store.put(new("b"), fence=None) >= 1
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, before)
    found = await store.scan_key(SECRET, "", None, 10)
    assert [it.id.key for it in found.items] == ["b"]
    await store.close()


@contextmanager
def file_size_limit(size_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond this size: write(2) then fails, as on a bad disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_failing_write_fails_alone_and_the_store_goes_on(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "store")
    with file_size_limit(2_000_000):
        await check_starved(store, 4_000_000)
    await check_recovered(store, 4_000_000)
    await store.close()


async def test_a_full_disk_fails_what_has_no_room_and_the_store_goes_on(tmp_path: Path) -> None:
    store, connection = open_with_connection(tmp_path / "store")
    connection.execute("PRAGMA max_page_count = 100")  # SQLite then answers as on a full disk
    await check_starved(store, 1_000_000)
    with pytest.raises(StoreUnavailableError, match="full"):
        await store.put(new("large", bytes(1_000_000)), fence=None)
    assert "full" in (await store.health()).fault
    connection.execute("PRAGMA max_page_count = 1000000")
    await check_recovered(store, 1_000_000)
    await store.close()


@pytest.mark.root
async def test_a_file_system_without_room_is_a_full_disk(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    await run("mount", "-t", "tmpfs", "-o", "size=3m,mode=0700", "tmpfs", str(mount))
    try:
        store = await open_store(mount / "store")
        await check_starved(store, 6_000_000)
        fills = (store.put(new(f"fill {n}", bytes(50_000)), fence=None) for n in range(100))
        outcomes = await asyncio.gather(*fills, return_exceptions=True)
        made = [n for n, it in enumerate(outcomes) if isinstance(it, int)]
        assert 0 < len(made) < 100
        for n, outcome in enumerate(outcomes):
            assert isinstance(outcome, (int, StoreUnavailableError))
            assert (await store.get(named(f"fill {n}")) is not None) == (n in made)
        await run("mount", "-o", "remount,size=60m", str(mount))
        await check_recovered(store, 6_000_000)
        await store.close()
    finally:
        await run("umount", str(mount))


async def run(*command: str) -> None:
    child = await asyncio.create_subprocess_exec(*command)
    assert await child.wait() == 0, command


async def test_a_write_waits_a_moment_for_another_program_and_then_says_so(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "store")
    other = sqlite3.connect(tmp_path / "store" / "store.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        await store.put(new("a"), fence=None)
    other.execute("ROLLBACK")
    other.close()
    await store.put(new("a"), fence=None)
    await store.close()


async def test_a_purge_does_not_wait_for_a_long_read_and_says_there_is_more(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "store")
    await store.put(new("a"), fence=None)
    other = sqlite3.connect(tmp_path / "store" / "store.sqlite", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM record").fetchone()
    await store.put(new("b"), fence=None)
    begin = time.monotonic()
    assert await store.purge(1_000_000) > 0
    await store.put(new("c"), fence=None)
    assert time.monotonic() - begin < WRITER_TIMEOUT_MS / 1000
    other.execute("COMMIT")
    other.close()
    assert await store.purge(1_000_000) == 0
    await store.close()


def holding(directory: Path, needle: bytes) -> list[str]:
    """Return the files with these bytes in them, looking from another process.

    To open and close the database here would drop the locks SQLite has on it.
    """
    found = subprocess.run(
        ["grep", "--files-with-matches", "--recursive", "--fixed-strings", needle, directory],
        capture_output=True,
        check=False,
    )
    assert found.returncode in (0, 1), found.stderr
    return found.stdout.decode().split()


@pytest.mark.parametrize("size_bytes", [64, 3_000, 300_000])
async def test_a_purge_leaves_no_byte_of_a_deleted_or_replaced_blob(
    tmp_path: Path, size_bytes: int
) -> None:
    directory = tmp_path / "store"
    store = await open_store(directory)
    needles = [b"%c-the-old-blob-%c" % (n, n) for n in b"ABC"]
    old = [(it * (size_bytes // len(it) + 1))[:size_bytes] for it in needles]
    for n in range(40):  # neighbours on the same pages
        await store.put(new(f"{n}", b"n" * size_bytes), fence=None)
    deleted, replaced, shrunk = [
        await store.put(new(f"{n}x", blob), fence=None) for n, blob in enumerate(old)
    ]
    assert all(holding(directory, it) for it in needles)
    await store.delete(Delete(named("0x"), deleted), fence=None)
    await store.put(Put(named("1x"), b"r" * size_bytes, 2, replaced), fence=None)
    await store.put(Put(named("2x"), b"tiny", 2, shrunk), fence=None)
    for n in range(0, 40, 2):
        record = await store.get(named(f"{n}"))
        assert record is not None
        await store.delete(Delete(record.id, record.revision), fence=None)
    steps = 1
    while await store.purge(50_000):
        steps += 1
        assert steps < 1_000
    assert [holding(directory, it) for it in needles] == [[], [], []]
    health = await store.health()
    assert health.reclaimable_bytes == 0
    if size_bytes > 100_000:
        assert steps > 20, "the budget does not bound a step"
        assert health.size_bytes < 24 * size_bytes
    await store.check()
    await store.close()
    assert [holding(directory, it) for it in needles] == [[], [], []]
    assert [it.name for it in directory.iterdir()] == ["store.sqlite"]
