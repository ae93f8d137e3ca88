"""The file of a system backup on Pilot's machine: written whole before it takes its name, and read to its end.

FILE.part   while it is made; 0600; locked by who makes it
FILE        once every byte was synced, read back from the disk and found whole
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final

from spike.error import SettingError

if TYPE_CHECKING:
    from spike.lifecycle.system_backup_reader import Summary

_READ_BYTES: Final = 1 << 20
Progress = Callable[[int], None]
"""Is told how many bytes have gone through so far."""


def create(path: Path, pieces: Iterable[bytes], progress: Progress) -> Summary:
    """Write a system backup and return what it is. Whatever happens, FILE is there whole or not at all.

    Raises:
        SettingError: there is a file of this name, or it cannot be written.
        FormatError: what came is no whole system backup; nothing takes the name.
    """
    with _part_of(path) as (part, file):
        try:
            written = 0
            for piece in pieces:
                file.write(piece)
                written += len(piece)
                progress(written)
            file.flush()
            os.fsync(file.fileno())
            summary = examine(part, lambda _: None)
            require_free(path)
            # The commit line: the name is given once the bytes are known to be there.
            part.rename(path)
            _sync_names(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error
        return summary


def examine(path: Path, progress: Progress) -> Summary:
    """Read a system backup to its end and return what it is. No key is needed; nothing is authenticated.

    Raises:
        SettingError: it cannot be read.
        NewerFormatError: a newer SPIKE wrote it.
        FormatError: it is none, or damaged; the message says how.
    """
    from spike.lifecycle.system_backup_reader import Parser

    parser = Parser()
    read = 0
    for piece in pieces_of(path, _READ_BYTES):
        for _ in parser.feed(piece):
            pass
        read += len(piece)
        progress(read)
    return parser.summary()


def pieces_of(path: Path, size_bytes: int) -> Iterator[bytes]:
    """Give a file in pieces of `size_bytes`, the last one shorter.

    Raises:
        SettingError: it cannot be read, or is no regular file.
    """
    try:
        with path.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise SettingError(f"{path} is no regular file", "name a file")
            while piece := file.read(size_bytes):
                yield piece
    except OSError as error:
        raise SettingError(
            f"the system backup {path} cannot be read: {error.strerror}", "check the path"
        ) from error


def size_of(path: Path) -> int:
    """Return the size of a file in bytes, 0 where it cannot be told."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def require_free(path: Path) -> None:
    """Return if nothing has this name: no backup is ever written over.

    Raises:
        SettingError: something has.
    """
    if os.path.lexists(path):
        raise SettingError(f"{path} is there already, and is not written over", "name another file")


@contextmanager
def _part_of(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open FILE.part for writing; it is gone afterwards, unless it was given its name."""
    require_free(path)
    part = path.with_name(path.name + ".part")
    try:
        # What a killed run has left is written over; one that runs holds the lock.
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    with os.fdopen(descriptor, "wb") as file:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SettingError(f"{part} is being written", "wait, or name another file") from None
        try:
            os.fchmod(descriptor, 0o600)
            os.ftruncate(descriptor, 0)
            yield part, file
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _sync_names(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unwritable(path: Path, error: OSError) -> SettingError:
    return SettingError(
        f"{path} cannot be written: {error.strerror}",
        "make room, or name a file in a directory that you may write to",
    )
