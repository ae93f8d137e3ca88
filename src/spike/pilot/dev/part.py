"""One part as a process of its own: started, waited for, stopped; its output goes to its log."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spike.client.launch import Command, Launcher
from spike.error import SettingError
from spike.pilot.dev.place import write_private
from spike.spiffe.id import SpiffeId

# The largest piece of a log that is read to say why a part died.
_TAIL_BYTES: Final = 8 << 10

Start = Callable[[Command], "subprocess.Popen[bytes]"]


@dataclass(frozen=True, slots=True)
class Part:
    """What is started: a command, its whole environment, its log, and how long it may take to stop.

    `process_file` gets the number of its process at each start, for people; nothing here reads it.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    process_file: Path
    stop_s: float
    start: Start


class RunningPart:
    """One process of a part. It has a process group of its own: Ctrl-C reaches it through us alone."""

    def __init__(self, part: Part) -> None:
        """Start it. On the main thread only: the process ends with the thread that started it.

        Raises:
            SpikeError: it cannot be started.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        try:
            log = os.open(part.log, flags, 0o600)
        except OSError as error:
            raise SettingError(f"{part.log} cannot be written: {error.strerror}") from error
        try:
            self._process = part.start(
                Command(
                    part.arguments,
                    environment=part.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                )
            )
        finally:
            os.close(log)
        # For people alone: a full disk must not keep a part from running.
        with contextlib.suppress(SettingError):
            write_private(part.process_file, f"{self._process.pid}\n")
        self.part = part
        self._started_s = time.monotonic()

    @property
    def ran_s(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._started_s

    async def ended(self) -> int:
        """Wait for the end and return the exit code, negative for a signal."""
        return await ended(self._process)

    def kill(self) -> None:
        """End it by force, without waiting. Idempotent."""
        self._process.kill()

    async def stop(self) -> None:
        """End it: in order, and by force when that takes too long. Idempotent."""
        await stopped(self._process, self.part.stop_s)
        self.part.process_file.unlink(missing_ok=True)


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Wait for the end of a child and return its exit code, negative for a signal."""
    if process.returncode is None:
        descriptor = os.pidfd_open(process.pid)
        try:
            await _readable(descriptor)
        finally:
            os.close(descriptor)
    return process.wait()


async def stopped(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """End a child: SIGTERM, and SIGKILL after `patience_s`. Idempotent."""
    process.terminate()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            await ended(process)
        return
    process.kill()
    await ended(process)


def start_tethered(command: Command) -> subprocess.Popen[bytes]:
    """Start a command without an identity of its own, to end with this process; see `tether`."""
    return subprocess.Popen(
        tethered(tuple(command.arguments)),
        env=dict(command.environment or os.environ),
        stdin=command.stdin,
        stdout=command.stdout,
        stderr=command.stderr,
        process_group=command.process_group,
    )


def tethered(arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments so that the command ends with this process, however this one ends."""
    return (
        *(sys.executable, "-I", str(Path(__file__).with_name("tether.py"))),
        *(str(os.getpid()), str(int(signal.SIGKILL)), *arguments),
    )


def start_as(launcher: Launcher, spiffe_id: str) -> Start:
    """Return how a command is started under an identity; it ends with this process too."""
    identity = SpiffeId.parse_untrusted(spiffe_id)
    return lambda command: launcher.start(identity, command)


def last_words(log: Path) -> str:
    """Return the last line a part wrote to its log; with the one before it if it says what to do next."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    count = 2 if lines and lines[-1].lower().startswith("next:") else 1
    return " ".join(lines[-count:]).rstrip(".")


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(descriptor, wake)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)
