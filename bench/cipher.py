"""What encryption as a service costs: the work itself beside bare AES-GCM, and over mutual TLS beside an echo.

    .venv/bin/python -m bench.cipher [--format human|json] [--seconds S]

`work`: microseconds of sealing and opening one blob of 0 bytes, 1 KiB and 64 KiB, the best of several rounds, beside
one AES-256-GCM call of the same size under a key that is set up already. `call`: raw calls over 1 and 32 kept
connections; `ratio` is requests per second against an authenticated call on the same server that answers with the body
it was sent. `server_us` is the server's processor time for one request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import timeit
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import uvloop
from bench.load import CannotBuildError, Credential, Figures, built, cpu_seconds, run
from bench.read import fill
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from nexus_kit import LITE, running
from spike.memory import KeyMemory
from spike.secret.cipher_blob import blob_size_bytes, open_blob_untrusted, seal_blob
from spike.server.request import Request
from spike.server.response import BINARY_HEADERS, Response

SIZES = (0, 1 << 10, 64 << 10)
CALLED_SIZES = SIZES[1:]
CONNECTIONS = (1, 32)
CALLS, ROUNDS = 500, 15
STORE = bytes(range(16))
ENCRYPT, DECRYPT, ECHO = "/v1/cipher/encrypt", "/v1/cipher/decrypt", "/echo"


@dataclass(frozen=True)
class Work:
    """Microseconds for one blob, and for one call of AES-GCM over as many bytes."""

    size_bytes: int
    seal_us: float
    open_us: float
    aes_gcm_us: float


@dataclass(frozen=True)
class Called:
    """One run: what was called with how many bytes, over how many connections, and what it cost."""

    what: str
    size_bytes: int
    connections: int
    server_us: float
    ratio: float
    load: Figures


def _work() -> list[Work]:
    lines = []
    with KeyMemory.generate() as key:
        bare = AESGCM(AESGCM.generate_key(256))
        for size_bytes in SIZES:
            plaintext = bytes(size_bytes)
            blob = seal_blob(key, 1, STORE, plaintext)
            cases: tuple[Callable[[], object], ...] = (
                partial(seal_blob, key, 1, STORE, plaintext),
                partial(open_blob_untrusted, lambda _: key, STORE, blob),
                partial(bare.encrypt, bytes(12), plaintext, None),
            )
            best = [float("inf")] * len(cases)
            for _ in range(ROUNDS):  # in turns, so that a busy machine hits all
                for index, call in enumerate(cases):
                    took_us = timeit.timeit(call, number=CALLS) / CALLS * 1e6
                    best[index] = min(best[index], took_us)
            lines.append(Work(size_bytes, *(round(each, 2) for each in best)))
    return lines


def request(target: str, body: bytes) -> bytes:
    """Return one whole HTTP request in the raw form."""
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _serve(workload: Credential) -> None:
    async with running() as nexus:
        fill(workload, nexus.ca, LITE)
        nexus.answer_first(ECHO, _echo)
        ring = nexus.vault.opened.ring
        active, store = ring.active_cipher, bytes.fromhex(ring.document.store_id)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
        blobs = [
            seal_blob(active.key, active.generation, store, bytes(size)).hex()
            for size in CALLED_SIZES
        ]
        print(json.dumps({"port": nexus.server.port, "blobs": blobs}), flush=True)
        await stop.wait()


async def _echo(asked: Request) -> Response:
    return Response(200, await asked.body(1 << 20), BINARY_HEADERS)


def _called(seconds: float) -> list[Called]:
    workload = Credential.empty()
    command = [sys.executable, "-m", "bench.cipher", "--serve", *map(str, workload.descriptors)]
    lines: list[Called] = []
    with (
        built() as program,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=workload.descriptors
        ) as server,
    ):
        if server.stdout is None or server.stdin is None:
            raise AssertionError
        told = json.loads(server.stdout.readline())
        for size_bytes, blob in zip(CALLED_SIZES, map(bytes.fromhex, told["blobs"]), strict=True):
            plaintext = bytes(size_bytes)
            cases = (
                ("echo", request(ECHO, plaintext)),
                ("encrypt", request(ENCRYPT, plaintext)),
                ("decrypt", request(DECRYPT, blob)),
            )
            for connections in CONNECTIONS:
                base = 0.0
                for what, asked in cases:
                    options = {"connections": connections}
                    run(program, told["port"], workload, asked, **options, seconds=0.3)  # warm
                    before = cpu_seconds(server.pid)
                    load = run(program, told["port"], workload, asked, **options, seconds=seconds)
                    spent_us = (cpu_seconds(server.pid) - before) / load.requests * 1e6
                    base = base or load.rps
                    figures = (round(spent_us, 1), round(load.rps / base, 2), load)
                    lines.append(Called(what, size_bytes, connections, *figures))
        server.stdin.close()
    return lines


def _print_human(work: list[Work], called: list[Called]) -> None:
    print("bytes   blob bytes   seal us   open us   AES-GCM us   seal MB/s")
    for line in work:
        rate = f"{line.size_bytes / line.seal_us:11.0f}" if line.size_bytes else ""
        print(
            f"{line.size_bytes:5} {blob_size_bytes(line.size_bytes):12} {line.seal_us:9.1f} {line.open_us:9.1f}"
            f" {line.aes_gcm_us:12.1f} {rate}"
        )
    if called:
        print("\nwhat        bytes  conns      rps  ratio   p50 ms   p99 ms  server us  errors")
    for each in called:
        load = each.load
        print(
            f"{each.what:10} {each.size_bytes:6} {each.connections:6} {load.rps:8.0f} {each.ratio:6.2f}"
            f" {load.p50_ms:8.3f} {load.p99_ms:8.3f} {each.server_us:10.1f} {load.errors:7}"
        )


def main() -> None:
    """Measure and print; without a compiler only the work itself."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--serve", nargs=3, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        uvloop.run(_serve(Credential(*options.serve)))
        return
    work = _work()
    try:
        called = _called(options.seconds)
    except CannotBuildError as error:
        print(f"calls are not measured: {error}", file=sys.stderr)
        called = []
    if options.format == "json":
        told = {"work": [asdict(each) for each in work], "call": [asdict(each) for each in called]}
        print(json.dumps(told))
    else:
        _print_human(work, called)


if __name__ == "__main__":
    main()
