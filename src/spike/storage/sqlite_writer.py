"""The one thread that writes a SQLite store, with group commit.

A durable commit costs the disk far more than the changes in it. So whatever was asked for while the
last commit was under way goes into one transaction, each request in a savepoint of its own, and all
are answered after its COMMIT: a request alone waits for nobody, and a hundred at once share one
sync.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, TypeAlias

from spike.error import (
    StoreConflictError,
    StoreCorruptError,
    StoreUnavailableError,
)
from spike.storage.protocol import Change, Put, Revision
from spike.storage.sqlite_change import apply_changes, read_state, write_state
from spike.storage.sqlite_fault import store_error
from spike.storage.sqlite_schema import WRITER_TIMEOUT_MS

# One transaction takes so many requests, or so many bytes with the last of them, and then commits:
# it bounds how long the first of them waits.
_BATCH_LIMIT: Final = 256
_BATCH_BYTE_LIMIT: Final = 8 * 1024 * 1024

Answer: TypeAlias = tuple[Revision, ...] | int | Exception


@dataclass(frozen=True, slots=True)
class _Apply:
    changes: Sequence[Change]
    fence: int | None
    size_bytes: int
    # Carries errors as values: an awaiting task that was cancelled leaves none behind unseen.
    answer: asyncio.Future[Answer] = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Purge:
    budget_bytes: int
    answer: asyncio.Future[Answer] = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Stop:
    answer: asyncio.Future[Answer] = field(compare=False)


_Request: TypeAlias = _Apply | _Purge | _Stop


class Writer:
    """Owns the writing connection from its start until `stop`. Asked from one event loop."""

    def __init__(self, connection: sqlite3.Connection, log: Path) -> None:
        """Start the thread.

        Raises:
            StoreCorruptError: the store's counters are missing.
        """
        self._connection = connection
        self._log = log
        self._committed = read_state(connection)
        self._requests: SimpleQueue[_Request] = SimpleQueue()
        self._stopped = False
        self._fault = ""
        # A daemon: a process that never closed its store can still end. What was answered is on
        # the disk, the rest is rolled back at the next opening.
        self._thread = Thread(target=self._run, name="spike-storage-write", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str:
        """Why the newest transaction failed; empty when it did not."""
        return self._fault

    @property
    def alive(self) -> bool:
        """Whether the thread takes requests."""
        return self._thread.is_alive() and not self._stopped

    async def apply(self, changes: Sequence[Change], fence: int | None) -> tuple[Revision, ...]:
        """See Store.apply. `changes` were checked by `check_changes`."""
        size_bytes = sum(len(it.blob) for it in changes if isinstance(it, Put))
        answer = await self._ask(lambda future: _Apply(changes, fence, size_bytes, future))
        assert isinstance(answer, tuple)
        return answer

    async def purge(self, budget_bytes: int) -> int:
        """See Store.purge."""
        answer = await self._ask(lambda future: _Purge(budget_bytes, future))
        assert isinstance(answer, int)
        return answer

    async def stop(self) -> None:
        """Do what was asked for, empty the log into the database, close the connection."""
        if self.alive:
            ask = self._ask(_Stop)
            self._stopped = True
            await ask

    async def _ask(self, request: Callable[[asyncio.Future[Answer]], _Request]) -> Answer:
        if not self._thread.is_alive():
            raise StoreUnavailableError("the store's writing thread has ended", "start again")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._requests.put(request(future))
        answer = await future
        if isinstance(answer, Exception):
            raise answer
        return answer

    # What follows runs on the writer's thread.

    def _run(self) -> None:
        while True:
            batch, other = self._next()
            if batch:
                answers = self._write(batch)
                _settle([it.answer for it in batch], answers)
            match other:
                case _Purge(budget_bytes, future):
                    _settle([future], [self._purge(budget_bytes)])
                case _Stop(future):
                    self._end()
                    _settle([future], [0])
                    return
                case None:
                    pass

    def _next(self) -> tuple[list[_Apply], _Purge | _Stop | None]:
        """Wait for a request; return it with those that wait behind it and fit one transaction."""
        batch: list[_Apply] = []
        size_bytes = 0
        request = self._requests.get()
        while True:
            if not isinstance(request, _Apply):
                return batch, request
            batch.append(request)
            size_bytes += request.size_bytes
            if len(batch) >= _BATCH_LIMIT or size_bytes >= _BATCH_BYTE_LIMIT:
                return batch, None
            try:
                request = self._requests.get_nowait()
            except Empty:
                return batch, None

    def _write(self, batch: Sequence[_Apply]) -> list[Answer]:
        try:
            answers = self._transact(batch)
        except Exception as error:  # noqa: BLE001 - the thread outlives it, callers get it
            self._roll_back()
            if len(batch) > 1:
                # One that the disk has no room for must not take its neighbours with it.
                return [answer for each in batch for answer in self._write([each])]
            answer = _as_answer(error)
            self._fault = str(answer)
            return [answer]
        return answers

    def _transact(self, batch: Sequence[_Apply]) -> list[Answer]:
        answers: list[Answer] = []
        state = before = self._committed
        self._connection.execute("BEGIN IMMEDIATE")
        for each in batch:
            try:
                after = apply_changes(self._connection, state, each.changes, each.fence)
            except (StoreConflictError, StoreCorruptError) as refused:
                answers.append(refused)
            else:
                answers.append(tuple(map(Revision, range(state.revision + 1, after.revision + 1))))
                state = after
        if state is before:
            self._connection.execute("ROLLBACK")
            return answers
        write_state(self._connection, before, state)
        self._connection.execute("COMMIT")
        # The commit line: from here the changes are on the disk.
        self._committed = state
        self._fault = ""
        return answers

    def _roll_back(self) -> None:
        # SQLite rolls back by itself after some errors. A failing ROLLBACK leaves a transaction
        # open, which the next BEGIN reports.
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _purge(self, budget_bytes: int) -> Answer:
        try:
            (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
            pages = max(1, budget_bytes // page_bytes)
            # Frees a page at each step without giving a row; only executescript steps to the end.
            self._connection.executescript(f"PRAGMA incremental_vacuum({pages:d})")
            self._empty_log()
            (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
            return int(free * page_bytes) + size_of(self._log)
        except Exception as error:  # noqa: BLE001 - the thread outlives it, the caller gets it
            self._roll_back()
            return _as_answer(error)

    def _empty_log(self) -> None:
        # A census in progress keeps the log from being cut. Waiting for it would hold up every
        # write; the caller comes again.
        self._connection.execute("PRAGMA busy_timeout = 0")
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._connection.execute(f"PRAGMA busy_timeout = {WRITER_TIMEOUT_MS:d}")

    def _end(self) -> None:
        # The log that a failure here leaves is complete: the next opening reads it.
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        with suppress(sqlite3.Error):
            self._connection.close()


def size_of(file: Path) -> int:
    """Return the size in bytes, 0 if the file is not there."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _as_answer(error: Exception) -> Exception:
    return store_error(error) if isinstance(error, sqlite3.Error) else error


def _settle(futures: Sequence[asyncio.Future[Answer]], answers: Sequence[Answer]) -> None:
    """Give the answers to the event loop that waits for them, waking it once."""

    def deliver() -> None:
        for future, answer in zip(futures, answers, strict=True):
            if not future.done():  # its task was cancelled
                future.set_result(answer)

    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        futures[0].get_loop().call_soon_threadsafe(deliver)
