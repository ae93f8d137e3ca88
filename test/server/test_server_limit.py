"""Every limit of the server, met by a peer that goes beyond it. Hours pass on a clock moved by hand."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import pytest

from server_kit import (
    PATIENCE_S,
    QUICK,
    Client,
    Echo,
    Gate,
    HandClock,
    Site,
    request,
    running,
    until,
)
from spike.error import BodyTooLargeError, InputError, SettingError
from spike.server import Limits, Request, Response
from spike.server.limit import is_overdue


async def _ends(plain: socket.socket) -> bool:
    """Wait until the server closes a raw connection; whatever it said before is dropped."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(PATIENCE_S):
        try:
            while await loop.sock_recv(plain, 4096):
                pass
        except ConnectionError:
            pass
    return True


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", id="half a hello"),
    ],
)
async def test_a_handshake_that_does_not_go_on_is_ended(said: bytes) -> None:
    async with running(Echo(), replace(QUICK, handshake_timeout_s=0.1)) as site:
        with site.raw() as plain:
            plain.send(said)
            assert await _ends(plain)
        assert await site.lives()


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x00" * 500])
async def test_what_is_no_tls_is_ended_at_once(said: bytes) -> None:
    async with running(Echo(), replace(QUICK, handshake_timeout_s=600)) as site:
        with site.raw() as plain:
            plain.send(said)
            assert await _ends(plain)
        assert await site.lives()


async def test_silent_handshakes_give_their_slots_to_those_who_wait() -> None:
    limits = replace(QUICK, max_handshakes=2, handshake_timeout_s=600, handshake_pressure_s=0.05)
    async with running(Echo(), limits) as site:
        with site.raw() as first, site.raw() as second:
            assert await site.lives()
            assert await _ends(first)
            assert await _ends(second)


async def test_silent_handshakes_may_take_their_time_while_nobody_waits() -> None:
    limits = replace(QUICK, max_handshakes=3, handshake_timeout_s=600, handshake_pressure_s=0)
    async with running(Echo(), limits) as site:
        with site.raw() as silent:
            for _ in range(3):
                assert await site.lives()
            with pytest.raises(BlockingIOError):
                silent.recv(1)


async def _drip(client: Client, clock: HandClock, data: bytes, seconds: int) -> int:
    """Send a byte a second and return how many seconds it took the server to object."""
    for second in range(seconds):
        client.writer.write(data[second : second + 1])
        clock.move(1)
        # Two sweeps of the server at least.
        await asyncio.sleep(QUICK.sweep_interval_s * 3)
        if client.reader.at_eof() or client.reader._buffer:  # type: ignore[attr-defined]
            return second
    raise AssertionError("the server never objected")


async def test_a_head_that_drips_is_answered_400_and_ended() -> None:
    clock = HandClock()
    async with running(Echo(), QUICK, clock) as site, site.client() as client:
        assert 8 <= await _drip(client, clock, request("/" + "x" * 100), 60) <= 12
        answer = await client.answer()
        assert (answer.status, answer.headers["Connection"]) == (400, "close")
        assert await client.is_closed()


async def test_empty_lines_do_not_put_the_time_of_a_head_off() -> None:
    clock = HandClock()
    async with running(Echo(), QUICK, clock) as site, site.client() as client:
        assert 8 <= await _drip(client, clock, b"\r\n" * 100, 60) <= 12
        assert (await client.answer()).status == 400


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 1000\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n300\r\n"]
)
async def test_a_body_that_drips_is_answered_400_and_ended(framing: bytes) -> None:
    clock, errors = HandClock(), []

    async def handle(request: Request) -> Response:
        try:
            await request.body(5000)
        except InputError as error:
            errors.append(error.message)
            raise
        return Response(200)

    async with running(handle, QUICK, clock) as site, site.client() as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
        assert 8 <= await _drip(client, clock, b"x" * 100, 60) <= 12
        answer = await client.answer()
        assert (answer.status, answer.headers["Connection"]) == (400, "close")
        assert await client.is_closed()
    assert errors == ["the body of a request came too slowly"]


def test_a_slow_line_is_served_and_a_standstill_is_not() -> None:
    limits = Limits(transfer_timeout_s=10, min_rate_bytes_s=1000)
    assert not is_overdue(limits, since=0, moved_bytes=0, now=10)
    assert is_overdue(limits, since=0, moved_bytes=0, now=10.1)
    assert not is_overdue(limits, since=0, moved_bytes=50_000, now=60)
    assert is_overdue(limits, since=0, moved_bytes=50_000, now=60.1)


