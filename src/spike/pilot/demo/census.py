"""What stands in a store, as anybody can read it who reads its file: no key and no word of Nexus is needed."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from spike.pilot.demo.claim import require

# A keyring is no sealed record; what was set aside is kept as it was found, and nothing reads it.
_NOT_SEALED: Final = frozenset({"keyring", "set-aside"})
# docs/reference/format.md: format and suite, one byte each, then the generation in four.
_FORMAT_AND_SUITE: Final = b"\x01\x01"
_WAIT_S: Final = 10.0

Name = tuple[str, str, str]
"""Kind, key and version of a record."""


def database(directory: Path) -> Path:
    """Return the file of a store."""
    return directory / "store.sqlite"


def records(file: Path) -> Iterator[tuple[Name, bytes]]:
    """Give every sealed record of a store's file, as it is stored at one moment."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=_WAIT_S)) as connection:
        for kind, key, version, blob in connection.execute(
            "SELECT kind, key, version, blob FROM record"
        ):
            if kind not in _NOT_SEALED:
                yield (str(kind), str(key), str(version)), blob


def keyring(file: Path) -> bytes:
    """Return the keyring that stands in a store's file."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=_WAIT_S)) as connection:
        (blob,) = connection.execute("SELECT blob FROM record WHERE kind = 'keyring'").fetchone()
    found: bytes = blob
    return found


def generations(file: Path) -> Counter[int]:
    """Count the records by the generation in each blob itself, whatever the columns beside it say.

    Raises:
        ClaimError: a record has not the form of one.
    """
    found: Counter[int] = Counter()
    for name, blob in records(file):
        require(blob[:2] == _FORMAT_AND_SUITE, f"the record {name} has not the form of one")
        found[int.from_bytes(blob[2:6], "big")] += 1
    return found


def put_back(file: Path, name: Name, blob: bytes, generation: int) -> None:
    """Write a record into a store's file behind Nexus's back, as if it had always been there."""
    with closing(sqlite3.connect(file, timeout=_WAIT_S)) as connection, connection:
        connection.execute("DELETE FROM record WHERE (kind, key, version) = (?, ?, ?)", name)
        connection.execute(
            "INSERT INTO record (kind, key, version, generation, revision, blob) VALUES (?, ?, ?, ?, 1, ?)",
            (*name, generation, blob),
        )
