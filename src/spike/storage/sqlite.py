"""The engine `sqlite`: one file on one machine, nothing to install. The default.

Reads run where they are asked for, on the event loop's thread: a point read takes microseconds, and
handing it to another thread would take twenty times as long. What may take longer (census, check)
has a thread and a connection of its own. Writes go to the one thread of sqlite_writer.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final, TypeVar

from spike.error import InputError, StoreUnavailableError
from spike.storage.decision import check_changes
from spike.storage.order import cursor_at, position_untrusted, prefix_end
from spike.storage.protocol import (
    GENERATION_LIMIT,
    PAGE_BYTE_LIMIT,
    Census,
    Change,
    Cursor,
    Delete,
    Health,
    Kind,
    Page,
    Put,
    Record,
    RecordHead,
    RecordId,
    Revision,
    Store,
    check_generation,
    check_key,
    check_kind,
    check_page_limit,
)
from spike.storage.sqlite_change import read_state
from spike.storage.sqlite_directory import DirectoryClaim, claim_directory
from spike.storage.sqlite_fault import corrupt, store_error
from spike.storage.sqlite_schema import open_reader, open_writer
from spike.storage.sqlite_writer import Writer, size_of

_GET: Final = (
    "SELECT blob, generation, revision FROM record WHERE kind = ? AND key = ? AND version = ?"
)
# Row values use the index (kind, key, version) from both sides; see _end for the last parameter.
_WITHIN: Final = " AND key < ? ORDER BY key, version LIMIT ?"
_SCAN: Final = (
    "SELECT key, version, generation, revision, blob FROM record WHERE kind = ? AND (key, version)"
)
_SCAN_KEY: Final = (
    "SELECT key, version, generation, revision FROM record WHERE kind = ? AND (key, version)"
)
_SCAN_GENERATION: Final = (
    "SELECT key, version, generation, revision, blob FROM record"
    " WHERE kind = ? AND generation = ? AND (key, version)"
)
_FROM: Final = " >= (?, ?)"
_BEHIND: Final = " > (?, ?)"
# Answered from the index record_by_generation alone.
_CENSUS: Final = "SELECT kind, generation, count(*) FROM record GROUP BY kind, generation"

_Item = TypeVar("_Item", Record, RecordHead)
_Result = TypeVar("_Result")


async def open_store(directory: Path) -> Store:
    """Open the store in `directory`, making both if missing. Blocks while SQLite recovers its log.

    Raises:
        SettingError: the directory is not as it must be, or another process uses the store.
        NewerFormatError: a newer version of SPIKE wrote the store.
        StoreUnavailableError: the disk is full or does not answer.
        StoreCorruptError: the file is no database, or not one of its format.
    """
    with ExitStack() as undo:
        claim = claim_directory(directory)
        undo.callback(claim.release)
        try:
            connection, format = open_writer(claim.database)  # noqa: A001 - the glossary's word
            undo.callback(connection.close)
            reader = open_reader(claim.database)
            undo.callback(reader.close)
            writer = Writer(connection, claim.log)
        except sqlite3.Error as error:
            raise store_error(error) from error
        undo.pop_all()
        return SqliteStore(claim, format, reader, writer)


class SqliteStore:
    """A store in one SQLite file. Used from one event loop; made by `open_store`."""

    def __init__(
        self,
        claim: DirectoryClaim,
        format: int,  # noqa: A002 - the glossary's word
        reader: sqlite3.Connection,
        writer: Writer,
    ) -> None:
        self._claim = claim
        self._format = format
        self._reader = reader
        self._writer = writer
        # One thread: a census never runs beside a check, and idle it costs nothing.
        self._long_read = ThreadPoolExecutor(1, thread_name_prefix="spike-storage-read")
        self._closing: asyncio.Task[None] | None = None

    async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - the field's own name
        """See Store."""
        self._check_open()
        try:
            row = self._reader.execute(_GET, (id.kind, id.key, id.version)).fetchone()
        except sqlite3.Error as error:
            raise store_error(error) from error
        if row is None:
            return None
        blob, generation, revision = row
        if type(blob) is not bytes:
            raise corrupt("a record has columns of wrong types")
        return Record(id, blob, *_numbers(generation, revision))

    async def put(self, change: Put, *, fence: int | None) -> Revision:
        """See Store."""
        (revision,) = await self.apply((change,), fence=fence)
        return revision

    async def delete(self, change: Delete, *, fence: int | None) -> None:
        """See Store."""
        await self.apply((change,), fence=fence)

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        """See Store."""
        self._check_open()
        fixed = tuple(changes)
        check_changes(fixed, fence)
        return await self._writer.apply(fixed, fence)

    async def scan(self, kind: Kind, prefix: str, after: Cursor | None, limit: int) -> Page[Record]:
        """See Store."""
        return self._page(_SCAN, _record, (kind,), prefix=prefix, after=after, limit=limit)

    async def scan_key(
        self, kind: Kind, prefix: str, after: Cursor | None, limit: int
    ) -> Page[RecordHead]:
        """See Store."""
        return self._page(_SCAN_KEY, _head, (kind,), prefix=prefix, after=after, limit=limit)

    async def scan_generation(
        self, kind: Kind, generation: int, after: Cursor | None, limit: int
    ) -> Page[Record]:
        """See Store."""
        check_generation(generation)
        return self._page(
            _SCAN_GENERATION, _record, (kind, generation), prefix="", after=after, limit=limit
        )

    async def census(self) -> Census:
        """See Store."""
        rows = await self._read_long(lambda connection: connection.execute(_CENSUS).fetchall())
        try:
            for kind in {kind for kind, _, _ in rows}:
                check_kind(kind)
        except InputError as error:
            raise corrupt("a record has a kind that cannot be") from error
        return {(Kind(kind), generation): count for kind, generation, count in rows}

    async def health(self) -> Health:
        """See Store."""
        self._check_open()
        if not self._writer.alive:
            raise StoreUnavailableError("the store's writing thread has ended", "start again")
        try:
            fence = read_state(self._reader).fence
            (page_bytes,) = self._reader.execute("PRAGMA page_size").fetchone()
            (free_pages,) = self._reader.execute("PRAGMA freelist_count").fetchone()
            disk = os.statvfs(self._claim.path)
        except sqlite3.Error as error:
            raise store_error(error) from error
        except OSError as error:
            raise StoreUnavailableError(f"the store's disk does not answer: {error}") from error
        log_bytes = size_of(self._claim.log)
        return Health(
            engine="sqlite",
            durable=True,
            journal="wal",
            format=self._format,
            size_bytes=size_of(self._claim.database) + log_bytes,
            reclaimable_bytes=free_pages * page_bytes + log_bytes,
            free_bytes=disk.f_bavail * disk.f_frsize,
            fence=fence,
            fault=self._writer.fault,
        )

    async def check(self) -> None:
        """See Store. Reads every page and compares every index with its table.

        SQLite keeps no checksum of a blob: a blob changed in place is found by whoever opens it.
        """
        rows = await self._read_long(
            lambda connection: connection.execute("PRAGMA integrity_check(1)").fetchall()
        )
        if rows != [("ok",)]:
            raise corrupt(str(rows[0][0]) if rows else "its check ends without a result")

    async def purge(self, budget_bytes: int) -> int:
        """See Store."""
        self._check_open()
        if budget_bytes < 1:
            raise InputError("a purge has a budget of at least 1 byte")
        return await self._writer.purge(budget_bytes)

    async def close(self) -> None:
        """See Store. Goes on to its end also when the awaiting task is cancelled."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        # The writer is last: the connection that closes last empties and removes the log.
        await asyncio.to_thread(self._long_read.shutdown)
        self._reader.close()
        await self._writer.stop()
        self._claim.release()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreUnavailableError("the store is closed")

    async def _read_long(self, read: Callable[[sqlite3.Connection], _Result]) -> _Result:
        self._check_open()

        def run() -> _Result:
            with closing(open_reader(self._claim.database)) as connection:
                return read(connection)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._long_read, run)
        except sqlite3.Error as error:
            raise store_error(error) from error

    def _page(
        self,
        statement: str,
        item: Callable[[Kind, tuple[object, ...]], tuple[_Item, int]],
        within: tuple[Kind] | tuple[Kind, int],
        *,
        prefix: str,
        after: Cursor | None,
        limit: int,
    ) -> Page[_Item]:
        self._check_open()
        check_kind(within[0])
        check_key(prefix)
        check_page_limit(limit)
        begin: tuple[str, str] = (prefix, "")
        end = _end(prefix)
        behind = position_untrusted(after)
        if behind is not None and behind >= begin:
            statement, begin = statement + _BEHIND + _WITHIN, behind
        else:
            statement = statement + _FROM + _WITHIN
        items: list[_Item] = []
        size_bytes = 0
        try:
            # Closed at once: a statement left in the middle would keep its view of the store, and
            # with it the log from being emptied.
            values = (*within, *begin, end, limit + 1)
            with closing(self._reader.execute(statement, values)) as rows:
                for row in rows:
                    if len(items) == limit or size_bytes >= PAGE_BYTE_LIMIT:
                        return Page(tuple(items), cursor_at(items[-1].id))
                    found, found_bytes = item(within[0], row)
                    items.append(found)
                    size_bytes += found_bytes
        except sqlite3.Error as error:
            raise store_error(error) from error
        return Page(tuple(items), None)


