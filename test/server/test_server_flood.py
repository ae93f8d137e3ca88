"""Many peers, bad ones among them: the server lives, its memory stays flat."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from server_kit import PATIENCE_S, Client, Echo, running, until
from size import record, seed, size


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


async def test_memory_stays_flat_under_bad_requests() -> None:
    count, played = size(test=300, proof=5000), seed()
    print("seed", played)
    program = Path(__file__).parents[1] / "server_flood.py"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "ignore",
        program,
        str(count),
        str(played),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    resident = json.loads(output)
    grown = resident["after"] - resident["before"]
    # 8 MiB is noise of the allocator; 30 kB kept of each request would be more, at either size.
    assert grown < 8 * 1024, f"{grown} KiB more after {count} bad requests"
    record("bad requests", count, f"resident memory grew by {grown} KiB", seed=played)


async def test_what_strangers_cause_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with running(Echo()) as site:
        for _ in range(100):
            with site.raw() as plain:
                plain.send(b"no TLS at all, not in the least")
                with suppress(ConnectionError):
                    await asyncio.get_running_loop().sock_recv(plain, 100)
        assert await site.lives()
    failures = [each for each in caplog.records if "handshake failed" in each.message]
    assert len(failures) == 30


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
