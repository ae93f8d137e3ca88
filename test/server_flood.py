"""A program: floods a server with bad requests and prints the process's memory before and after.

    python server_flood.py COUNT SEED

A process of its own, so that what is measured is the server's and its clients' memory alone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import resource
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import uvloop

from server_kit import QUICK, Client, running, until
from spike.server import Request, Response

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
AT_ONCE = 20


def resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() // 1024


async def misbehave(client: Client, chance: random.Random) -> None:
    await client.send(chance.choice((*BAD, chance.randbytes(chance.randrange(2000)))))
    if chance.random() < 0.7:
        # Take what the server has to say; else, or if it says nothing, just leave.
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(0.02):
                await client.reader.read(1)


async def handle(request: Request) -> Response:
    return Response(200, await request.body(1000))


async def flood(count: int, chance: random.Random) -> tuple[int, int]:
    async with running(handle, replace(QUICK, trim_interval_s=0.05)) as site:
        context = site.context()

        async def one() -> None:
            async with site.client(context) as client:
                await misbehave(client, chance)

        async def rounds(count: int) -> int:
            for _ in range(count // AT_ONCE):
                await asyncio.gather(*(one() for _ in range(AT_ONCE)))
                site.clients.clear()
            await until(lambda: site.server.connections == 0)
            gc.collect()
            await asyncio.sleep(0.2)  # the server gives freed memory back
            return resident_kib()

        before = await rounds(200)  # buffers and caches reach their size
        after = await rounds(count)
        if not await site.lives():
            raise AssertionError("the server does not serve any more")
        return before, after


def main() -> None:
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    before, after = uvloop.run(flood(count, random.Random(seed)))
    print(json.dumps({"before": before, "after": after}))


if __name__ == "__main__":
    main()
