"""A backup place: a directory that holds the newest key backup and the newest anchor of a store.

While a rotation is on its way there is a third file, the pending key backup: that of the keyring that is to follow. It
never lies in the place of the one in force.

A file is written whole beside the one it replaces, synced, read back and compared, and only then takes its name. So a
place never holds less than it held, whatever happens in between. It can be lost or tampered with like any storage:
what is read from it is confirmed by the root key before it is believed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from spike.error import SettingError, StoreUnavailableError
from spike.lifecycle import anchor, backup
from spike.nexus.place_reach import Reach

_BACKUP: Final = "key-backup"
_PENDING: Final = "key-backup.pending"
_ANCHOR: Final = "anchor"


@dataclass(frozen=True, slots=True)
class Place:
    """One directory. Calls block for as long as the disk takes: make them through `reach`, off the event loop."""

    directory: Path
    reach: Reach = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "reach", Reach(str(self.directory)))

    def prepare(self) -> None:
        """Make the directory (0700) or check it.

        Raises:
            SettingError: it is no directory of ours that others cannot enter.
        """
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self.directory.stat()
        except OSError as error:
            raise SettingError(
                f"the backup place {self.directory} cannot be used: {error.strerror}",
                "name another directory in SPIKE_NEXUS_BACKUP_DIR",
            ) from error
        if _is_open_to_others(status):
            raise SettingError(
                self._entered_by_others,
                f"chown it to this user and run: chmod 700 {self.directory}",
            )

    def write_backup(self, store_id: str, raw: bytes) -> None:
        """Replace the key backup of a store.

        Raises:
            StoreUnavailableError: it could not be written and read back; the old one is still there.
        """
        self._write(self._path(store_id, _BACKUP), raw)

    def write_pending(self, store_id: str, raw: bytes) -> None:
        """Replace the pending key backup of a store; the one in force is not touched.

        Raises:
            StoreUnavailableError: it could not be written and read back.
        """
        self._write(self._path(store_id, _PENDING), raw)

    def remove_pending(self, store_id: str) -> None:
        """Remove the pending key backup of a store, and see that it is gone. Idempotent.

        Raises:
            StoreUnavailableError: it is still there.
        """
        path = self._path(store_id, _PENDING)
        try:
            path.unlink(missing_ok=True)
            _sync_directory(self.directory)
        except OSError as error:
            raise StoreUnavailableError(
                f"the pending key backup {path} cannot be removed: {error.strerror}"
            ) from error

    def write_anchor(self, store_id: str, raw: bytes) -> None:
        """Replace the anchor of a store.

        Raises:
            StoreUnavailableError: it could not be written and read back; the old one is still there.
        """
        self._write(self._path(store_id, _ANCHOR), raw)

    def read_backup(self, store_id: str) -> bytes | None:
        """Return the key backup of a store, or None when there is none that can be read."""
        return _read(self._path(store_id, _BACKUP), backup.LIMIT_BYTES)

    def read_pending(self, store_id: str) -> bytes | None:
        """Return the pending key backup of a store, or None when there is none that can be read."""
        return _read(self._path(store_id, _PENDING), backup.LIMIT_BYTES)

    def read_anchor(self, store_id: str) -> bytes | None:
        """Return the anchor of a store, or None when there is none that can be read."""
        return _read(self._path(store_id, _ANCHOR), anchor.LIMIT_BYTES)

    def backup_path(self, store_id: str) -> Path:
        """Return where the key backup of a store lies."""
        return self._path(store_id, _BACKUP)

    @property
    def _entered_by_others(self) -> str:
        return f"others can enter the backup place {self.directory}"

    def _path(self, store_id: str, what: str) -> Path:
        return self.directory / f"spike-{store_id}.{what}"

    def _write(self, path: Path, raw: bytes) -> None:
        beside = path.with_name(path.name + ".new")
        try:
            # Again: at the start it may not have answered, and another disk may have taken its place since.
            if _is_open_to_others(self.directory.stat()):
                raise StoreUnavailableError(self._entered_by_others)
            beside.unlink(missing_ok=True)
            descriptor = os.open(
                beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600
            )
            with open(descriptor, "wb") as file:  # noqa: PTH123  (a descriptor, not a path)
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            if beside.read_bytes() != raw:
                raise StoreUnavailableError(
                    f"the backup place {self.directory} does not keep what is written"
                )
            beside.replace(path)
            _sync_directory(self.directory)
        except OSError as error:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)  # half a file takes room on a disk that has none
            raise StoreUnavailableError(
                f"the backup place {self.directory} cannot be written: {error.strerror}",
                "look at that disk, and make room; it is written again by itself",
            ) from error


def _is_open_to_others(status: os.stat_result) -> bool:
    return status.st_uid != os.geteuid() or bool(status.st_mode & 0o077)


def _read(path: Path, limit_bytes: int) -> bytes | None:
    try:
        # Without waiting: a pipe planted here would hold a restore up for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:  # noqa: PTH123  (a descriptor, not a path)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return file.read(limit_bytes + 1)
    except OSError:
        return None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
