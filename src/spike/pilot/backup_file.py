"""A key backup that is kept as a file: where it goes, and what it may take the place of."""

from __future__ import annotations

from pathlib import Path

from spike.error import FormatError, RefusedError, SettingError
from spike.lifecycle import backup
from spike.lifecycle.backup import KeyBackup
from spike.pilot.file import write_whole

_ELSEWHERE = "name another file"


def target_of(path: Path, store_id: str) -> Path:
    """Return the file that a path means: in a directory the one that is named like a backup place's."""
    return path / f"spike-{store_id}.key-backup" if path.is_dir() else path


def export(path: Path, raw: bytes) -> None:
    """Write a key backup, for its owner alone. What was there stays until the new one was read back.

    Raises:
        RefusedError: what is there is no key backup, another store's, or newer.
        SettingError: it cannot be written; what was there is there still.
    """
    _require_replaceable(path, backup.decode_untrusted(raw))
    write_whole(path, raw)


def _require_replaceable(path: Path, new: KeyBackup) -> None:
    held = _read(path)
    if held is None:
        return
    ours, theirs = new.keyring.hint, held.keyring.hint
    if (theirs.store_id, theirs.lineage) != (ours.store_id, ours.lineage):
        raise RefusedError(
            f"{path} is the backup of another store, {theirs.store_id}, lineage {theirs.lineage}",
            _ELSEWHERE,
        )
    if held.pending:
        raise RefusedError(f"{path} is a pending backup", _ELSEWHERE)
    if theirs.age > ours.age:
        raise RefusedError(
            f"{path} is newer (epoch {theirs.epoch}, revision {theirs.revision}) than what Nexus "
            f"holds (epoch {ours.epoch}, revision {ours.revision})",
            "find out whether an old copy of the store was put back; keep that file",
        )


def _read(path: Path) -> KeyBackup | None:
    try:
        with path.open("rb") as file:
            raw = file.read(backup.LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SettingError(f"{path} cannot be read: {error.strerror}", _ELSEWHERE) from error
    try:
        return backup.decode_untrusted(raw)
    except FormatError as error:
        raise RefusedError(f"{path} is there, and {error.message}", _ELSEWHERE) from error
