"""Runs the command `spike` many times, quickly: a process that has its modules loaded forks for each run.

A start of Python and the imports are 0.4 s, and a script has dozens of commands. What runs is the same:
a process of its own, its own session without a terminal, the environment and directory it is given,
and `run`, which `main` calls. The tests of the terminal start `spike` in the ordinary way.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MESSAGE_LIMIT_BYTES = 1 << 18
PATIENCE_S = 60.0


@dataclass(frozen=True)
class Run:
    """What a process did."""

    exit: int
    stdout: str
    stderr: str


class SpikeFork:
    """The process that forks. Close it."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(PATIENCE_S)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )

    def run(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        stdin: bytes,
    ) -> Run:
        """Run `spike` once."""
        job = json.dumps([list(arguments), dict(environment), str(directory)]).encode()
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as out,
            tempfile.TemporaryFile() as err,
        ):
            given.write(stdin)
            given.seek(0)
            socket.send_fds(self._socket, [job], [given.fileno(), out.fileno(), err.fileno()])
            code = json.loads(self._socket.recv(MESSAGE_LIMIT_BYTES))
            out.seek(0)
            err.seek(0)
            return Run(code, out.read().decode(), err.read().decode())

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.wait(PATIENCE_S)


def serve(connection: socket.socket) -> None:
    """Fork for each job until the other side is gone."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(connection, MESSAGE_LIMIT_BYTES, 3)
        if not message:
            return
        child = os.fork()
        if child == 0:
            os._exit(_child(descriptors, *json.loads(message)))
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(child, 0)
        connection.send(json.dumps(os.waitstatus_to_exitcode(status)).encode())


def _child(
    descriptors: list[int], arguments: list[str], environment: dict[str, str], directory: str
) -> int:
    from spike.pilot.__main__ import run

    os.setsid()
    os.chdir(directory)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  lives as long as the process
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    code = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    # What commands import when they run; the rest they import themselves.
    import spike.client.nexus
    import spike.pilot.command.init
    import spike.pilot.command.policy
    import spike.pilot.command.restore
    import spike.pilot.command.secret
    import spike.pilot.command.status  # noqa: F401

    with socket.socket(fileno=int(sys.argv[1])) as ours:
        serve(ours)
