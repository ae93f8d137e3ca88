"""`spike dev` as a user has it: a process of its own, with or without a terminal.

with DevProcess("--data", str(directory), "--port", "0") as dev:
    dev.wait_for("Ctrl-C stops everything.")
    dev.type("\\x03")
"""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BIN = Path(sys.executable).parent
SPIKE = str(BIN / "spike")
PATIENCE_S = 90.0


def run_dev(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a `spike dev` that has to end by itself; it has no terminal."""
    return subprocess.run(
        [SPIKE, "dev", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        timeout=PATIENCE_S,
        check=False,
        start_new_session=True,
    )


class DevProcess:
    """A `spike dev` whose output is read as it comes. `wait_for` drops what it has waited for."""

    def __init__(self, *arguments: str, terminal: bool = False, **environment: str) -> None:
        self._unread = b""
        self._surroundings = {**os.environ, **environment}
        command = [SPIKE, "dev", *arguments]
        ours, theirs = pty.openpty() if terminal else os.pipe()
        self.descriptor = ours
        # setsid makes the new session's first terminal the one it opens: --ctty takes standard input.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command] if terminal else command,
            stdin=theirs if terminal else subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            env=self._surroundings,
            start_new_session=not terminal,
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
        os.close(self.descriptor)

    def wait_for(self, text: str, or_else: str | None = None) -> str:
        """Read until `text` (or the other) has come; return everything up to its end."""
        wanted = [each.encode() for each in (text, or_else) if each is not None]
        deadline = time.monotonic() + PATIENCE_S
        while not (found := [each for each in wanted if each in self._unread]):
            left = max(0.0, deadline - time.monotonic())
            ready = select.select([self.descriptor], [], [], left)[0]
            assert ready, f"{text!r} never came; what came is {self._unread!r}"
            try:
                piece = os.read(self.descriptor, 65536)
            except OSError:  # a terminal whose other side is closed
                piece = b""
            assert piece, f"it ended before {text!r}; what came is {self._unread!r}"
            self._unread += piece
        end = min(self._unread.index(each) + len(each) for each in found)
        seen, self._unread = self._unread[:end], self._unread[end:]
        return seen.decode().replace("\r\n", "\n")

    def event(self, name: str) -> dict[str, Any]:
        """Read JSON events until one of this name."""
        return self.events_until(name)[-1]

    def events_until(self, name: str) -> list[dict[str, Any]]:
        """Read JSON events until one of this name; return all of them."""
        seen: list[dict[str, Any]] = []
        while not (seen and seen[-1]["event"] == name):
            seen.append(json.loads(self.wait_for("\n")))
        return seen

    def type(self, text: str) -> None:
        """Type on the terminal."""
        os.write(self.descriptor, text.encode())

    def echoes(self) -> bool:
        """Tell whether the terminal shows what is typed."""
        return bool(termios.tcgetattr(self.descriptor)[3] & termios.ECHO)

    def interrupt(self) -> int:
        """Press Ctrl-C where there is no terminal; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_S)


def eventually(what: str, condition: Any, timeout_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds; fail, naming it, when it never does."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.02)
