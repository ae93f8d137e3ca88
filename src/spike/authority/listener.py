"""Unix sockets to listen on: made where only their owner can put another, removed at the end."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from spike.error import SettingError
from spike.spiffe.endpoint import PATH_LIMIT_BYTES, Viewpoint, check_endpoint

_BACKLOG: Final = 128
_LOCK_ATTEMPTS: Final = 40
_LOCK_PAUSE_S: Final = 0.05


def check_length(path: Path) -> None:
    """Refuse a path no socket can have.

    Raises:
        SettingError: it is longer than 107 bytes.
    """
    length = len(os.fsencode(path))
    if length > PATH_LIMIT_BYTES:
        raise SettingError(
            f"the socket path {path} has {length} bytes; the kernel takes {PATH_LIMIT_BYTES}",
            "choose a shorter path, for example below /run or $XDG_RUNTIME_DIR",
        )


@contextlib.contextmanager
def listening(path: Path, mode: int) -> Iterator[socket.socket]:
    """Listen on a Unix socket at an absolute path; at the end it is removed.

    Its directory is made (0700) if it is missing. A socket file nobody listens on is replaced.

    Raises:
        SettingError: the path is too long or in use, others could replace a socket there, or the
            directory does not allow it.
    """
    check_length(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one(path.parent):
            _remove_stale(path)
            bound = _bind(path, mode)
    except OSError as error:
        raise SettingError(
            f"the socket {path} cannot be made: {error.strerror}", "choose another path"
        ) from error
    made = path.lstat()
    try:
        with bound:
            check_endpoint(path, Viewpoint.of_process())
            yield bound
    finally:
        with contextlib.suppress(OSError, SettingError), _only_one(path.parent):
            # Somebody may have put another one there since.
            if os.path.samestat(path.lstat(), made):
                path.unlink()


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    """Keep two Authorities from clearing away each other's socket between looking and binding."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Whoever can list the directory can hold this lock: not a reason to wait for ever.
        for _ in range(_LOCK_ATTEMPTS):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(_LOCK_PAUSE_S)
        else:
            raise SettingError(f"another process holds a lock on {directory}", "end that process")
        yield
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise SettingError(f"{path} is there and is no socket", "choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        answer = probe.connect_ex(str(path))
    if answer != errno.ECONNREFUSED:
        raise SettingError(
            f"another process listens on {path}",
            "stop it first, or choose another path",
        )
    path.unlink()


def _bind(path: Path, mode: int) -> socket.socket:
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # Until the mode is set, nobody else may connect.
    before = os.umask(0o077)
    try:
        bound.bind(str(path))
        path.chmod(mode)
        # Under the lock: a socket nobody listens on yet looks like one that was left behind, to be cleared away.
        bound.listen(_BACKLOG)
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    finally:
        os.umask(before)
    return bound
