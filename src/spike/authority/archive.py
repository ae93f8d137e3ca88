"""Authority's two small files: the book, and which processes had a grant.

The directory belongs to one Authority at a time: a third file is locked for as long as it runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from spike.authority.book import BOOK_LIMIT_BYTES, Book, encode_book, parse_book_untrusted
from spike.authority.grant import MEMORY_LIMIT_BYTES, encode_memory, recall_untrusted
from spike.authority.process import ProcessHandle, Uid
from spike.error import FormatError, SettingError, StoreUnavailableError

BOOK_NAME: Final = "entry.json"
MEMORY_NAME: Final = "process.json"
# The lock is not on the directory itself: sockets in it are made under that one (listener.py).
LOCK_NAME: Final = "lock"


class FileArchive:
    """The files in one directory. Close it, or use it as a context manager."""

    def __init__(self, directory: Path, boot: str) -> None:
        """Make the directory if it is missing, and lock it.

        Raises:
            SettingError: another Authority holds it, others could write in it, or it cannot be made.
        """
        self._directory = directory
        self._boot = boot
        self._descriptor = self._lock = -1
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            found = os.fstat(self._descriptor)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            self._lock = os.open(LOCK_NAME, flags, 0o600, dir_fd=self._descriptor)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise SettingError(
                f"another Authority is running on {directory}",
                "stop it first, or give this one another directory with --data",
            ) from None
        except OSError as error:
            self.close()
            raise SettingError(
                f"the data directory {directory} cannot be used: {error.strerror}",
                "name another one with --data",
            ) from error
        if found.st_uid != os.geteuid() or found.st_mode & 0o022:
            self.close()
            raise SettingError(
                f"others could write in the data directory {directory}",
                "give it to the user Authority runs as: chown and chmod 700",
            )

    def read_book(self, nobody: Uid) -> Book | None:
        """Return the book, or None if there is none yet.

        Raises:
            FormatError: it cannot be read; the message names the file.
        """
        content = self._read(BOOK_NAME, BOOK_LIMIT_BYTES)
        if content is None:
            return None
        try:
            return parse_book_untrusted(content, nobody)
        except FormatError as error:
            error.next_step = error.next_step or f"correct {self._directory / BOOK_NAME}"
            raise

    def write_book(self, book: Book) -> None:
        """Make the book durable.

        Raises:
            StoreUnavailableError: it cannot be written; the old file is untouched.
        """
        self._write(BOOK_NAME, encode_book(book))

    def recall(self) -> tuple[ProcessHandle, ...]:
        """Return the processes that had a grant and still live. The caller owns them.

        Raises:
            FormatError: the file cannot be read: then it is not known who had one.
        """
        content = self._read(MEMORY_NAME, MEMORY_LIMIT_BYTES)
        return () if content is None else recall_untrusted(content, self._boot)

    def write_memory(self, processes: tuple[ProcessHandle, ...]) -> None:
        """Note which processes had a grant.

        Raises:
            StoreUnavailableError: it cannot be written; the old file is untouched.
        """
        self._write(MEMORY_NAME, encode_memory(self._boot, processes))

    def close(self) -> None:
        """Let go of the directory. Idempotent."""
        for descriptor in (self._lock, self._descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def __enter__(self) -> FileArchive:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, name: str, limit_bytes: int) -> bytes | None:
        try:
            # Not through a link, and without waiting for the other end of a pipe put here.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise FormatError(
                f"{self._directory / name} cannot be read: {error.strerror}"
            ) from error
        with os.fdopen(descriptor, "rb") as file:
            # One more than allowed, so that too much is seen as too much.
            return file.read(limit_bytes + 1)

    def _write(self, name: str, content: bytes) -> None:
        """Write a file whole: beside the old one, flushed, then in its place, and that flushed."""
        beside = f"{name}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        try:
            descriptor = os.open(beside, flags, 0o600, dir_fd=self._descriptor)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            os.fsync(self._descriptor)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(beside, dir_fd=self._descriptor)
            raise StoreUnavailableError(
                f"{self._directory / name} cannot be written: {error.strerror}",
                "look at the disk; nothing was changed",
            ) from error
