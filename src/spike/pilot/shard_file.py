"""Recovery shards on their way to people and back: one file each, or lines of a file or of standard input.

What holds a shard is overwritten after use. What an editor, a terminal or a file system keeps of it is out of reach.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from spike.error import InputError, RefusedError, SettingError
from spike.lifecycle.shard_text import INDEX_LIMIT, LIMIT_BYTES
from spike.pilot import prompt
from spike.pilot.source import wiped

DIRECTORY: Final = "SPIKE_PILOT_RECOVERY_DIR"
_NAME: Final = "spike.recovery.{}.txt"
# What a file system takes for a small file.
_BLOCK_BYTES: Final = 4096
_INPUT_LIMIT_BYTES: Final = INDEX_LIMIT * (LIMIT_BYTES + 1)


def directory_of(environment: Mapping[str, str]) -> Path:
    """Return where recovery shards are written: SPIKE_PILOT_RECOVERY_DIR, or `~/.spike/recover`.

    Raises:
        SettingError: there is no home directory.
    """
    named = environment.get(DIRECTORY)
    if named:
        return Path(named)
    directory = Path(environment.get("HOME", ""), ".spike", "recover")
    if not directory.is_absolute():
        raise SettingError(
            "there is no home directory to write recovery shards to", "name a directory with --dir"
        )
    return directory


@contextmanager
def prepared(directory: Path) -> Iterator[None]:
    """Make the directory (0700), or see that it is ours alone, has room and holds no shards.

    What was made goes again when what is done inside fails before a shard is written.

    Raises:
        SettingError: it is not so.
        RefusedError: it holds recovery shards, which are never overwritten.
    """
    missing = [each for each in (directory, *directory.parents) if not os.path.lexists(each)]
    try:
        _prepare(directory)
        yield
    except BaseException:
        for each in missing:
            with suppress(OSError):  # not empty: somebody's, or shards
                each.rmdir()
        raise


def _prepare(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
        held = sorted(directory.glob(_NAME.format("*")))
    except OSError as error:
        raise _unwritable(directory, error) from error
    if status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise SettingError(
            f"others can enter {directory}", f"make it yours alone: chmod 700 {directory}"
        )
    if held:
        raise RefusedError(
            f"{held[0]} is there already; recovery shards are never overwritten",
            "hand those shards over, then delete the files; or name another directory with --dir",
        )
    try:
        _probe(directory)
    except OSError as error:
        raise _unwritable(directory, error) from error


def _unwritable(directory: Path, error: OSError) -> SettingError:
    return SettingError(
        f"recovery shards cannot be written to {directory}: {error.strerror}",
        "name another directory with --dir; nothing was asked of Nexus, and older shards are as good as before",
    )


def _probe(directory: Path) -> None:
    """Write, sync and delete as much as all shards of a set can take: afterwards is too late to find no room.

    By then Nexus has made the older shards useless.
    """
    path = directory / f".spike.probe.{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        _write_all(descriptor, bytearray(INDEX_LIMIT * _BLOCK_BYTES))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        path.unlink(missing_ok=True)


def write(directory: Path, index: int, text: bytearray) -> Path:
    """Write the text of a shard into a new file (0600), read it back, and return the file's path.

    A file that could not be written whole is deleted.

    Raises:
        SettingError: it cannot be written, or is there already.
    """
    path = directory / _NAME.format(index)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            _fill(descriptor, path, text)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise SettingError(
            f"recovery shard {index} cannot be written to {path}: {error.strerror}",
            "the shards handed out before are useless, and so are those of this set that were written: "
            "delete those files and run it again with --yes",
        ) from error
    return path


def _fill(descriptor: int, path: Path, text: bytearray) -> None:
    try:
        _write_all(descriptor, text)
        _write_all(descriptor, bytearray(b"\n"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _sync_names(path.parent)
    with wiped(_read(path, len(text) + 2)) as found:
        if found[:-1] != text:
            raise OSError(0, "what was written is not what is read back")


def _write_all(descriptor: int, data: bytearray) -> None:
    # A file takes as much as there is room for, and says so only by the count.
    with memoryview(data) as view:
        written = 0
        while written < len(data):
            written += os.write(descriptor, view[written:])


def read(path: Path) -> bytearray:
    """Return the content of a shard's file. The caller wipes it.

    Raises:
        SettingError: it cannot be read.
        InputError: it is too large for one.
    """
    try:
        found = _read(path, LIMIT_BYTES + 1)
    except OSError as error:
        raise SettingError(
            f"{path} cannot be read: {error.strerror}", "check the path and its permissions"
        ) from error
    if len(found) > LIMIT_BYTES:
        prompt.wipe(found)
        raise InputError(f"{path} is too large for a recovery shard", "name one file for each")
    return found


def lines_of_input() -> Iterator[bytearray]:
    """Give each line of standard input that is not empty. It is overwritten when the next one is asked for.

    Raises:
        SettingError: it cannot be read.
        InputError: there is more than all shards of a set together.
    """
    try:
        found = _read_descriptor(0, _INPUT_LIMIT_BYTES + 1)
    except OSError as error:
        raise SettingError(
            f"standard input cannot be read: {error.strerror}",
            "name the files of the shards: --file",
        ) from error
    with wiped(found) as entered:
        if len(entered) > _INPUT_LIMIT_BYTES:
            raise InputError("standard input holds more than shards", "give one shard a line")
        start = 0
        while start < len(entered):
            end = entered.find(b"\n", start)
            end = len(entered) if end < 0 else end
            with wiped(entered[start:end]) as line:
                if line.strip():
                    yield line
            start = end + 1


def _read(path: Path, limit_bytes: int) -> bytearray:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _read_descriptor(descriptor, limit_bytes)
    finally:
        os.close(descriptor)


def _read_descriptor(descriptor: int, limit_bytes: int) -> bytearray:
    buffer, size = bytearray(limit_bytes), 0
    try:
        with memoryview(buffer) as view:
            while size < limit_bytes:
                count = os.readv(descriptor, [view[size:]])
                if count == 0:
                    break
                size += count
        return buffer[:size]
    finally:
        prompt.wipe(buffer)


def _sync_names(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
