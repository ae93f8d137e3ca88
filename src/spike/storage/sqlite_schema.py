"""The file format of the SQLite engine: its settings, its numbered migrations, its check at
opening.

The format number is SQLite's `user_version`; format n is what migrations 1 to n make.
"""

from __future__ import annotations

import re
import sqlite3
from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import quote

from spike.error import NewerFormatError, SettingError
from spike.storage.sqlite_fault import corrupt

APPLICATION_ID: Final = 0x53504B45
"""\"SPKE\" in the header of the file."""

_OLDEST_SQLITE: Final = (3, 37, 0)  # STRICT tables
_MIGRATION: Final = re.compile(r"([0-9]{4})_[a-z_]+\.sql")

# trusted_schema, cell_size_check: the file may have been written by someone who means harm.
# temp_store: what SQLite keeps for a rollback must not reach a file outside the directory.
_COMMON: Final = """
PRAGMA trusted_schema = OFF;
PRAGMA cell_size_check = ON;
PRAGMA temp_store = MEMORY;
"""
# journal_size_limit: a log that one large burst made is cut back when it is used again.
_WRITER: Final = """
PRAGMA synchronous = FULL;
PRAGMA secure_delete = ON;
PRAGMA journal_size_limit = 16777216;
"""
_READER: Final = """
PRAGMA query_only = ON;
PRAGMA cache_size = -16384;
"""
WRITER_TIMEOUT_MS: Final = 1_000
"""How long a write waits for another program that reads or copies the file."""
# Reads run on the event loop's thread, which nothing may hold up for long.
_READER_TIMEOUT_MS: Final = 200


def open_writer(database: Path) -> tuple[sqlite3.Connection, int]:
    """Open the file, bring it to the newest format, and return the connection and the format.

    Raises:
        NewerFormatError: a newer version of SPIKE wrote the file. Nothing was changed.
        SettingError: it is another program's file, its file system cannot hold a store, or SQLite
            is too old.
        StoreCorruptError: its tables are not those of its format.
        sqlite3.Error: as SQLite reports it.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise SettingError(
            f"this Python has SQLite {sqlite3.sqlite_version}; a store needs 3.37 or newer",
            "use a Python that was built with a newer SQLite",
        )
    migrations = read_migrations()
    with ExitStack() as undo:
        connection = undo.enter_context(closing(_connect(database, WRITER_TIMEOUT_MS)))
        connection.executescript(_COMMON)
        found = _format(connection, database)
        if found > len(migrations):
            raise NewerFormatError("store", found, len(migrations))
        if found == 0:
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # only before the first table
        _set_journal(connection, database)
        connection.executescript(_WRITER)
        migrate(connection, migrations)
        _check_settings(connection)
        _check_schema(connection, migrations)
        undo.pop_all()
    return connection, len(migrations)


def open_reader(database: Path) -> sqlite3.Connection:
    """Open the file for reading alone, after `open_writer` did."""
    connection = _connect(database, _READER_TIMEOUT_MS)
    connection.executescript(_COMMON + _READER)
    return connection


def read_migrations() -> tuple[str, ...]:
    """Return the SQL of migrations 1, 2, … in order."""
    found: dict[int, str] = {}
    for file in files("spike.storage").joinpath("migration").iterdir():
        match = _MIGRATION.fullmatch(file.name)
        if match is not None:
            found[int(match[1])] = file.read_text(encoding="utf-8")
    return tuple(found[number] for number in range(1, len(found) + 1))


def migrate(connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    """Bring the file to the format of these migrations, each in a transaction of its own."""
    (present,) = connection.execute("PRAGMA user_version").fetchone()
    for number in range(present + 1, len(migrations) + 1):
        script = migrations[number - 1]
        try:
            # The number changes in the same transaction: a migration killed half-way never was.
            connection.executescript(
                f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;"
            )
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _connect(database: Path, timeout_ms: int) -> sqlite3.Connection:
    # mode=rw: never makes a file, so a database that vanished is an error and not an empty store.
    # The store decides which thread uses a connection; SQLite is built to allow any.
    return sqlite3.connect(
        f"file:{quote(str(database))}?mode=rw",
        uri=True,
        timeout=timeout_ms / 1000,
        isolation_level=None,
        check_same_thread=False,
    )


def _format(connection: sqlite3.Connection, database: Path) -> int:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (size,) = connection.execute("PRAGMA page_count").fetchone()
    # No format yet is right for an empty file alone, or one whose first migration was cut off.
    fresh = application_id == 0 and found == 0 and (size == 0 or not _schema(connection))
    if not fresh and (application_id != APPLICATION_ID or found < 1):
        raise SettingError(f"{database} is not a store of SPIKE", "name another directory")
    return int(found)


def _set_journal(connection: sqlite3.Connection, database: Path) -> None:
    (journal,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if journal != "wal":
        raise SettingError(
            f"the file system of {database} cannot hold SQLite's write-ahead log",
            "put the store on a local disk",
        )


def _check_settings(connection: sqlite3.Connection) -> None:
    # SQLite ignores settings it was built without; each of these carries a promise.
    for name, expected in (("synchronous", 2), ("secure_delete", 1), ("auto_vacuum", 2)):
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != expected:
            raise SettingError(
                f"SQLite does not take the setting {name} = {expected} for this store",
                "use a SQLite library that does, and a store made by SPIKE",
            )


def _check_schema(connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    # Someone who can write the file could add a trigger that undoes or copies what is written.
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        migrate(model, migrations)
        if _schema(connection) != _schema(model):
            raise corrupt("its tables, indexes or triggers are not those of its format")


def _schema(connection: sqlite3.Connection) -> list[tuple[str, str, str, str]]:
    # Names that begin with sqlite_ are SQLite's own: statistics, and indexes implied by a table.
    return connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_schema"
        " WHERE name NOT LIKE 'sqlite~_%' ESCAPE '~' ORDER BY type, name"
    ).fetchall()