async def test_a_reader_that_does_not_read_is_dropped_and_one_that_does_is_not() -> None:
    clock = HandClock()
    limits = replace(QUICK, idle_timeout_s=1e6, max_age_s=1e6, min_rate_bytes_s=1_000_000)

    async def handle(request: Request) -> Response:
        return Response(200, b"x" * 20_000_000)

    async with running(handle, limits, clock) as site:
        async with site.client() as client:
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(request("/"))
            for _ in range(30):
                clock.move(1)
                await asyncio.sleep(QUICK.sweep_interval_s * 3)
            await until(lambda: site.server.connections == 0)
        async with site.client() as client:
            assert len((await client.ask("/")).body) == 20_000_000


async def test_an_idle_connection_is_kept_for_its_time_and_then_closed() -> None:
    clock = HandClock()
    async with running(Echo(), QUICK, clock) as site, site.client() as client:
        for _ in range(3):
            clock.move(QUICK.idle_timeout_s - 1)
            await asyncio.sleep(QUICK.sweep_interval_s * 3)
            assert (await client.ask("/", b"x")).status == 200
        clock.move(QUICK.idle_timeout_s + 1)
        assert await client.is_closed()


async def test_a_connection_of_an_hour_ends_with_the_answer_in_progress() -> None:
    clock, gate = HandClock(), Gate()
    async with running(gate, QUICK, clock) as site, site.client() as client:
        await client.send(request("/"))
        await until(lambda: gate.entered == 1)
        clock.move(3601)
        await asyncio.sleep(QUICK.sweep_interval_s * 3)
        gate.open.set()
        assert (await client.answer()).headers["Connection"] == "close"
        assert await client.is_closed()


async def test_an_idle_connection_of_an_hour_is_closed() -> None:
    clock = HandClock()
    async with (
        running(Echo(), replace(QUICK, idle_timeout_s=1e6), clock) as site,
        site.client() as client,
    ):
        assert (await client.ask("/")).status == 200
        clock.move(3601)
        assert await client.is_closed()


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
LARGE_HEADS = {
    "a long field": b"POST / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
    "a long name": b"POST / HTTP/1.1\r\nHost: a\r\n" + b"x" * 20_000 + b": a\r\n\r\n",
    "a long target": b"POST /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "many fields": b"POST / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 3_000 + b"\r\n",
    "a field without an end": b"POST / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000,
    "a target without an end": b"POST /" + b"x" * 40_000,
    "empty lines without an end": b"\r\n" * 20_000,
    "a chunk extension without an end": CHUNKED + b"1;" + b"x" * 40_000,
    "a trailer without an end": CHUNKED + b"1\r\nx\r\n0\r\nT: " + b"x" * 40_000,
    "many trailers": CHUNKED + b"1\r\nx\r\n0\r\n" + b"T: v\r\n" * 5_000 + b"\r\n",
}


@pytest.mark.parametrize("name", LARGE_HEADS)
@pytest.mark.parametrize("piece_bytes", [1_000_000, 1_000])
async def test_a_head_over_its_limit_is_answered_400_and_ended(name: str, piece_bytes: int) -> None:
    data = LARGE_HEADS[name]
    async with running(Echo()) as site:
        async with site.client() as client:
            for start in range(0, len(data), piece_bytes):
                client.writer.write(data[start : start + piece_bytes])
                await asyncio.sleep(0)
            answer = await client.answer()
            assert (answer.status, answer.headers["Connection"]) == (400, "close")
            assert await client.is_closed()
        assert await site.lives()


async def test_a_head_just_under_its_limit_is_served() -> None:
    async with running(Echo()) as site, site.client() as client:
        assert (await client.ask("/", b"x", "X: " + "x" * 16_000)).status == 200


class _Limited:
    """A handler with a limit of 1,000 bytes that notes what it got."""

    def __init__(self) -> None:
        self.errors: list[BodyTooLargeError] = []

    async def __call__(self, request: Request) -> Response:
        try:
            return Response(200, await request.body(1000))
        except BodyTooLargeError as error:
            self.errors.append(error)
            raise


LARGE_BODIES = {
    "announced, not sent": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n",
    "announced as endless": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Content-Length: 9000000000000000000\r\n\r\n",
    "announced and sent": request("/", b"x" * 1001),
    "announced and much of it sent": request("/", b"x" * 300_000),
    "announced, to be waited for": b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
    b"Content-Length: 1001\r\n\r\n",
    "in chunks, whole": CHUNKED + b"3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
    "in chunks, without an end": CHUNKED + b"64\r\n" + b"\r\n64\r\n".join([b"x" * 100] * 11),
    "one huge chunk": CHUNKED + b"fffffffffff\r\n" + b"x" * 5_000,
}


