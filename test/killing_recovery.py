"""`spike-nexus` that kills at one durable step of a recovery: itself, or the command that asked. For tests alone.

Usage: killing_recovery.py DIRECTORY. From a SIGUSR1 on it counts its steps and writes their names to the file `steps`;
at the step whose number, from 0, stands in the file `aim` it kills whom that file names: `nexus`, or `command`, which
is the process group in the file `group`. A step is a name changed in a file system, a commit of the store, or a call
that changes what a Keeper holds; the kill comes before it, which is behind the one before.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from spike.nexus.keeper_link import KeeperLink
from spike.nexus.service import serve
from spike.nexus.setting import read_setting
from spike.server import log
from spike.server.program import Program, run
from spike.storage.sqlite_writer import Writer

_IN_FILES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


class Killing:
    """Counts steps from the moment it is armed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._is_armed = False
        self._left, self._victim = -1, ""

    def arm(self) -> None:
        """Read what to do, and count from now on; the file `steps` is there then."""
        at, self._victim = (self._directory / "aim").read_text().split()
        self._left = int(at)
        (self._directory / "steps").touch()
        self._is_armed = True

    def step(self, name: str) -> None:
        """Count one step, or kill before it."""
        if not self._is_armed:
            return
        with self._lock:
            if self._left == 0:
                self._kill()
            self._left -= 1
            with (self._directory / "steps").open("a") as file:
                file.write(f"{name}\n")

    def _kill(self) -> None:
        if self._victim == "nexus":
            os.kill(os.getpid(), signal.SIGKILL)
            raise AssertionError("killed")
        with contextlib.suppress(ProcessLookupError):  # it had its answer already
            os.killpg(int((self._directory / "group").read_text()), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in _IN_FILES:
            self.step(f"{event} {Path(os.fsdecode(arguments[0])).name}")

    def before(
        self, name: str, act: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        async def counted(*given: Any, **named: Any) -> Any:
            self.step(name)
            return await act(*given, **named)

        return counted


def main() -> None:
    """Run Nexus as its program does."""
    killing = Killing(Path(sys.argv[1]))
    sys.addaudithook(killing.audit)
    for where, prefix, names in (
        (Writer, "store: ", ("apply",)),
        (KeeperLink, "Keeper: ", ("stage", "commit", "erase")),
    ):
        for name in names:
            setattr(where, name, killing.before(prefix + name, getattr(where, name)))

    async def served(stop: asyncio.Event) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, killing.arm)
        setting = read_setting(os.environ, Path("~"))
        log.start(setting.log_level)
        await serve(setting, stop, asyncio.Event())

    sys.exit(run(Program("spike-nexus", "", served), []))


if __name__ == "__main__":
    main()
