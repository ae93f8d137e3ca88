"""What a backup place keeps of a factory reset: `spike-STORE.factory-reset`, one line of JSON.

It is nobody's secret and nobody's proof: it is there so that whoever looks for a store that is gone learns when it was
reset, and by whom.
"""

from __future__ import annotations

import os

import msgspec

from spike.error import StoreUnavailableError
from spike.nexus.place import Place


class ResetNote(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which store was reset, how far it had come, by whom, when; `ended_at` is empty until it is done."""

    store_id: str
    lineage: str
    epoch: int
    records: int
    actor: str
    begun_at: str
    ended_at: str = ""
    format: int = 1

    def ended(self, at: str) -> ResetNote:
        """Return the note of a reset that is done."""
        return msgspec.structs.replace(self, ended_at=at)


async def write_note(place: Place, note: ResetNote) -> None:
    """Write a note in the place of the one before, of the same store.

    Raises:
        StoreUnavailableError: it could not be written.
    """
    await place.reach.call(_write, place, note)


def _write(place: Place, note: ResetNote) -> None:
    path = place.directory / f"spike-{note.store_id}.factory-reset"
    beside = path.with_name(path.name + ".new")
    try:
        beside.unlink(missing_ok=True)
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(note) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        directory = os.open(place.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StoreUnavailableError(
            f"the backup place {place.directory} cannot be written: {error.strerror}"
        ) from error
