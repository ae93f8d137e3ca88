"""An Authority as it is shipped, as a process, for tests; and calls to it without any of our client code."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from grpclib.client import Channel

from spike.client.control import ControlClient
from spike.spiffe.svid import X509Svid
from spike.spiffe.workload.workload_grpc import SpiffeWorkloadAPIStub
from spike.spiffe.workload.workload_pb2 import X509SVIDRequest, X509SVIDResponse

HEADER = {"workload.spiffe.io": "true"}
SUPERUSER = "spiffe://spike.ist/spike/pilot/role/superuser"
RESTORE = "spiffe://spike.ist/spike/pilot/role/restore"
WEB = "spiffe://spike.ist/web"
BIN = Path(sys.executable).parent
WAIT_S = 20.0
CLI = str(BIN / "spike-authority")

# Prints the identity it gets, then one line for each later message, until its stream ends.
FOLLOW = """
import asyncio, sys
from grpclib.client import Channel
from grpclib.exceptions import GRPCError, StreamTerminatedError
from spike.spiffe.workload.workload_grpc import SpiffeWorkloadAPIStub
from spike.spiffe.workload.workload_pb2 import X509SVIDRequest
import os

async def main():
    path = os.environ["SPIFFE_ENDPOINT_SOCKET"].removeprefix("unix://")
    while True:
        channel = Channel(path=path)
        try:
            call = SpiffeWorkloadAPIStub(channel).FetchX509SVID.open(
                metadata={"workload.spiffe.io": "true"})
            async with call as stream:
                await stream.send_message(X509SVIDRequest(), end=True)
                async for message in stream:
                    first = message.svids[0]
                    print(first.spiffe_id, first.bundle.hex()[-40:], flush=True)
        except GRPCError as error:
            print(error.status.name, flush=True)
        except (OSError, StreamTerminatedError):
            pass
        finally:
            channel.close()
        await asyncio.sleep(0.05)

asyncio.run(main())
"""


def eventually(what: str, condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    """Wait until a condition holds; fail, naming it, when it never does."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)


def next_line(process: subprocess.Popen[bytes], timeout_s: float = WAIT_S) -> str:
    """Return the next line of a process's output; empty at its end."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], timeout_s)
        assert ready, f"the process says nothing after {line!r}"
        # Past the file object's buffer: what that took, select would not see.
        piece = os.read(process.stdout.fileno(), 1)
        if not piece:
            break
        line += piece
    return line.decode().strip()


def await_line(process: subprocess.Popen[bytes], wanted: Callable[[str], bool]) -> list[str]:
    """Read lines up to one that is as wanted; return them all."""
    lines: list[str] = []
    while not lines or not wanted(lines[-1]):
        lines.append(next_line(process))
        assert lines[-1], f"the process ended after {lines}"
    return lines


class AuthorityProcess:
    """`spike-authority serve` in a directory of its own."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.options = options
        self.socket = directory / "agent.sock"
        self.control = directory / "control.sock"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"unix://{self.socket}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "SPIFFE_ENDPOINT_SOCKET": self.endpoint,
            "SPIKE_AUTHORITY_CONTROL": str(self.control),
        }

    @property
    def command(self) -> list[str]:
        paths = ["--socket", self.socket, "--control", self.control, "--data", self.directory]
        return [CLI, "serve", *map(str, paths), *self.options]

    def start(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=subprocess.PIPE, stderr=log, bufsize=0, env=self.environment
            )
        await_line(self.process, lambda line: line.startswith("Entries:"))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(WAIT_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def cli(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run one `spike-authority` command to its end."""
        return subprocess.run(
            [CLI, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
            **more,
        )

    def ask(self) -> ControlClient:
        return ControlClient.connect(self.control)

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None:
            self.end(signal.SIGKILL)


@asynccontextmanager
async def stub(path: Path) -> AsyncIterator[SpiffeWorkloadAPIStub]:
    """Calls over one new connection."""
    channel = Channel(path=str(path))
    try:
        yield SpiffeWorkloadAPIStub(channel)
    finally:
        channel.close()


async def begin(call: Any, request: Any, metadata: Any = HEADER) -> Any:
    """Begin a call; it ends when its connection is closed, without a word about it."""
    stream = await call.open(metadata=metadata).__aenter__()
    await stream.send_message(request, end=True)
    return stream


@asynccontextmanager
async def svid_stream(path: Path, metadata: Any = HEADER) -> AsyncIterator[Any]:
    """An open FetchX509SVID stream."""
    async with stub(path) as calls:
        yield await begin(calls.FetchX509SVID, X509SVIDRequest(), metadata)


async def fetch(path: Path) -> X509SVIDResponse:
    """Return the first message of a new stream."""
    async with svid_stream(path) as stream:
        message: X509SVIDResponse = await stream.recv_message()
        return message


def svid_of(message: X509SVIDResponse, index: int = 0) -> X509Svid:
    return X509Svid.parse_untrusted(message.svids[index].x509_svid)
