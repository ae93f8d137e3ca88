"""Questions on the terminal: hidden ones into memory that can be wiped, and yes or no.

`getpass` returns a `str`, which nobody can wipe. Here the kernel writes what is typed straight into a
bytearray (readv(2)), and the caller wipes that.
"""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from spike.error import InputError, SettingError

# The kernel hands over at most 4,095 bytes of one line that is typed (termios(3), canonical mode).
LINE_LIMIT_BYTES: Final = 4096

_TERMINAL: Final = Path("/dev/tty")


def wipe(buffer: bytearray) -> None:
    """Overwrite a buffer in place."""
    buffer[:] = b"\0" * len(buffer)


INSTEAD: Final = (
    "name where the password comes from: --password-file, --password-fd or --password-stdin"
)


@contextmanager
def terminal(instead: str = INSTEAD) -> Iterator[int]:
    """Open the terminal that controls this process, whatever standard input and output are.

    `instead` says what to do where there is none.

    Raises:
        SettingError: there is none.
    """
    try:
        descriptor = os.open(_TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        raise SettingError(
            "there is no terminal to ask on",
            instead,
        ) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def ask_hidden(descriptor: int, question: str) -> bytearray:
    """Ask for one line without showing what is typed, and return its bytes. The caller wipes them.

    Echo is off from before the question until after the answer, and comes back however this ends.

    Raises:
        InputError: the end of input, or a line that is too long.
        KeyboardInterrupt: Ctrl-C.
    """
    line = bytearray(LINE_LIMIT_BYTES)
    try:
        with _echo_off(descriptor):
            show(descriptor, question)
            try:
                size = os.readv(descriptor, [line])
            finally:
                show(descriptor, "\n")  # the one that was typed was not shown either
        if size == 0 or line[size - 1] != ord("\n"):
            raise InputError("no whole line was typed", "type the password and press Enter")
        return line[: size - 1]
    finally:
        wipe(line)


def ask(descriptor: int, question: str) -> str:
    """Ask for one line, shown as it is typed, and return it without the white space around it.

    Raises:
        InputError: the end of input, or a line that is too long.
    """
    show(descriptor, question)
    line = os.read(descriptor, LINE_LIMIT_BYTES)
    if not line.endswith(b"\n"):
        raise InputError("no whole line was typed", "type it and press Enter")
    return line.decode(errors="replace").strip()


def confirm(question: str) -> bool:
    """Ask for yes or no on standard input: on a terminal by showing the question there.

    Not on a terminal the answer is the next line of input, so that a pipe can give it; none is no.

    Raises:
        SettingError: standard input cannot be read.
    """
    stdin, stderr = 0, 2
    show(stderr, f"{question} [y/N] ")
    try:
        answer = os.read(stdin, LINE_LIMIT_BYTES).split(b"\n")[0]
    except OSError as error:
        raise SettingError(
            f"standard input cannot be read: {error.strerror}", "answer there, or give --yes"
        ) from error
    if not os.isatty(stdin):
        show(stderr, "\n")
    return answer.strip().lower() in (b"y", b"yes")


def show(descriptor: int, text: str) -> None:
    """Write text to the terminal."""
    data = text.encode()
    while data:
        data = data[os.write(descriptor, data) :]


@contextmanager
def _echo_off(descriptor: int) -> Iterator[None]:
    before = termios.tcgetattr(descriptor)
    quiet = [*before]
    quiet[3] = before[3] & ~(termios.ECHO | termios.ECHONL)
    quiet[3] |= termios.ICANON | termios.ISIG
    # FLUSH drops what was typed before the question: it was not meant as an answer to it.
    termios.tcsetattr(descriptor, termios.TCSAFLUSH, quiet)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
