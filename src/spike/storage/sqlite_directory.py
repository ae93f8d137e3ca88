"""The directory a SQLite store lives in: who may read it, and that one process alone uses it."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spike.error import SettingError, SpikeError, StoreUnavailableError

DATABASE: Final = "store.sqlite"
LOG: Final = DATABASE + "-wal"
_FILES: Final = (DATABASE, LOG, DATABASE + "-shm")

# A store made here by mistake would lie among other programs' files, or be swept by the system.
_OF_THE_SYSTEM: Final = re.compile(
    r"""
      / | /(dev|home|media|mnt|opt|root|run|srv|tmp|usr|var)
    | /dev/shm | /home/[^/]+ | /run/(lock|user|user/[^/]+) | /usr/local(/etc|/share)?
    | /var/(cache|lib|lock|log|mail|run|spool|tmp)
    | /(bin|boot|etc|lib|lib32|lib64|proc|sbin|sys|usr/bin|usr/lib|usr/sbin)(/.*)?
    """,
    re.VERBOSE | re.DOTALL,
)


@dataclass(slots=True)
class DirectoryClaim:
    """A directory that this process alone uses, until `release` or its end."""

    path: Path
    _descriptor: int | None

    @property
    def database(self) -> Path:
        """The file that holds the records."""
        return self.path / DATABASE

    @property
    def log(self) -> Path:
        """SQLite's write-ahead log, which is there while the store is open."""
        return self.path / LOG

    def make_database(self) -> None:
        """Make an empty database file where there is none, and check the files that are there.

        Raises:
            SettingError: something else lies in the place of a file.
            StoreUnavailableError: the disk is full or does not answer, or the directory was released.
        """
        if self._descriptor is None:
            raise StoreUnavailableError("the store is closed")
        try:
            _make_database(self.path, self._descriptor)
        except OSError as error:
            raise _directory_error(self.path, error) from error

    def release(self) -> None:
        """Let others have the directory. Idempotent."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def claim_directory(directory: Path) -> DirectoryClaim:
    """Make the directory (0700) and its database file (0600, empty) if missing, check, and lock.

    The lock is an exclusive flock(2) on the directory itself: there is no lock file that someone
    could take for stale and delete. The kernel lifts it when the process ends, however it ends.

    Raises:
        SettingError: a system directory; not ours; wrong rights; a symbolic link or something else
            in the place of a file; in use by another process.
        StoreUnavailableError: the disk is full or does not answer.
    """
    path = directory.resolve()
    if _OF_THE_SYSTEM.fullmatch(str(path)):
        raise SettingError(
            f"{path} belongs to the system and cannot hold a store",
            "name a directory of its own for the store",
        )
    try:
        _make_directory(path)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _directory_error(path, error) from error
    try:
        _lock(path, descriptor)
        _check_rights(path, os.fstat(descriptor), 0o700)
        _make_database(path, descriptor)
    except OSError as error:
        os.close(descriptor)
        raise _directory_error(path, error) from error
    except SpikeError:
        os.close(descriptor)
        raise
    return DirectoryClaim(path, descriptor)


def _make_directory(path: Path) -> None:
    missing = [it for it in (path, *path.parents) if not it.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700)
        each.chmod(0o700)  # the umask may have taken our own rights away
        sync_directory(each.parent)


def _make_database(path: Path, descriptor: int) -> None:
    # Made before SQLite opens it, with the rights in the call itself: at no moment can others read
    # it. SQLite gives its log and index files the rights of the database.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # Closed at once and never opened by us again: closing any descriptor of this file would
        # drop the locks that SQLite holds on it (POSIX record locks belong to the process).
        file = os.open(DATABASE, flags, 0o600, dir_fd=descriptor)
    except FileExistsError:
        pass
    else:
        os.fchmod(file, 0o600)  # the umask may have taken our own rights away
        os.close(file)
        os.fsync(descriptor)
    for name in _FILES:
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if not stat.S_ISREG(status.st_mode):
            raise SettingError(
                f"{path / name} is not an ordinary file", "put the store's own file in its place"
            )
        _check_rights(path / name, status, 0o600)


def _lock(path: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingError(
            f"another process uses the store in {path}", "stop that one first, or name another"
        ) from None


def _check_rights(path: Path, status: os.stat_result, mode: int) -> None:
    if status.st_uid != os.geteuid():
        raise SettingError(
            f"{path} belongs to another user", f"run as its owner, or: chown {os.geteuid()} {path}"
        )
    found = stat.S_IMODE(status.st_mode)
    if found != mode:
        raise SettingError(
            f"{path} has the rights {found:04o} and must have {mode:04o}", f"chmod {mode:o} {path}"
        )


def _directory_error(path: Path, error: OSError) -> SpikeError:
    message = f"the store's directory {path} cannot be used: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        return StoreUnavailableError(message, "make room on the disk, and look whether it is well")
    return SettingError(message, "name a directory that this user may make and write")


def sync_directory(directory: Path) -> None:
    """See that the names in a directory outlive a crash."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
