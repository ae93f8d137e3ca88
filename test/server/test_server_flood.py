"""Many peers, bad ones among them: the server lives, its memory stays flat."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import resource
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from server_kit import PATIENCE_S, QUICK, Client, Echo, running, until
from size import record, seed, size
from spike.server import Request, Response

KIB_PER_PAGE = resource.getpagesize() // 1024


def _resident_kib() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * KIB_PER_PAGE


async def test_connections_that_come_and_go_do_no_harm() -> None:
    count = 1000
    async with running(Echo()) as site:
        for _ in range(count):
            with site.raw():
                pass
        assert await site.lives()
        await until(lambda: site.server.connections == 0)
    record("TCP connections opened and dropped", count, "the next client was served")


async def test_fast_connects_are_all_served() -> None:
    count = size(test=300, proof=10_000)
    async with running(Echo()) as site:
        context = site.context()

        async def come(number: int) -> None:
            async with site.client(context) as client:
                assert (await client.ask("/", b"%d" % number)).body == b"%d" % number

        for start in range(0, count, 50):
            await asyncio.gather(*map(come, range(start, min(start + 50, count))))
    record("TLS connections, 50 at a time", count, "each was served")


BAD = (
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 30_000,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n" + b"x" * 30_000,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n" + b"x" * 30_000,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nshort",
    b"POST / HTT",
    b"",
)


async def _misbehave(client: Client, chance: random.Random) -> None:
    data = chance.choice((*BAD, chance.randbytes(chance.randrange(2000))))
    await client.send(data)
    if chance.random() < 0.7:
        # Whatever the server has to say; or nothing, then the client just leaves.
        try:
            async with asyncio.timeout(0.02):
                await client.reader.read(1)
        except (TimeoutError, OSError):
            pass


async def test_memory_stays_flat_under_bad_requests(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    count, played = size(test=300, proof=5000), seed()
    print("seed", played)
    chance = random.Random(played)

    async def handle(request: Request) -> Response:
        return Response(200, await request.body(1000))

    async with running(handle, replace(QUICK, trim_interval_s=0.1)) as site:
        context = site.context()

        async def flood(rounds: int) -> None:
            for _ in range(rounds // 20):

                async def one() -> None:
                    async with site.client(context) as client:
                        await _misbehave(client, chance)

                await asyncio.gather(*(one() for _ in range(20)))
                site.clients.clear()
            await asyncio.sleep(0.2)  # the server gives freed memory back

        await flood(200)  # buffers, caches and the allocator's arenas reach their size
        before = _resident_kib()
        await flood(count)
        grown = _resident_kib() - before
        assert await site.lives()
        await until(lambda: site.server.connections == 0)
    # 8 MiB is noise of the allocator; 30 kB kept of each request would be more, at either size.
    assert grown < 8 * 1024, f"{grown} KiB more after {count} bad requests"
    assert len([each for each in caplog.records if each.name.startswith("spike.server")]) < 100
    record("bad requests", count, f"resident memory grew by {grown} KiB", seed=played)


async def test_without_descriptors_accepting_rests_and_then_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with running(Echo()) as site:
        context = site.context()
        waiting = socket.socket()
        waiting.setblocking(False)
        highest = max(int(each) for each in os.listdir("/proc/self/fd"))
        # Every number below the limit is taken: holes are filled first.
        fillers = []
        while (number := os.open("/dev/null", os.O_RDONLY)) < highest:
            fillers.append(number)
        os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
        try:
            await asyncio.get_running_loop().sock_connect(waiting, ("127.0.0.1", site.server.port))
            await until(lambda: "accepting rests" in caplog.text)
            attempts = len(caplog.records)
            await asyncio.sleep(
                0.2
            )  # four rests long: a loop that spins would try thousands of times
            assert len(caplog.records) - attempts < 10
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for number in fillers:
                os.close(number)
        async with asyncio.timeout(PATIENCE_S):
            made = await asyncio.open_connection(sock=waiting, ssl=context, server_hostname="a")
        site.clients.append(client := Client(*made))
        assert (await client.ask("/", b"x")).body == b"x"
