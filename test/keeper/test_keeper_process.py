"""`spike-keeper` as it is shipped: its start and end, why it does not start, what it loads and needs."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from authority_kit import BIN, WAIT_S, AuthorityProcess, await_line
from size import record, size
from spike.client.launch import Command, Launcher
from spike.spiffe.id import SpiffeId

KEEPER = "spiffe://spike.ist/spike/keeper/one"
NEXUS = "spiffe://spike.ist/spike/nexus"
PROGRAM = str(BIN / "spike-keeper")
# Makes calls of every kind with the nexus identity; each is a connection of its own.
CALLS = """
import asyncio, sys
from spike.client.keeper import KeeperClient
from spike.client.setting import Address
from spike.spiffe.workload_source import X509Source
from spike.wire import keeper as wire

async def main(port, first, rounds):
    source = await X509Source.open(None, 30)
    client = KeeperClient(
        Address("127.0.0.1", port), source, lambda peer: peer.path == "/spike/keeper/one", 60)
    own = "a" * 32, "b" * 32
    for number in range(first, first + rounds):
        name = f"{number:032x}"
        shard = [1 + number % 250] * 32
        await client.ask(wire.STAGE, wire.StageRequest(*own, name, 1, 1, 2, shard, "c" * 64))
        await client.ask(wire.COMMIT, wire.CommitRequest(*own, name, number))
        status = await client.ask(wire.STATUS, wire.KeeperStatusRequest(bytes(32)))
        assert status.committed.set_id == name
        got = await client.ask(wire.GET, wire.SetRequest(name))
        assert got.shard == shard
        await client.ask(wire.ERASE, wire.SetRequest("f" * 32))
    await source.close()

asyncio.run(main(*map(int, sys.argv[1:])))
"""
CALLS_A_ROUND = 5
# The program, with every opening of a file for writing told. What has no name is no file: a descriptor in memory.
WATCHED = """
import os, sys

written = []

def watch(event, arguments):
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        if not isinstance(arguments[0], int):
            written.append(arguments[0])
    elif event in ("os.mkdir", "os.rename", "os.link", "os.symlink", "sqlite3.connect"):
        written.append(event)

sys.addaudithook(watch)
from spike.keeper.__main__ import main
try:
    main()
finally:
    print("files written:", written, flush=True)
"""
GROWTH_LIMIT_KIB = 16 * 1024

NEEDLESS = [
    "re2", "sqlite3", "yaml", "click", "zxcvbn", "grpclib.server", "spike.storage", "spike.lifecycle",
    "spike.secret", "spike.nexus", "spike.client", "spike.pilot", "spike.authority",
    "spike.policy.access", "spike.policy.compiled", "spike.crypto.slot", "spike.crypto.record",
]  # fmt: skip


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    with AuthorityProcess(tmp_path) as started:
        yield started


@contextlib.contextmanager
def started(
    authority: AuthorityProcess, spiffe_id: str, arguments: list[str], **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program with an identity; its output and errors come on its standard output."""
    command = Command(
        arguments,
        {**authority.environment, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    with Launcher(authority.control) as launcher:
        process = launcher.start(SpiffeId.parse_untrusted(spiffe_id), command)
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def port_of(process: subprocess.Popen[bytes]) -> int:
    """Wait until a Keeper listens and return its port."""
    line = await_line(process, lambda line: "listening on port" in line)[-1]
    found = re.search(r"listening on port (\d+) as " + re.escape(KEEPER), line)
    assert found is not None, line
    return int(found[1])


@contextlib.contextmanager
def keeping(
    authority: AuthorityProcess, *arguments: str, **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    own = {"SPIKE_KEEPER_TLS_PORT": "127.0.0.1:0", **environment}
    with started(authority, KEEPER, list(arguments) or [PROGRAM], **own) as process:
        yield process, port_of(process)


def make_calls(authority: AuthorityProcess, port: int, rounds: int, first: int = 1) -> None:
    """Make five calls a round with the nexus identity; `first` is the epoch of the first round."""
    arguments = [sys.executable, "-c", CALLS, *map(str, (port, first, rounds))]
    with started(authority, NEXUS, arguments) as caller:
        said, _ = caller.communicate()
        assert caller.returncode == 0, said.decode()


def resident_kib(process: subprocess.Popen[bytes]) -> int:
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", text)[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_holds_a_share_until_it_is_told_to_end(
    authority: AuthorityProcess, number: signal.Signals
) -> None:
    with keeping(authority) as (process, port):
        make_calls(authority, port, 1)
        process.send_signal(number)
        assert process.wait(WAIT_S) == 0


def test_it_writes_no_file(authority: AuthorityProcess, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    home = {"HOME": str(empty), "TMPDIR": str(empty), "PYTHONDONTWRITEBYTECODE": "1"}
    with keeping(authority, sys.executable, "-c", WATCHED, **home) as (process, port):
        make_calls(authority, port, 3)
        process.terminate()
        said, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == 0
    assert "files written: []" in said.decode()
    assert list(empty.iterdir()) == []


def test_it_needs_little_memory_however_many_calls_are_made(authority: AuthorityProcess) -> None:
    before = time.monotonic()
    with keeping(authority) as (process, port):
        start_s = time.monotonic() - before
        make_calls(authority, port, 20)
        at_rest = resident_kib(process)
        calls = size(test=300, proof=10_000)
        make_calls(authority, port, calls // CALLS_A_ROUND, first=100)
        after = resident_kib(process)
    assert after - at_rest < GROWTH_LIMIT_KIB
    figures = f"ready in {start_s:.2f} s, {at_rest >> 10} MiB, after the calls {after >> 10} MiB"
    record("calls of one Keeper, each a connection", calls, figures)
    print(figures)


def test_without_the_keeper_role_it_does_not_start(authority: AuthorityProcess) -> None:
    with started(authority, NEXUS, [PROGRAM]) as process:
        said, _ = process.communicate(timeout=WAIT_S)
        assert process.returncode == 1
        assert b"which is not a Keeper" in said
        assert b"spike/keeper" in said


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


def test_help_and_version_need_nothing_and_anything_else_is_wrong_usage() -> None:
    assert run("--help").stdout.startswith("Usage: spike-keeper")
    assert run("--version").stdout.startswith("spike-keeper ")
    for arguments in (["serve"], ["--port", "1"], ["--help", "x"]):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--help" in done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPIKE_KEEPER_TLS_PORT", "8443"),
        ("SPIKE_KEEPER_TLS_PORT", ":x"),
        ("SPIKE_SPIFFE_SOURCE_TIMEOUT", "0s"),
        ("SPIKE_MEMORY_STRICT", "perhaps"),
        ("SPIKE_SYSTEM_LOG_LEVEL", "LOUD"),
        ("SPIKE_TRUST_ROOT_KEEPER", "a,,b"),
        ("SPIFFE_ENDPOINT_SOCKET", "tcp://x"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_starts(name: str, value: str) -> None:
    done = run(**{name: value})
    assert done.returncode == 1
    assert name in done.stderr
    assert "next:" in done.stderr


@pytest.mark.ordinary
def test_it_does_not_start_where_no_page_can_be_locked() -> None:
    done = subprocess.run(
        [PROGRAM],
        env={},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0)),
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "lock" in done.stderr


def test_it_loads_nothing_that_a_keeper_does_not_need() -> None:
    code = "import sys, spike.keeper.__main__; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.splitlines()
    assert "spike.keeper.service" in loaded
    parts = tuple(f"{name}." for name in NEEDLESS)
    assert [name for name in loaded if name in NEEDLESS or name.startswith(parts)] == []
