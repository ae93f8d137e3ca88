"""A SQLite store put together from its parts, so that a test can hold or starve its writing
connection."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from spike.storage.sqlite import Files, SqliteStore
from spike.storage.sqlite_directory import claim_directory
from spike.storage.sqlite_schema import open_reader, open_writer
from spike.storage.sqlite_writer import Writer


def open_with_connection(directory: Path) -> tuple[SqliteStore, sqlite3.Connection]:
    """Open a store and also give the connection its writer uses."""
    claim = claim_directory(directory)
    connection, number = open_writer(claim.database)
    reader = open_reader(claim.database)
    return SqliteStore(claim, Files(number, reader, Writer(connection, claim.log))), connection


@dataclass
class Gate:
    """Stops the writer in front of the statement that begins with `word`, and notes all it ran."""

    connection: sqlite3.Connection
    word: str
    statements: list[str] = field(default_factory=list)
    reached: Event = field(default_factory=Event)
    opened: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.connection.set_trace_callback(self._trace)

    def _trace(self, statement: str) -> None:
        self.statements.append(statement)
        if statement.startswith(self.word):
            self.reached.set()
            assert self.opened.wait(30), "nobody opened the gate"

    def count(self, word: str) -> int:
        return sum(1 for it in self.statements if it.startswith(word))
