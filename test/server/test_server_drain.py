"""How a server stops."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

import pytest

from server_kit import PATIENCE_S, QUICK, SERVER_ID, Echo, Gate, request, running, until
from spiffe_kit import Ca, material
from spike.error import SettingError
from spike.server import Request, Response, Server
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context


async def test_answers_in_progress_are_finished_and_all_else_is_closed_at_once() -> None:
    gate = Gate()
    async with running(gate) as site:
        busy, idle = await site.connect(), await site.connect()
        await busy.send(request("/"))
        await until(lambda: gate.entered == 1)
        draining = asyncio.create_task(site.server.drain(PATIENCE_S))
        assert await idle.is_closed()
        with pytest.raises(ConnectionError):
            await site.connect()
        assert not draining.done()
        gate.open.set()
        answer = await busy.answer()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert await busy.is_closed()
        await draining
        assert site.server.connections == 0


async def test_a_request_half_sent_is_still_served() -> None:
    echo = Echo()
    async with running(echo) as site:
        client = await site.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        await until(lambda: len(echo.seen) == 1)
        draining = asyncio.create_task(site.server.drain(PATIENCE_S))
        await asyncio.sleep(0)
        await client.send(b"b")
        assert (await client.answer()).body == b"ab"
        await draining


async def test_what_outlasts_the_grace_is_broken_off() -> None:
    cancelled = asyncio.Event()

    async def handle(_request: Request) -> Response:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        raise AssertionError

    async with running(handle) as site:
        client = await site.connect()
        await client.send(request("/"))
        await until(lambda: bool(site.server.connections))
        async with site.client():
            pass
        await site.server.drain(0.05)
        assert cancelled.is_set()
        assert await client.is_closed()
        assert site.server.connections == 0


async def test_a_peer_that_goes_away_cancels_nothing_and_the_drain_waits_for_it() -> None:
    gate = Gate()
    async with running(gate) as site:
        client = await site.connect()
        await client.send(request("/"))
        await until(lambda: gate.entered == 1)
        client.writer.transport.abort()
        await until(lambda: site.server.connections == 0)
        draining = asyncio.create_task(site.server.drain(PATIENCE_S))
        await asyncio.sleep(QUICK.sweep_interval_s * 3)
        assert not draining.done()
        gate.open.set()
        await draining
        assert gate.finished == 1


async def test_a_peer_that_goes_away_before_its_body_is_whole_ends_the_wait_for_it() -> None:
    echo = Echo()
    async with running(echo) as site:
        client = await site.connect()
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        await until(lambda: len(echo.seen) == 1)
        client.writer.transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            await site.server.drain(10 * PATIENCE_S)


async def test_handshakes_that_hang_do_not_keep_a_server_up() -> None:
    async with running(Echo()) as site:
        with site.raw() as plain:
            async with site.client():
                pass
            async with asyncio.timeout(PATIENCE_S):
                await site.server.drain(10 * PATIENCE_S)
            async with asyncio.timeout(PATIENCE_S):
                with suppress(ConnectionError):
                    assert not await asyncio.get_running_loop().sock_recv(plain, 1)


async def test_stopping_twice_or_before_the_start_is_harmless() -> None:
    async with running(Echo()) as site:
        await site.server.drain(0)
        await site.server.drain(0)
    await _server(0).drain(0)


def _server(port: int) -> Server:
    ca = Ca("spike.ist")
    source = HeldSource(material(ca.svid(SERVER_ID), ca))
    return Server(Echo(), server_context(source), "", port, trust=source.still_trusts)


async def test_it_serves_every_address_until_it_is_told_to_stop() -> None:
    server, stop = _server(0), asyncio.Event()
    serving = asyncio.create_task(server.serve_until(stop, PATIENCE_S))
    await until(lambda: server.port != 0)
    for address in ("127.0.0.1", "::1") if socket.has_dualstack_ipv6() else ("127.0.0.1",):
        socket.create_connection((address, server.port)).close()
    stop.set()
    await serving
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", server.port)).close()


async def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingError, match=f"port {port}"):
            await _server(port).start()
