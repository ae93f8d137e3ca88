"""`spike` on a terminal of its own (a pseudo-terminal): types, and reads what is shown."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pilot_kit import Site

PATIENCE_S = 60.0
# The first terminal that the leader of a session opens becomes the one that controls it (tty(4)).
TAKE_TERMINAL = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"


class Terminal:
    """A `spike` on a terminal of its own: types, and reads what is shown."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.descriptor = descriptor
        self.shown = ""

    def wait_for(self, text: str, times: int = 1) -> None:
        """Read until `text` was shown so often."""
        deadline = time.monotonic() + PATIENCE_S
        while self.shown.count(text) < times:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.shown!r}"
            assert self.read_more(1.0), f"{text!r} never came: {self.shown!r}"

    def read_more(self, wait_s: float) -> bool:
        if not select.select([self.descriptor], [], [], wait_s)[0]:
            return True
        try:
            data = os.read(self.descriptor, 4096)
        except OSError:  # EIO: the other side is closed
            data = b""
        self.shown += data.decode(errors="replace")
        return bool(data)

    def wait_for_no_echo(self) -> None:
        """Wait until the terminal hides what is typed: only then a person's typing is safe."""
        deadline = time.monotonic() + PATIENCE_S
        while self.echoes():
            assert time.monotonic() < deadline, "the terminal kept echoing"
            self.read_more(0.01)

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.descriptor)[3] & termios.ECHO)

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def answer_hidden(self, question: str, text: str) -> None:
        self.wait_for(question)
        self.wait_for_no_echo()
        self.type(f"{text}\n")

    def end(self) -> int:
        """Read to the end and return the exit code."""
        while self.read_more(1.0):
            pass
        return self.process.wait(PATIENCE_S)


@contextmanager
def terminal(made: Site[Any], role: str, *arguments: str) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [
            sys.executable,
            "-I",
            "-c",
            TAKE_TERMINAL,
            sys.executable,
            "-m",
            "spike.pilot",
            *arguments,
        ],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=made.environment(role),
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            yield Terminal(process, ours)
        finally:
            process.kill()
            process.wait()
            os.close(ours)
