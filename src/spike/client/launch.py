"""Starting processes that have an identity of their own from Authority.

The process is started, held, granted its identity by pidfd, and only then executes its command: so
the command never runs without it, and no other process can take its place. The launcher keeps the
connection to Authority and, when that has been restarted, asks for all its processes again.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from spike.client.control import ControlClient
from spike.error import SettingError, SpikeError, UnreachableError
from spike.spiffe.endpoint import SOCKET_VARIABLE
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
    `descriptors` are passed on besides standard input, output and error.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str] | None = field(default=None, repr=False)
    directory: Path | None = None
    stdin: Stream = None
    stdout: Stream = None
    stderr: Stream = None
    process_group: int | None = None
    descriptors: Sequence[int] = ()


@dataclass(slots=True)
class _Charge:
    """A process this launcher vouches for."""

    id: SpiffeId
    descriptor: int


class Launcher:
    """Starts processes with identities and vouches for them until it is closed.

    Call `start` on a thread that lives as long as the processes shall: the kernel sends them SIGTERM
    when the thread that started them ends. The launcher's own thread only speaks with Authority.
    """

    def __init__(self, control: Path) -> None:
        """Nothing is connected yet: Authority may still be starting."""
        self._control = control
        self._lock = threading.Lock()
        self._client: ControlClient | None = None
        self._charges: list[_Charge] = []
        self._closed = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._keeper = threading.Thread(target=self._keep, name="spike-launcher", daemon=True)
        self._keeper.start()

    def start(self, spiffe_id: SpiffeId, command: Command) -> subprocess.Popen[bytes]:
        """Start a command with an identity; it is the caller's child to wait for.

        Raises:
            UnreachableError: Authority does not answer.
            InputError, SettingError: it refuses the grant; or the command cannot be executed.
        """
        ours, theirs = socket.socketpair()
        with ours, theirs, self._lock:
            socket_path = self._reached().grant_socket
            process = self._hold(command, theirs, socket_path)
        raise NotImplementedError
