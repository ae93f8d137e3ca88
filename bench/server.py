"""What one request costs before any handler does anything: an empty handler over mutual TLS.

    PYTHONPATH=test .venv/bin/python -m bench.server [--format human|json] [--seconds S]

The server runs in a process of its own, the load client in another, over 1, 32 and 256 kept
connections. `server_us` is the server's processor time for one request: unlike requests per second
it does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass

import uvloop
from bench.load import CannotBuildError, Credential, Figures, built, cpu_seconds, run
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from spiffe_kit import Ca, material
from spike.server import Request, Response, Server
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context

CONNECTIONS = (1, 32, 256)
BODY = b'{"path":"tenant/a/database"}'
REQUEST = (
    b"POST /v1/store/secrets?action=get HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    b"\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


@dataclass(frozen=True)
class Line:
    """One run: how many connections, what the client saw, what it cost the server."""

    connections: int
    server_us: float
    load: Figures


async def _handle(request: Request) -> Response:
    await request.body(1024 * 1024)
    return Response(200)


async def _serve(who: Credential) -> None:
    """Serve until standard input ends; fill the client's credential and print the port."""
    ca = Ca("spike.ist")
    issued = ca.svid("spiffe://spike.ist/workload/bench")
    key = load_der_private_key(issued.key_der, password=None)
    os.write(who.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    os.write(who.certificate, issued.chain[0].public_bytes(Encoding.PEM))
    os.write(who.authority, ca.cert.public_bytes(Encoding.PEM))
    source = HeldSource(material(ca.svid("spiffe://spike.ist/spike/nexus"), ca))
    server = Server(_handle, server_context(source), "127.0.0.1", 0, trust=source.still_trusts)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    await server.start()
    print(server.port, flush=True)
    await stop.wait()
    await server.drain(grace_s=1.0)


def _measure(seconds: float) -> list[Line]:
    who = Credential.empty()
    command = [sys.executable, "-m", "bench.server", "--serve", *map(str, who.descriptors)]
    with (
        built() as program,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=who.descriptors
        ) as server,
    ):
        if server.stdout is None or server.stdin is None:
            raise AssertionError
        port = int(server.stdout.readline())
        run(program, port, who, REQUEST, connections=1, seconds=0.5)  # warm
        lines = []
        for connections in CONNECTIONS:
            before = cpu_seconds(server.pid)
            figures = run(program, port, who, REQUEST, connections=connections, seconds=seconds)
            spent = cpu_seconds(server.pid) - before
            lines.append(Line(connections, round(spent / figures.requests * 1e6, 1), figures))
        server.stdin.close()
    return lines


def _print_human(lines: list[Line]) -> None:
    print("connections       rps   p50 ms   p99 ms  server us  errors  load client's cpu")
    for line in lines:
        load = line.load
        print(
            f"{line.connections:11} {load.rps:9.0f} {load.p50_ms:8.3f} {load.p99_ms:8.3f}"
            f" {line.server_us:10.1f} {load.errors:7} {load.cpu_share:18.0%}"
        )


def main() -> None:
    """Measure and print; without a compiler say what to install and measure nothing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--serve", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve(Credential(*options.serve)))
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
