"""One moment of a SQLite store: a read transaction on a connection and a thread of its own.

SQLite's log keeps every page that is written while the transaction lasts, so it must end: whoever holds a snapshot
gives it a time limit.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

from spike.error import InputError, StoreUnavailableError
from spike.storage.protocol import Kind, Record, check_kind
from spike.storage.sqlite_change import read_state
from spike.storage.sqlite_fault import corrupt, store_error
from spike.storage.sqlite_row import read_record
from spike.storage.sqlite_schema import open_reader

_ALL: Final = (
    "SELECT kind, key, version, generation, revision, blob FROM record ORDER BY kind, key, version"
)
_CACHE_KIB: Final = 2048
_Result = TypeVar("_Result")


class SqliteSnapshot:
    """See spike.storage.ability.Snapshot. Used from one event loop, by one reader."""

    def __init__(self, gone: Callable[[SqliteSnapshot], None]) -> None:
        """Use `open`."""
        self._gone = gone
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spike-storage-snapshot")
        self._connection: sqlite3.Connection | None = None
        self._rows: sqlite3.Cursor | None = None
        self._fence = 0
        self._closed = False

    @classmethod
    async def open(cls, database: Path, gone: Callable[[SqliteSnapshot], None]) -> SqliteSnapshot:
        """Begin the transaction; `gone` is told when it has ended.

        Raises:
            StoreError: the file cannot be read.
        """
        snapshot = cls(gone)
        try:
            await snapshot._run(lambda: snapshot._begin(database))
        except BaseException:
            await snapshot.close()
            raise
        return snapshot

    @property
    def fence(self) -> int:
        """See Snapshot."""
        return self._fence

    async def read(self, limit_bytes: int) -> Sequence[Record]:
        """See Snapshot."""
        if limit_bytes < 1:
            raise InputError("a part of a snapshot has at least 1 byte")
        return await self._run(lambda: self._next(limit_bytes))

    async def close(self) -> None:
        """See Snapshot."""
        if self._closed:
            return
        self._closed = True
        # After a read that still runs; in its own thread, where the connection is not in use then.
        await asyncio.get_running_loop().run_in_executor(self._thread, self._end)
        self._thread.shutdown(wait=False)
        self._gone(self)

    async def _run(self, act: Callable[[], _Result]) -> _Result:
        if self._closed:
            raise StoreUnavailableError("the snapshot is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, act)
        except sqlite3.Error as error:
            raise store_error(error) from error

    # What follows runs on the snapshot's thread.

    def _begin(self, database: Path) -> None:
        self._connection = connection = open_reader(database)
        # Each page is read once: a large cache would only take memory.
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB:d}")
        connection.execute("BEGIN")
        # SQLite fixes the moment with the first read, not with BEGIN.
        self._fence = read_state(connection).fence
        self._rows = connection.execute(_ALL)

    def _next(self, limit_bytes: int) -> list[Record]:
        assert self._rows is not None
        found: list[Record] = []
        size_bytes = 0
        while size_bytes < limit_bytes:
            row = self._rows.fetchone()
            if row is None:
                break
            record, record_bytes = read_record(_kind(row[0]), row[1:])
            found.append(record)
            size_bytes += record_bytes or 1
        return found

    def _end(self) -> None:
        if self._rows is not None:
            # A connection with rows left to give is not closed: its transaction would last on.
            self._rows.close()
        if self._connection is not None:
            self._connection.close()


def _kind(found: object) -> Kind:
    if type(found) is not str:
        raise corrupt("a record has columns of wrong types")
    kind = Kind(found)
    try:
        check_kind(kind)
    except InputError as error:
        raise corrupt("a record has a kind that cannot be") from error
    return kind
