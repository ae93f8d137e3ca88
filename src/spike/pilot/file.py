"""Files that a command reads and writes: read up to a limit, written whole and for their owner alone."""

from __future__ import annotations

import errno
import os
import secrets
import socket
import stat
import sys
from pathlib import Path
from typing import Final

from spike.error import InputError, SettingError

_PLACE_LIMIT: Final = 300


def read_bounded(path: Path | None, limit_bytes: int) -> bytes:
    """Return all of a file, or of standard input if there is no path.

    Raises:
        SettingError: it cannot be read.
        InputError: it is larger than `limit_bytes`.
    """
    name = "standard input" if path is None else str(path)
    try:
        if path is None:
            data = sys.stdin.buffer.read(limit_bytes + 1)
        else:
            with path.open("rb") as file:
                data = file.read(limit_bytes + 1)
    except OSError as error:
        raise SettingError(
            f"{name} cannot be read: {error.strerror}", "check the path and its permissions"
        ) from error
    if len(data) > limit_bytes:
        raise InputError(f"{name} has more than {limit_bytes} bytes", "give less at once")
    return data


def write_whole(path: Path, data: bytes) -> None:
    """Write a file for its owner alone (0600). What was there is replaced once the new one was synced and read back.

    After a crash there is the old file or the new one, never a part.

    Raises:
        SettingError: it cannot be written, or what is there is no regular file.
    """
    _require_replaceable(path)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _require_same(beside, data)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        _sync_names(path.parent)
    except OSError as error:
        raise SettingError(
            f"{path} cannot be written: {error.strerror}",
            "name a file in a directory that you may write to",
        ) from error


def _require_same(path: Path, data: bytes) -> None:
    if path.read_bytes() != data:
        raise OSError(errno.EIO, "what is read back is not what was written")


def _require_replaceable(path: Path) -> None:
    # A device, a pipe or a link would be replaced, not written to.
    try:
        mode = path.lstat().st_mode
    except OSError:
        return  # nothing is there; or writing will say what is wrong
    if not stat.S_ISREG(mode):
        raise SettingError(f"{path} is no regular file", "leave it out to write to standard output")


def _sync_names(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def place_of(path: Path) -> str:
    """Return where a file is, for a history that others read: machine and path, on one line, 300 characters at most."""
    place = f"{socket.gethostname()}:{path.absolute()}"
    shown = "".join(each if each.isprintable() else "?" for each in place)
    return shown if len(shown) <= _PLACE_LIMIT else f"{shown[: _PLACE_LIMIT - 1]}…"
