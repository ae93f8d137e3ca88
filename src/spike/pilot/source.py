"""Where a password comes from: the terminal, a file, a descriptor, standard input, or the generator."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from spike.error import InputError, SettingError
from spike.pilot import prompt

LIMIT_BYTES: Final = 4096

_STANDARD_INPUT: Final = 0


@dataclass(frozen=True, slots=True)
class FromTerminal:
    """Ask, hidden."""


@dataclass(frozen=True, slots=True)
class FromFile:
    """Read the file."""

    path: Path


@dataclass(frozen=True, slots=True)
class FromDescriptor:
    """Read an open descriptor to its end; standard input is number 0."""

    number: int


@dataclass(frozen=True, slots=True)
class Generated:
    """Make ten words."""


Source = FromTerminal | FromFile | FromDescriptor | Generated


def choose(
    password_file: Path | None,
    password_fd: int | None,
    password_stdin: bool,
    generate: bool = False,
) -> Source:
    """Return the one source that was named, or the terminal.

    Raises:
        click.UsageError: more than one was named.
    """
    named: list[Source] = []
    if password_file is not None:
        named.append(FromFile(password_file))
    if password_fd is not None:
        named.append(FromDescriptor(password_fd))
    if password_stdin:
        named.append(FromDescriptor(_STANDARD_INPUT))
    if generate:
        named.append(Generated())
    if len(named) > 1:
        raise click.UsageError("Name one source for the password, not several.")
    return named[0] if named else FromTerminal()


def option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a source."""
    command = click.option(
        "--password-stdin", is_flag=True, help="Read the password from standard input."
    )(command)
    command = click.option(
        "--password-fd",
        type=click.IntRange(min=0),
        metavar="N",
        help="Read the password from the open file descriptor N.",
    )(command)
    return click.option(
        "--password-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Read the password from FILE; one newline at its end is not part of it.",
    )(command)


def obtain(source: Source, question: str, instead: str = prompt.INSTEAD) -> bytearray:
    """Return a password that is there already, read or asked for once, hidden. The caller wipes it.

    `instead` says what to do where there is no terminal to ask on.

    Raises what `read` and `prompt.ask_hidden` do.
    """
    match source:
        case FromFile() | FromDescriptor():
            return read(source)
        case _:
            with prompt.terminal(instead) as terminal:
                return prompt.ask_hidden(terminal, question)


def read(source: FromFile | FromDescriptor) -> bytearray:
    """Return the password that a file or descriptor holds. The caller wipes it.

    Raises:
        SettingError: it cannot be read, or others may read the file.
        InputError: it is empty or longer than 4,096 bytes.
    """
    match source:
        case FromFile(path):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                raise SettingError(
                    f"the password file {path} cannot be read: {error.strerror}",
                    "check the path and its permissions",
                ) from error
            try:
                _require_private(descriptor, path)
                return read_descriptor(descriptor, str(path))
            finally:
                os.close(descriptor)
        case FromDescriptor(number):
            name = "standard input" if number == _STANDARD_INPUT else f"descriptor {number}"
            return read_descriptor(number, name)


def read_descriptor(descriptor: int, name: str) -> bytearray:
    """Return all of a descriptor but one newline at its end, read without a copy that stays."""
    buffer = bytearray(LIMIT_BYTES + 2)  # room for a newline, and for one byte that is too much
    try:
        size = _fill(descriptor, buffer, name)
        if size and buffer[size - 1] == ord("\n"):
            size -= 1
        if size > LIMIT_BYTES:
            raise InputError(f"the password in {name} is too long", "use at most 256 characters")
        if size == 0:
            raise InputError(f"there is no password in {name}", "write it there, on one line")
        return buffer[:size]
    finally:
        prompt.wipe(buffer)


def _fill(descriptor: int, buffer: bytearray, name: str) -> int:
    size = 0
    with memoryview(buffer) as view:
        while size < len(buffer):
            try:
                count = os.readv(descriptor, [view[size:]])
            except OSError as error:
                raise SettingError(
                    f"the password cannot be read from {name}: {error.strerror}",
                    "check that it is open for reading",
                ) from error
            if count == 0:
                break
            size += count
    return size


def _require_private(descriptor: int, path: Path) -> None:
    mode = os.fstat(descriptor).st_mode
    if mode & 0o077 and stat.S_ISREG(mode):  # a pipe, as of <(…), is emptied by reading it
        raise SettingError(
            f"the password file {path} can be used by others (mode {mode & 0o777:04o})",
            f"make it yours alone: chmod 600 {path}",
        )


@contextmanager
def wiped(buffer: bytearray) -> Iterator[bytearray]:
    """Give the buffer, and overwrite it in the end, whatever happens."""
    try:
        yield buffer
    finally:
        prompt.wipe(buffer)