@pytest.mark.parametrize("name", LARGE_BODIES)
async def test_a_body_over_its_limit_is_answered_400_and_ended(name: str) -> None:
    handler = _Limited()
    async with running(handler) as site, site.client() as client:
        await client.send(LARGE_BODIES[name])
        answer = await client.answer()
        assert (answer.status, answer.headers["Connection"]) == (400, "close")
        assert await client.is_closed()
    assert [each.message for each in handler.errors] == ["the body has more than 1000 bytes"]


@pytest.mark.parametrize(
    "data", [request("/", b"x" * 1000), CHUNKED + b"3e8\r\n" + b"x" * 1000 + b"\r\n0\r\n\r\n"]
)
async def test_a_body_of_exactly_its_limit_is_taken(data: bytes) -> None:
    async with running(_Limited()) as site, site.client() as client:
        await client.send(data)
        assert (await client.answer()).status == 200


async def test_a_peer_that_sends_a_huge_body_to_its_end_still_reads_the_refusal() -> None:
    async with running(_Limited()) as site, site.client() as client:
        body = b"x" * 10_000_000
        # Nothing is read until all is sent: closing at once would reset the connection meanwhile.
        await client.send(request("/", body))
        assert (await client.answer()).status == 400


async def test_a_body_nobody_asked_for_makes_its_sender_wait() -> None:
    gate = Gate()

    async def handle(request: Request) -> Response:
        await gate(request)
        return Response(200, str(len(await request.body(50_000_000))).encode())

    async with running(handle) as site, site.client() as client:
        sent = 0

        async def send_all() -> None:
            nonlocal sent
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n")
            for _ in range(50):
                await client.send(b"x" * 1_000_000)
                sent += 1

        sending = asyncio.create_task(send_all())
        await until(lambda: gate.entered == 1)
        before, still = -1, 0
        while still < 30:  # until the sender has stood still for a while
            still = still + 1 if sent == before else 0
            before = sent
            await asyncio.sleep(0.005)
        assert sent < 20  # what the kernel's and the client's own buffers hold
        gate.open.set()
        await sending
        assert (await client.answer()).body == b"50000000"


def _crowded() -> Limits:
    return replace(QUICK, max_connections=8, max_connections_per_identity=4)


async def _clients(site: Site, count: int, spiffe_id: str) -> list[Client]:
    context = site.context(spiffe_id)
    return [await site.connect(context) for _ in range(count)]


async def test_an_identity_over_its_limit_loses_its_connection_that_is_idle_longest() -> None:
    clock = HandClock()
    async with running(Echo(), _crowded(), clock) as site:
        clients = await _clients(site, 4, "spiffe://spike.ist/greedy")
        for client in (clients[0], clients[2], clients[3]):
            clock.move(1)
            await client.ask("/")
        (newest,) = await _clients(site, 1, "spiffe://spike.ist/greedy")
        assert await clients[1].is_closed()
        for client in (clients[0], clients[2], clients[3], newest):
            assert (await client.ask("/")).status == 200
        assert site.server.connections == 4


async def test_who_is_being_answered_is_never_sent_away_for_another() -> None:
    gate = Gate()
    async with running(gate, _crowded()) as site:
        clients = await _clients(site, 4, "spiffe://spike.ist/greedy")
        for client in clients:
            await client.send(request("/"))
        await until(lambda: gate.entered == 4)
        (newest,) = await _clients(site, 1, "spiffe://spike.ist/greedy")
        assert await newest.is_closed()
        gate.open.set()
        for client in clients:
            assert (await client.answer()).status == 200


async def test_when_all_places_are_taken_the_identity_with_most_gives_one_up() -> None:
    async with running(Echo(), _crowded()) as site:
        greedy = await _clients(site, 4, "spiffe://spike.ist/greedy")
        others = [
            (await _clients(site, 1, f"spiffe://spike.ist/other/{number}"))[0]
            for number in range(5)
        ]
        assert await greedy[0].is_closed()
        for client in (*greedy[1:], *others):
            assert (await client.ask("/")).status == 200
        assert site.server.connections == 8


async def test_a_peer_stuck_in_a_request_gives_way_when_its_identity_has_no_idle_ones() -> None:
    async with running(Echo(), _crowded()) as site:
        clients = await _clients(site, 4, "spiffe://spike.ist/greedy")
        for client in clients:
            await client.send(b"POST / HTTP/1.1\r\n")
        (newest,) = await _clients(site, 1, "spiffe://spike.ist/greedy")
        assert (await newest.ask("/")).status == 200
        assert site.server.connections == 4


def test_limits_that_let_one_identity_lock_out_others_are_refused() -> None:
    with pytest.raises(SettingError, match="lock out"):
        Limits(max_connections=10, max_connections_per_identity=6)
    with pytest.raises(SettingError):
        Limits(max_handshakes=0)
