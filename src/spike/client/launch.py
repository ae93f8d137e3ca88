"""Starting processes that have an identity of their own from Authority.

The process is started, held, granted its identity by pidfd, and only then executes its command: so
the command never runs without it, and no other process can take its place. The launcher keeps the
connection to Authority and, when that has been restarted, asks for all its processes again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from spike.client.control import ControlClient
from spike.error import DeniedError, InputError, SettingError, SpikeError, UnreachableError
from spike.spiffe.id import SpiffeId

FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 0.5
# A held process needs milliseconds; on a machine that swaps, more.
HOLD_TIMEOUT_S: Final = 30.0

_HOLD: Final = Path(__file__).with_name("hold.py")
Stream = int | IO[bytes] | None

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Command:
    """What to execute, and in which surroundings.

    `environment` None is the launcher's own; SPIFFE_ENDPOINT_SOCKET is set in any case. Streams are
    as for `subprocess.Popen`. `process_group` None stays in the launcher's, 0 makes a new one.
    `descriptors` are passed on besides standard input, output and error. `blocked_signals` None are
    those of the thread that calls `Launcher.start`.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    directory: Path | None = None
    stdin: Stream = None
    stdout: Stream = None
    stderr: Stream = None
    process_group: int | None = None
    descriptors: Sequence[int] = ()
    blocked_signals: frozenset[int] | None = None


@dataclass(slots=True, eq=False)
class _Charge:
    """A process this launcher vouches for. `client` is the connection its grant is held by."""

    id: SpiffeId
    descriptor: int
    client: ControlClient | None = None


class Launcher:
    """Starts processes with identities and vouches for them until it is closed.

    Call `start` on a thread that lives as long as the processes shall: the kernel sends them SIGTERM
    when the thread that started them ends. The launcher's own thread only speaks with Authority.
    """

    def __init__(self, control: Path) -> None:
        """Nothing is connected yet: Authority may still be starting."""
        self._control = control
        # Held whenever the connection is used and whenever charges change.
        self._lock = threading.Lock()
        self._client: ControlClient | None = None
        self._charges: list[_Charge] = []
        self._closing = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._keeper = threading.Thread(target=self._keep, name="spike-launcher", daemon=True)
        self._keeper.start()

    def start(self, spiffe_id: SpiffeId, command: Command) -> subprocess.Popen[bytes]:
        """Start a command with an identity; it is the caller's child to wait for.

        Raises:
            UnreachableError: Authority does not answer.
            InputError, DeniedError, SettingError: it refuses the grant.
            SettingError: the command cannot be executed.
        """
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                process = _hold(command, theirs)
            try:
                endpoint = self._vouch(spiffe_id, os.pidfd_open(process.pid))
                _let_go(ours, endpoint, command)
            except BaseException:
                # Without its line it ends by itself; once the command runs, nothing here fails.
                ours.close()
                process.wait()
                raise
        return process

    def close(self) -> None:
        """Vouch for nothing any more: Authority withdraws every grant. Idempotent."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
        self._rouse()
        self._keeper.join()
        self._hang_up()
        for charge in self._charges:
            os.close(charge.descriptor)
        os.close(self._wake)

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _vouch(self, spiffe_id: SpiffeId, descriptor: int) -> str:
        """Get a process its grant and keep it; return the Workload API's endpoint."""
        charge = _Charge(spiffe_id, descriptor)
        with self._lock:
            try:
                try:
                    endpoint = self._grant(charge)
                except UnreachableError:
                    # A connection to an Authority that is no more: ask the one that is there now.
                    self._hang_up()
                    endpoint = self._grant(charge)
            except BaseException:
                os.close(descriptor)
                raise
            self._charges.append(charge)
        self._rouse()
        return endpoint

    def _grant(self, charge: _Charge) -> str:
        if self._client is None:
            self._client = ControlClient.connect(self._control)
        granted = self._client.grant(str(charge.id), charge.descriptor)
        charge.client = self._client
        return f"unix://{granted.socket}"

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _rouse(self) -> None:
        os.eventfd_write(self._wake, 1)

    def _keep(self) -> None:
        """Forget processes that end, and ask again for the others whenever Authority has gone."""
        pause_s = FIRST_PAUSE_S
        while True:
            with self._lock:
                if self._closing:
                    return
                self._forget_ended()
                if self._client is not None and _has_hung_up(self._client):
                    self._hang_up()
                missing = [
                    c for c in self._charges if c.client is None or c.client is not self._client
                ]
                # One that is refused must not keep the others from theirs.
                complete = sum(self._ask_again(charge) for charge in missing) == len(missing)
                watched = [self._wake, *(charge.descriptor for charge in self._charges)]
                if self._client is not None:
                    watched.append(self._client.fileno())
            pause_s = FIRST_PAUSE_S if complete else min(2 * pause_s, LONGEST_PAUSE_S)
            _wait(watched, None if complete else pause_s)
            if _wait([self._wake], 0):
                os.eventfd_read(self._wake)

    def _forget_ended(self) -> None:
        for charge in tuple(self._charges):
            if _wait([charge.descriptor], 0):
                self._charges.remove(charge)
                os.close(charge.descriptor)

    def _ask_again(self, charge: _Charge) -> bool:
        try:
            self._grant(charge)
        except (SpikeError, OSError) as error:
            # A refusal leaves the connection good; after anything else its state is not known.
            if not isinstance(error, InputError | DeniedError | SettingError):
                self._hang_up()
            _log.info("no identity for the process of %s at present: %s", charge.id, error)
            return False
        return True


def inherited_descriptors() -> tuple[int, ...]:
    """Return what this process was given besides standard input, output and error."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        descriptor = int(entry.name)
        with contextlib.suppress(OSError):  # the one that listed the directory is closed by now
            if descriptor > 2 and os.get_inheritable(descriptor):
                found.append(descriptor)
    return tuple(found)


def _hold(command: Command, channel: socket.socket) -> subprocess.Popen[bytes]:
    blocked = command.blocked_signals
    if blocked is None:
        blocked = frozenset(int(each) for each in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
    mask = ",".join(str(int(each)) for each in sorted(blocked))
    hold = [sys.executable, "-I", "-S", str(_HOLD), str(channel.fileno()), str(os.getpid()), mask]
    try:
        return subprocess.Popen(
            [*hold, *command.arguments],
            env=command.environment,
            cwd=command.directory,
            stdin=command.stdin,
            stdout=command.stdout,
            stderr=command.stderr,
            process_group=command.process_group,
            pass_fds=(channel.fileno(), *command.descriptors),
        )
    except OSError as error:
        raise SettingError(f"no process can be started: {error.strerror}") from error


def _let_go(channel: socket.socket, endpoint: str, command: Command) -> None:
    """Tell the held process to execute its command, and wait until it has."""
    channel.settimeout(HOLD_TIMEOUT_S)
    try:
        channel.sendall(f"{endpoint}\n".encode())
        answer = channel.recv(16)
    except OSError as error:
        raise SettingError("the process ended before its command could be executed") from error
    if answer:
        raise SettingError(
            f"{command.arguments[0]} cannot be executed: {os.strerror(int(answer))}",
            "correct the command behind --",
        )


def _has_hung_up(client: ControlClient) -> bool:
    # Between calls nothing comes from Authority but its end.
    return _wait([client.fileno()], 0)


def _wait(descriptors: Sequence[int], timeout_s: float | None) -> bool:
    """Wait until one of them is readable, or the time is over; say which."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
