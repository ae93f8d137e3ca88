"""A Keeper of `spike dev` is ready when it answers itself: not when somebody else has its port."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pilot_kit import ROLES, WorkloadApi
from spiffe_kit import Ca, material
from spike.pilot.dev.keeper import KeeperSite
from spike.pilot.dev.machine import HOST
from spike.pilot.dev.place import DevPlace
from spike.pilot.dev.ready import keeper_answers
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context

PATIENCE_S = 60.0


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> DevPlace:
    """A directory that is short enough for sockets, whatever the test is called."""
    made = DevPlace(tmp_path_factory.mktemp("d"))
    made.prepare()
    return made


@asynccontextmanager
async def workload_api(place: DevPlace, ca: Ca) -> AsyncIterator[None]:
    api = WorkloadApi(place.workload_socket, ROLES["superuser"], ca)
    await api.start()
    try:
        yield
    finally:
        await api.stop()


class Squatter:
    """Takes connections on a port, reads what comes first and hangs up; counts those it was spoken to on."""

    def __init__(self) -> None:
        self.spoken_to = 0
        self.often = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            self.spoken_to += 1
        if self.spoken_to == 3:
            self.often.set()
        writer.close()


def port_of(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])


def context_of(ca: Ca, index: int) -> ssl.SSLContext:
    """What a Keeper of this index speaks TLS with."""
    keeper = ca.svid(f"spiffe://spike.ist/spike/keeper/{index}")
    return server_context(HeldSource(material(keeper, ca)))


async def test_a_port_that_somebody_else_has_is_not_a_keeper_that_is_ready(place: DevPlace) -> None:
    ca, squatter = Ca("spike.ist"), Squatter()
    async with workload_api(place, ca), asyncio.timeout(PATIENCE_S):
        server = await asyncio.start_server(squatter.serve, HOST, 0)
        port = port_of(server)
        ready = asyncio.create_task(keeper_answers(place, KeeperSite(1, port)))
        await squatter.often.wait()
        assert not ready.done()
        server.close()
        await server.wait_closed()
        context = context_of(ca, 1)
        server = await asyncio.start_server(squatter.serve, HOST, port, ssl=context)
        await ready
        server.close()
        await server.wait_closed()


async def test_another_keeper_is_not_this_one(place: DevPlace) -> None:
    ca, squatter = Ca("spike.ist"), Squatter()
    async with workload_api(place, ca), asyncio.timeout(PATIENCE_S):
        inner = await asyncio.start_server(squatter.serve, HOST, 0, ssl=context_of(ca, 2))
        seen = Relay(port_of(inner))
        outer = await asyncio.start_server(seen.serve, HOST, 0)
        ready = asyncio.create_task(keeper_answers(place, KeeperSite(1, port_of(outer))))
        await seen.often.wait()
        assert not ready.done()
        ready.cancel()
        await asyncio.gather(ready, return_exceptions=True)
        await keeper_answers(place, KeeperSite(2, port_of(outer)))
        for server in (outer, inner):
            server.close()
            await server.wait_closed()


class Relay:
    """Passes connections on, and knows when many have come."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._count = 0
        self.often = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._count += 1
        if self._count == 6:
            self.often.set()
        inward, outward = await asyncio.open_connection(HOST, self._port)
        await asyncio.gather(pump(reader, outward), pump(inward, writer))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
