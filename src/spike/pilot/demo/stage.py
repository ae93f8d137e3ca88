"""Where a chapter is played: a `spike dev` in a directory of its own, commands that are run, /proc.

Everything here is what a person could do at a terminal: start programs, read their output and exit
codes, look at processes and files, kill.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from spike.error import ClaimError
from spike.pilot.dev.part import tethered
from spike.pilot.dev.place import DevPlace

COMMAND_LIMIT_S: Final = 60.0
START_LIMIT_S: Final = 60.0
_LOOK_AGAIN_S: Final = 0.05
# The field `starttime` of proc_pid_stat(5), counted from behind the command's name.
_START_TIME: Final = 19
_EXPORT: Final = re.compile(r"export ([A-Z_]+)=(\S*)")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    output: str
    errors: str


@dataclass(slots=True)
class Stage:
    """One `spike dev` and its directory. `svid_lifetime` is a duration such as `10s`."""

    place: DevPlace
    svid_lifetime: str
    password: str = field(default="", repr=False)
    url: str = ""
    init: bool = True
    """Whether `spike dev` makes a store that is empty."""
    _process: subprocess.Popen[bytes] | None = None
    _unread: bytes = b""

    @property
    def port(self) -> int:
        """Where its Nexus listens."""
        return int(self.url.rpartition(":")[2])

    @property
    def number(self) -> int:
        """The process number of `spike dev`."""
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """The environment a second terminal has after it sourced the file that is written for it."""
        text = self.place.environment_file.read_text(encoding="utf-8")
        sourced = {name: value.removesuffix(":$PATH") for name, value in _EXPORT.findall(text)}
        path = f"{sourced.pop('PATH')}:{os.environ.get('PATH', os.defpath)}"
        quick = {"SPIKE_SPIFFE_SOURCE_TIMEOUT": "5s"}
        return {**os.environ, **sourced, **quick, "PATH": path}

    def start(self) -> None:
        """Start `spike dev` and wait until it says how its store is.

        Raises:
            ClaimError: it does not start.
        """
        arguments = (
            *(sys.executable, "-m", "spike.pilot", "dev"),
            *("--data", str(self.place.directory), "--port", "0"),
            *("--svid-lifetime", self.svid_lifetime, "--format", "json"),
            *(() if self.init else ("--no-init",)),
        )
        # A session without a terminal: it shall not ask the person who watches the demo.
        self._process = subprocess.Popen(
            tethered(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._unread = b""
        served = self.wait_for_event("served", START_LIMIT_S)
        self.url = served["url"]

    def wait_for_event(self, name: str, limit_s: float) -> dict[str, Any]:
        """Read what `spike dev` tells until it tells `name`.

        Raises:
            ClaimError: it does not, in time.
        """
        return self.events_until(name, limit_s)[-1]

    def events_until(self, name: str, limit_s: float) -> list[dict[str, Any]]:
        """Read what `spike dev` tells until it tells `name`; return all of it.

        Raises:
            ClaimError: it does not, in time.
        """
        deadline_s = time.monotonic() + limit_s
        seen: list[dict[str, Any]] = []
        while not (seen and seen[-1]["event"] == name):
            event = self._next_event(deadline_s)
            if event["event"] == "password":
                self.password = event["password"]
            if event["event"] == "failed":
                raise ClaimError(f"spike dev says: {event['message']}")
            seen.append(event)
        return seen

    def _next_event(self, deadline_s: float) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while b"\n" not in self._unread:
            left_s = max(0.0, deadline_s - time.monotonic())
            if not select.select([descriptor], [], [], left_s)[0]:
                raise ClaimError("spike dev says nothing more in time")
            piece = os.read(descriptor, 65536)
            if not piece:
                raise ClaimError("spike dev has ended")
            self._unread += piece
        line, _, self._unread = self._unread.partition(b"\n")
        event: dict[str, Any] = json.loads(line)
        return event

    def stop(self) -> None:
        """Stop `spike dev` as Ctrl-C does. Idempotent."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        self._reap()

    def kill_all(self) -> tuple[int, ...]:
        """Kill `spike dev` and every process below it, at once; return their numbers."""
        assert self._process is not None
        numbers = (self._process.pid, *descendants(self._process.pid))
        for number in numbers:
            signal_if_there(number, signal.SIGKILL)
        self._reap()
        return numbers

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait(COMMAND_LIMIT_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def part(self, program: str) -> int:
        """Return the number of the process that runs a program below `spike dev`, as /proc shows it.

        Raises:
            ClaimError: there is not exactly one.
        """
        assert self._process is not None
        found = [
            number for number in descendants(self._process.pid) if program in _command_line(number)
        ]
        if len(found) != 1:
            raise ClaimError(f"{len(found)} processes run {program}, and one should")
        return found[0]

    def run(self, *arguments: str, given: str = "", extra: Mapping[str, str] | None = None) -> Ran:
        """Run a command in the second terminal's environment; `given` goes to its standard input.

        Raises:
            ClaimError: it does not end within a minute.
        """
        try:
            done = subprocess.run(
                arguments,
                input=given.encode(),
                capture_output=True,
                env={**self.environment, **(extra or {})},
                timeout=COMMAND_LIMIT_S,
                check=False,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            raise ClaimError(f"`{' '.join(arguments)}` does not end") from None
        return Ran(done.returncode, done.stdout.decode(), done.stderr.decode())

    def run_as(self, spiffe_id: str, *arguments: str, given: str = "") -> Ran:
        """Run a command with an identity of its own."""
        return self.run("spike-authority", "run", "--id", spiffe_id, "--", *arguments, given=given)

    def run_well(self, *arguments: str, given: str = "") -> str:
        """Run a command that has to succeed; return its output.

        Raises:
            ClaimError: it fails.
        """
        ran = self.run(*arguments, given=given)
        if ran.code != 0:
            raise ClaimError(f"`{' '.join(arguments[:3])}` fails: {ran.errors.strip()}")
        return ran.output

    def state(self) -> str:
        """Return what the real command says of the store: open, locked, …

        Raises:
            ClaimError: it says nothing.
        """
        return str(self.status()[1]["state"])

    def status(self) -> tuple[int, dict[str, Any]]:
        """Return the exit code of `spike status` and all that it says.

        Raises:
            ClaimError: it says nothing.
        """
        ran = self.run("spike", "status", "--format", "json")
        try:
            told = json.loads(ran.output)
        except ValueError:
            told = {}
        if "state" not in told:
            raise ClaimError(f"spike status fails: {ran.errors.strip()}")
        return ran.code, told

    def process_of(self, spiffe_id: str) -> int:
        """Return the number of the process that Authority gives an identity of its own.

        Raises:
            ClaimError: there is not exactly one.
        """
        told = json.loads(self.run_well("spike-authority", "status", "--format", "json"))
        found = [grant["pid"] for grant in told["grants"] if grant["id"] == spiffe_id]
        if len(found) != 1:
            raise ClaimError(f"{len(found)} processes are {spiffe_id}, and one should be")
        return int(found[0])


def descendants(ancestor: int) -> tuple[int, ...]:
    """Return the numbers of all processes below one, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            children.setdefault(_parent(entry), []).append(int(entry.name))
    found: list[int] = []
    waiting = [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return tuple(found)


def is_there(number: int) -> bool:
    """Tell whether a process runs: not ended, not merely unreaped."""
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in ("Z", "X")


def age_s(number: int) -> float:
    """Return how long ago a process was started, from /proc; in seconds, to a hundredth.

    Raises:
        ClaimError: it is not there.
    """
    try:
        text = Path(f"/proc/{number}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise ClaimError(f"process {number} is not there") from None
    ticks = int(text.rpartition(")")[2].split()[_START_TIME])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def signal_if_there(number: int, sent: signal.Signals) -> None:
    """Send a signal to a process if it is still there."""
    try:
        os.kill(number, sent)
    except ProcessLookupError:
        return


def wait_until(holds: Callable[[], bool], limit_s: float, otherwise: str) -> float:
    """Look again and again until something holds; return after how many seconds it did.

    Raises:
        ClaimError: it does not hold within `limit_s`; `otherwise` says what that means.
    """
    started_s = time.monotonic()
    while not holds():
        if time.monotonic() - started_s > limit_s:
            raise ClaimError(otherwise)
        time.sleep(_LOOK_AGAIN_S)
    return time.monotonic() - started_s


def files_below(directory: Path) -> Sequence[Path]:
    """Return every regular file below a directory."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def _parent(entry: Path) -> int:
    try:
        text = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        return int(text.rpartition(")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def _command_line(number: int) -> str:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
