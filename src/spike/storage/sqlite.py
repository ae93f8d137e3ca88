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
from typing import Final, NamedTuple, TypeVar

from spike.error import InputError, StoreUnavailableError
from spike.storage.decision import check_changes
from spike.storage.order import cursor_at, position_untrusted, prefix_end
from spike.storage.protocol import (
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
from spike.storage.sqlite_aside import Asides
from spike.storage.sqlite_change import read_state
from spike.storage.sqlite_directory import DirectoryClaim, claim_directory
from spike.storage.sqlite_fault import corrupt, store_error
from spike.storage.sqlite_row import read_head, read_numbers, read_record
from spike.storage.sqlite_schema import open_reader, open_writer
from spike.storage.sqlite_snapshot import SqliteSnapshot
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
        files = _open_files(claim)
        undo.pop_all()
        return SqliteStore(claim, files)


class Files(NamedTuple):
    """The open file of a store: its format, and who reads and who writes it."""

    format: int
    reader: sqlite3.Connection
    writer: Writer


def _open_files(claim: DirectoryClaim) -> Files:
    with ExitStack() as undo:
        try:
            connection, found = open_writer(claim.database)
            undo.callback(connection.close)
            reader = open_reader(claim.database)
            undo.callback(reader.close)
            writer = Writer(connection, claim.log)
        except sqlite3.Error as error:
            raise store_error(error) from error
        undo.pop_all()
        return Files(found, reader, writer)


class SqliteStore:
    """A store in one SQLite file. Used from one event loop; made by `open_store`."""

    def __init__(self, claim: DirectoryClaim, files: Files) -> None:
        self._claim = claim
        self._format, self._reader, self._writer = files
        self._long_read = _long_reader()
        self._snapshots: set[SqliteSnapshot] = set()
        self._moving = asyncio.Lock()
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
        return Record(id, blob, *read_numbers(generation, revision))

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
        return self._page(_SCAN, read_record, (kind,), prefix=prefix, after=after, limit=limit)

    async def scan_key(
        self, kind: Kind, prefix: str, after: Cursor | None, limit: int
    ) -> Page[RecordHead]:
        """See Store."""
        return self._page(_SCAN_KEY, read_head, (kind,), prefix=prefix, after=after, limit=limit)

    async def scan_generation(
        self, kind: Kind, generation: int, after: Cursor | None, limit: int
    ) -> Page[Record]:
        """See Store."""
        check_generation(generation)
        return self._page(
            _SCAN_GENERATION, read_record, (kind, generation), prefix="", after=after, limit=limit
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

    async def snapshot(self) -> SqliteSnapshot:
        """See CanSnapshot. Until it is closed the log keeps what was written meanwhile."""
        self._check_open()
        snapshot = await SqliteSnapshot.open(self._claim.database, self._snapshots.discard)
        self._snapshots.add(snapshot)
        return snapshot

    async def set_aside(self, name: str) -> None:
        """See CanSetAside. The file lies in the directory `aside/NAME` of the store's directory."""
        await self._with_files_closed(lambda: self._asides.put(name))

    async def bring_back(self, name: str, present_as: str | None) -> None:
        """See CanSetAside."""
        await self._with_files_closed(lambda: self._asides.take(name, present_as))

    async def asides(self) -> Sequence[str]:
        """See CanSetAside."""
        return await asyncio.to_thread(self._asides.names)

    async def erase(self) -> None:
        """See CanErase. What the disk keeps of a removed file is beyond an engine's reach."""
        await self._with_files_closed(self._asides.remove_present)

    @property
    def _asides(self) -> Asides:
        return Asides(self._claim.path)

    async def close(self) -> None:
        """See Store. Goes on to its end also when the awaiting task is cancelled."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        async with self._moving:
            await self._close_files()
            self._claim.release()

    async def _close_files(self) -> None:
        for snapshot in tuple(self._snapshots):
            await snapshot.close()
        # The writer is last: the connection that closes last empties and removes the log.
        await asyncio.to_thread(self._long_read.shutdown)
        self._reader.close()
        await self._writer.stop()

    async def _with_files_closed(self, act: Callable[[], None]) -> None:
        """Do something to the file while nobody has it open, and open what lies there then.

        A task that is cancelled does not leave the store closed.
        """
        self._check_open()
        await asyncio.shield(asyncio.ensure_future(self._moved(act)))

    async def _moved(self, act: Callable[[], None]) -> None:
        async with self._moving:
            await self._close_files()
            try:
                await asyncio.to_thread(act)
            except OSError as error:
                raise StoreUnavailableError(
                    f"the store's file cannot be moved: {error.strerror}", "look at the disk"
                ) from error
            finally:
                # Whether it was moved or not: there is a store again, or each call says that there is none.
                self._claim.make_database()
                self._format, self._reader, self._writer = _open_files(self._claim)
                self._long_read = _long_reader()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise StoreUnavailableError("the store is closed")
        if self._moving.locked():
            raise StoreUnavailableError("the store's file is being moved", "try again")

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


def _long_reader() -> ThreadPoolExecutor:
    # One thread: a census never runs beside a check, and idle it costs nothing.
    return ThreadPoolExecutor(1, thread_name_prefix="spike-storage-read")


def _end(prefix: str) -> str | bytes:
    end = prefix_end(prefix)
    # SQLite sorts every blob behind every text: the empty blob is an end behind all keys.
    return b"" if end is None else end