def _end(prefix: str) -> str | bytes:
    end = prefix_end(prefix)
    # SQLite sorts every blob behind every text: the empty blob is an end behind all keys.
    return b"" if end is None else end


def _head(kind: Kind, row: tuple[object, ...]) -> tuple[RecordHead, int]:
    key, version, generation, revision = row
    return RecordHead(_id(kind, key, version), *_numbers(generation, revision)), 0


def _record(kind: Kind, row: tuple[object, ...]) -> tuple[Record, int]:
    key, version, generation, revision, blob = row
    if type(blob) is not bytes:
        raise corrupt("a record has columns of wrong types")
    return Record(_id(kind, key, version), blob, *_numbers(generation, revision)), len(blob)


def _id(kind: Kind, key: object, version: object) -> RecordId:
    if type(key) is not str or type(version) is not str:
        raise corrupt("a record has columns of wrong types")
    try:
        return RecordId(kind, key, version)
    except InputError as error:
        raise corrupt("a record has a name that cannot be") from error


def _numbers(generation: object, revision: object) -> tuple[int, Revision]:
    if type(generation) is not int or type(revision) is not int:
        raise corrupt("a record has columns of wrong types")
    # The file's own checks can be turned off by whoever writes to it past this engine.
    if not (0 <= generation <= GENERATION_LIMIT and revision >= 1):
        raise corrupt("a record has numbers that cannot be")
    return generation, Revision(revision)
