"""The changes of one `apply` as SQL, inside a transaction that the caller begins and commits."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final, assert_never

from spike.storage.decision import check_expectations, check_fence
from spike.storage.protocol import (
    MUST_NOT_EXIST,
    Change,
    Delete,
    Put,
    RecordId,
    Revision,
    SetFence,
)
from spike.storage.sqlite_fault import corrupt

_INSERT: Final = (
    "INSERT INTO record (kind, key, version, generation, revision, blob) VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (kind, key, version) DO NOTHING"
)
_UPDATE: Final = (
    "UPDATE record SET generation = ?, revision = ?, blob = ?"
    " WHERE kind = ? AND key = ? AND version = ? AND revision = ?"
)
_DELETE: Final = "DELETE FROM record WHERE kind = ? AND key = ? AND version = ? AND revision = ?"
_REVISION: Final = "SELECT revision FROM record WHERE kind = ? AND key = ? AND version = ?"

_Row = tuple[str | int | bytes, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What the store counts: the last revision it gave out, and its fence."""

    revision: int
    fence: int


def read_state(connection: sqlite3.Connection) -> State:
    """Read what the store counts.

    Raises:
        StoreCorruptError: the counters are missing.
    """
    found = dict(connection.execute("SELECT name, value FROM state"))
    if found.keys() != {"revision", "fence"} or not all(type(it) is int for it in found.values()):
        raise corrupt("its counters are missing")
    return State(found["revision"], found["fence"])


def write_state(connection: sqlite3.Connection, before: State, after: State) -> None:
    """Write what changed of what the store counts."""
    update = "UPDATE state SET value = ? WHERE name = ?"
    connection.execute(update, (after.revision, "revision"))
    if after.fence != before.fence:
        connection.execute(update, (after.fence, "fence"))


def apply_changes(
    connection: sqlite3.Connection, before: State, changes: Sequence[Change], fence: int | None
) -> State:
    """Make all changes or none, and return the state after them.

    They take the revisions that follow `before`, one each, in order.

    Raises:
        FenceError, StoreConflictError: refused; the transaction is as it was.
        StoreCorruptError: the records contradict themselves; the transaction is as it was.
        sqlite3.Error: the caller must roll the transaction back.
    """
    check_fence(fence, before.fence)
    connection.execute("SAVEPOINT change")
    after = _make(connection, before, changes)
    if after is None:
        connection.execute("ROLLBACK TO change")
    connection.execute("RELEASE change")
    if after is None:
        # Some change met what it did not expect. Which one is found only now: looking first would
        # cost every successful apply a read for each record.
        check_expectations(changes, before.fence, partial(_revision, connection))
        raise corrupt("an index and its table differ")
    return after


def _make(connection: sqlite3.Connection, before: State, changes: Sequence[Change]) -> State | None:
    """Make the changes; None as soon as fewer rows were changed than there are changes."""
    fence = before.fence
    numbered = enumerate(changes, before.revision + 1)
    for statement, run in groupby(numbered, lambda it: _statement(it[1])):
        if statement is None:
            ((_, change),) = run
            assert isinstance(change, SetFence)
            if change.epoch < fence:
                return None
            fence = change.epoch
            continue
        rows = list(_rows(run))
        if connection.executemany(statement, rows).rowcount != len(rows):
            return None
    return State(before.revision + len(changes), fence)


def _statement(change: Change) -> str | None:
    match change:
        case Put(expected=expected):
            return _INSERT if expected is MUST_NOT_EXIST else _UPDATE
        case Delete():
            return _DELETE
        case SetFence():
            return None
        case _:
            assert_never(change)


def _rows(numbered: Iterable[tuple[int, Change]]) -> Iterable[_Row]:
    for revision, change in numbered:
        match change:
            case Put(id, blob, generation, expected):
                name = (id.kind, id.key, id.version)
                if expected is MUST_NOT_EXIST:
                    yield (*name, generation, revision, blob)
                else:
                    yield (generation, revision, blob, *name, expected)
            case Delete(id, expected):
                yield (id.kind, id.key, id.version, expected)
            case SetFence():
                raise AssertionError("a fence has no row")
            case _:
                assert_never(change)


def _revision(connection: sqlite3.Connection, id: RecordId) -> Revision | None:  # noqa: A002
    row = connection.execute(_REVISION, (id.kind, id.key, id.version)).fetchone()
    return None if row is None else Revision(row[0])
