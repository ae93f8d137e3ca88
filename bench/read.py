"""What a secret read costs against an empty authenticated handler on the same server, in the same run.

    .venv/bin/python -m bench.read [--format human|json] [--seconds S]

One process holds a Nexus on SQLite with 1,000 secrets of 1 KiB and 1,000 policies; beside its calls it answers an
empty call that is authenticated and does nothing. A load client reads over 1, 32 and 256 kept connections: the empty
call, a secret as the superuser, and a secret as a workload that one of the policies lets in. `server_us` is the
server's processor time for one request; `ratio` is requests per second against the empty call over as many
connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop
from bench.load import CannotBuildError, Credential, Figures, built, cpu_seconds, run
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from nexus_kit import SUPERUSER, WORKLOAD, RunningNexus, running
from spiffe_kit import Ca
from spike.server.request import Request
from spike.server.response import Response

CONNECTIONS = (1, 32, 256)
SECRETS = 1_000
POLICIES = 1_000
PATH = "tenants/t500/database"
EMPTY_TARGET = "/empty"
READ_TARGET = "/v1/store/secrets?action=get"


@dataclass(frozen=True)
class Line:
    """One run: what was asked, over how many connections, and what it cost."""

    what: str
    connections: int
    server_us: float
    ratio: float
    load: Figures


def request(target: str) -> bytes:
    """Return one whole HTTP request; every case sends the same body."""
    body = json.dumps({"path": PATH}).encode()
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def fill(who: Credential, ca: Ca, spiffe_id: str) -> None:
    """Write an SVID of this ID, its key and the bundle into a credential's descriptors."""
    issued = ca.svid(spiffe_id)
    key = load_der_private_key(issued.key_der, password=None)
    os.write(who.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    os.write(who.certificate, issued.chain[0].public_bytes(Encoding.PEM))
    os.write(who.authority, ca.cert.public_bytes(Encoding.PEM))


async def _furnish(nexus: RunningNexus) -> None:
    """Write secrets and policies past the wire: only reads are measured."""
    opened = nexus.vault.opened
    await asyncio.gather(
        *(
            opened.secrets.put(f"tenants/t{n}/database", {"user": "web", "password": "x" * 1000})
            for n in range(SECRETS)
        )
    )
    for n in range(POLICIES):
        who = f"^{WORKLOAD}$" if n == 500 else rf"^spiffe://spike\.ist/workload/w{n}$"
        policy = {
            "name": f"tenant {n}",
            "spiffeidPattern": who,
            "pathPattern": f"^tenants/t{n}/.*$",
            "permissions": ["read"],
        }
        status, _ = await nexus.call(SUPERUSER, "/v1/acl/policy", policy)
        if status != 200:
            raise AssertionError(policy)


async def _serve(superuser: Credential, workload: Credential) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with running(Path(directory) / "data") as nexus:
            fill(superuser, nexus.ca, SUPERUSER)
            fill(workload, nexus.ca, WORKLOAD)
            await _furnish(nexus)
            nexus.answer_first(EMPTY_TARGET, _empty)
            stop = asyncio.Event()
            asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
            print(nexus.server.port, flush=True)
            await stop.wait()


async def _empty(asked: Request) -> Response:
    await asked.body(1 << 20)
    return Response(200)


def _measure(seconds: float) -> list[Line]:
    superuser, workload = Credential.empty(), Credential.empty()
    descriptors = (*superuser.descriptors, *workload.descriptors)
    command = [sys.executable, "-m", "bench.read", "--serve", *map(str, descriptors)]
    cases = (
        ("empty authenticated call", superuser, request(EMPTY_TARGET)),
        ("secret read, superuser", superuser, request(READ_TARGET)),
        ("secret read, by policy", workload, request(READ_TARGET)),
    )
    lines: list[Line] = []
    with (
        built() as program,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=descriptors
        ) as server,
    ):
        if server.stdout is None or server.stdin is None:
            raise AssertionError
        port = int(server.stdout.readline())
        for connections in CONNECTIONS:
            base = 0.0
            for what, who, asked in cases:
                run(program, port, who, asked, connections=connections, seconds=0.5)  # warm
                before = cpu_seconds(server.pid)
                load = run(program, port, who, asked, connections=connections, seconds=seconds)
                spent = cpu_seconds(server.pid) - before
                base = base or load.rps
                cost_us = round(spent / load.requests * 1e6, 1)
                lines.append(Line(what, connections, cost_us, round(load.rps / base, 2), load))
        server.stdin.close()
    return lines


def _print_human(lines: list[Line]) -> None:
    print(
        "what                       conns       rps  ratio   p50 ms   p99 ms  server us  errors  client's cpu"
    )
    for line in lines:
        load = line.load
        print(
            f"{line.what:26} {line.connections:5} {load.rps:9.0f} {line.ratio:6.2f} {load.p50_ms:8.3f}"
            f" {load.p99_ms:8.3f} {line.server_us:10.1f} {load.errors:7} {load.cpu_share:13.0%}"
        )


def main() -> None:
    """Measure and print; without a compiler say what to install and measure nothing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--serve", nargs=6, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve(Credential(*options.serve[:3]), Credential(*options.serve[3:])))
        return
    try:
        lines = _measure(options.seconds)
    except CannotBuildError as error:
        print(f"skipped: {error}", file=sys.stderr)
        return
    if options.format == "json":
        print(json.dumps([asdict(line) for line in lines]))
    else:
        _print_human(lines)


if __name__ == "__main__":
    main()
