"""What SQLite's errors mean for a caller of the store."""

from __future__ import annotations

import sqlite3
from typing import Final

from spike.error import StoreCorruptError, StoreError, StoreUnavailableError

# Result codes of https://www.sqlite.org/rescode.html: those after which the same call may succeed
# once the machine is well again. Everything else says that the file is not what it must be.
_UNAVAILABLE: Final = {
    sqlite3.SQLITE_PERM: "make the store's files readable and writable for this user",
    sqlite3.SQLITE_BUSY: "end whatever else has the store's file open",
    sqlite3.SQLITE_LOCKED: "end whatever else has the store's file open",
    sqlite3.SQLITE_NOMEM: "give the process more memory",
    sqlite3.SQLITE_READONLY: "make the store's file system writable",
    sqlite3.SQLITE_INTERRUPT: "",
    sqlite3.SQLITE_IOERR: "look at the machine's disk",
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_CANTOPEN: "look at the store's directory",
    sqlite3.SQLITE_PROTOCOL: "end whatever else has the store's file open",
    sqlite3.SQLITE_NOLFS: "use a file system that takes large files",
}
_PRIMARY: Final = 0xFF
_DAMAGED_FILE_SYSTEM: Final = 8458  # SQLITE_IOERR_CORRUPTFS, which older builds do not name
_CORRUPT_STEP: Final = "stop, keep a copy of the store's directory, and restore from a backup"


def store_error(error: sqlite3.Error) -> StoreError:
    """Return what to raise for `error`. SQLite's messages name tables and files, never a value."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    # A file system that says that its file is damaged reports it as an input/output error.
    if code is not None and code != _DAMAGED_FILE_SYSTEM:
        next_step = _UNAVAILABLE.get(code & _PRIMARY)
        if next_step is not None:
            return StoreUnavailableError(f"the store does not answer: {error}", next_step)
    return corrupt(str(error))


def corrupt(what: str) -> StoreCorruptError:
    """Return the error for a store that holds what cannot be."""
    return StoreCorruptError(f"the store is damaged: {what}", _CORRUPT_STEP)
