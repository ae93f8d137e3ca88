"""Rotations of a real Nexus: waited for through the client, and looked at in the store's file from outside."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import NamedTuple

from process_kit import Installation, eventually
from spike.error import NotReadyError
from spike.lifecycle import keyring
from spike.nexus.record_check import SEALED_KINDS, header_generation
from spike.storage.sqlite_directory import DATABASE
from spike.wire.rotation import Rotation

ENDED = ("finalized", "dropped", "failed")


class Row(NamedTuple):
    """A row of the store's file."""

    kind: str
    key: str
    version: str
    generation: int
    revision: int
    blob: bytes


def is_dead(spike: Installation) -> bool:
    """Tell whether the process of Nexus has ended."""
    return spike.nexus is None or spike.nexus.poll() is not None


def wait_until(spike: Installation, what: str, wanted: Callable[[Rotation | None], bool]) -> None:
    """Wait until the rotation is as wanted, or Nexus is dead; one that is locked is waited for."""

    def has_come() -> bool:
        try:
            return wanted(spike.client.get_rotation())
        except NotReadyError:
            return is_dead(spike)

    eventually(what, has_come, 120)


def until(spike: Installation, *phases: str) -> None:
    """Wait until the rotation is in one of these phases, or Nexus is dead."""
    wait_until(
        spike, f"a rotation is {phases}", lambda now: now is not None and now.phase in phases
    )


def rests(rotation: Rotation | None) -> bool:
    """Tell whether nothing is left to do but to wait for a window to end or a person."""
    return rotation is None or rotation.phase in (*ENDED, "verified") or rotation.paused


def is_over(rotation: Rotation | None) -> bool:
    """Tell whether none is in progress."""
    return rotation is None or rotation.phase in ENDED


@contextlib.contextmanager
def file_of(spike: Installation) -> Iterator[sqlite3.Connection]:
    """Open the store's file as whoever holds the disk can."""
    with contextlib.closing(sqlite3.connect(spike.store / DATABASE)) as database:
        yield database


def rows_in_file(spike: Installation, kind: str, key: str = "") -> list[Row]:
    """Return the rows of a kind, only those of a key if one is named."""
    with file_of(spike) as database:
        found = database.execute(
            "SELECT kind, key, version, generation, revision, blob FROM record"
            " WHERE kind = ? AND (key = ? OR ? = '') ORDER BY key, version",
            (kind, key, key),
        )
        return [Row(*row) for row in found]


def put_row(spike: Installation, row: Row) -> None:
    """Write a row past SPIKE, in the place of the one of its name if there is one. Nexus does not run."""
    with file_of(spike) as database:
        database.execute(
            "INSERT OR REPLACE INTO record (kind, key, version, generation, revision, blob)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            row,
        )
        database.commit()


def stored_keyring(spike: Installation) -> keyring.UnconfirmedKeyring:
    """Return the keyring in the store's file."""
    (row,) = rows_in_file(spike, "keyring")
    return keyring.decode_untrusted(row.blob)


def phase_in_file(spike: Installation) -> str:
    """Return the phase of the rotation that the stored keyring tells of, or "none"."""
    rotation = stored_keyring(spike).hint.rotation
    return "none" if rotation is None else f"{rotation.kind} {rotation.phase}"


def sealed_rows(spike: Installation) -> list[Row]:
    """Return every row that holds a sealed record."""
    return [row for kind in sorted(SEALED_KINDS) for row in rows_in_file(spike, kind)]


def generations_in_file(spike: Installation) -> set[int]:
    """Return under which record keys the stored blobs are, from the blobs themselves."""
    return {header_generation(row.blob) for row in sealed_rows(spike)}
