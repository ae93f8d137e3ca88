"""Callers that mean harm: Authority stays up, stays small and goes on serving the others."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpclib.client import Channel
from grpclib.const import Status as GrpcStatus
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.connection import H2Connection

from authority_kit import SUPERUSER, AuthorityProcess, begin, eventually, fetch, stub
from size import seed, size
from spike.authority.admission import Admission, Guests, Limit
from spike.authority.process import Uid
from spike.authority.workload import STREAM_LIMIT
from spike.client.control import Status, StatusRequest
from spike.spiffe.workload.workload_grpc import SpiffeWorkloadAPIStub
from spike.spiffe.workload.workload_pb2 import X509SVIDRequest

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS_OF_CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
    ("workload.spiffe.io", "true"),
]
DATA, HEADERS, RESET, SETTINGS, PING = 0, 1, 3, 4, 6


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    with AuthorityProcess(tmp_path) as started:
        yield started


@pytest.fixture
def peer(authority: AuthorityProcess) -> Iterator[socket.socket]:
    """A connection that speaks HTTP/2 by hand."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(authority.socket))
        connection.sendall(PREFACE + frame(SETTINGS, 0, 0, b""))
        yield connection


def frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def request_headers() -> bytes:
    """The header block of FetchX509SVID: HPACK literals without a table (RFC 7541, section 6.2.2)."""
    return b"".join(
        b"\x00" + bytes([len(k)]) + k.encode() + bytes([len(v)]) + v.encode()
        for k, v in HEADERS_OF_CALL
    )


def resident_kib(authority: AuthorityProcess) -> int:
    assert authority.process is not None
    text = Path(f"/proc/{authority.process.pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])


def send_until_refused(connection: socket.socket, piece: bytes, most_bytes: int) -> int:
    """Send the same bytes again and again; return how many went before the other side hung up."""
    sent = 0
    try:
        while sent < most_bytes:
            connection.sendall(piece)
            sent += len(piece)
    except OSError:
        pass
    return sent


async def still_serves(authority: AuthorityProcess) -> None:
    async with asyncio.timeout(5):
        assert (await fetch(authority.socket)).svids[0].spiffe_id == SUPERUSER
    assert "Traceback" not in authority.log()


def send_content(path: Path, total_bytes: int) -> None:
    """Send one endless message, as fast as the windows of HTTP/2 let it."""
    speaker = H2Connection()
    speaker.initiate_connection()
    speaker.send_headers(1, HEADERS_OF_CALL)
    speaker.send_data(1, b"\x00\xff\xff\xff\xff")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(path))
        sent = 0
        while sent < total_bytes:
            window = min(speaker.local_flow_control_window(1), speaker.max_outbound_frame_size)
            if window > 0:
                speaker.send_data(1, bytes(window))
                sent += window
            connection.sendall(speaker.data_to_send())
            if window <= 0:
                received = connection.recv(65_536)
                assert received, "it has hung up"
                speaker.receive_data(received)


async def test_a_message_of_gigabytes_is_dropped_as_it_comes(authority: AuthorityProcess) -> None:
    await still_serves(authority)
    before = resident_kib(authority)
    total = size(test=64, proof=4096) << 20
    await asyncio.to_thread(send_content, authority.socket, total)
    assert resident_kib(authority) - before < 16 * 1024
    await still_serves(authority)


async def test_empty_data_frames_which_no_window_counts_leave_nothing_behind(
    authority: AuthorityProcess, peer: socket.socket
) -> None:
    await still_serves(authority)
    before = resident_kib(authority)
    peer.sendall(frame(HEADERS, 4, 1, request_headers()))
    many = frame(DATA, 0, 1, b"") * 1000
    for _ in range(size(test=200, proof=5000)):
        await asyncio.to_thread(peer.sendall, many)
    await still_serves(authority)
    assert resident_kib(authority) - before < 8 * 1024


@pytest.mark.parametrize("piece", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, 0, 0, bytes(6))])
async def test_a_caller_that_makes_answers_and_reads_none_is_hung_up_on(
    authority: AuthorityProcess, peer: socket.socket, piece: bytes
) -> None:
    await still_serves(authority)
    before = resident_kib(authority)
    most = 64 << 20
    sent = await asyncio.to_thread(send_until_refused, peer, piece * 500, most)
    assert sent < most
    assert resident_kib(authority) - before < 16 * 1024
    await still_serves(authority)


async def test_streams_opened_and_reset_at_once_leave_nothing_behind(
    authority: AuthorityProcess, peer: socket.socket
) -> None:
    await still_serves(authority)
    headers = request_headers()
    pieces = [
        frame(HEADERS, 5, n, headers) + frame(RESET, 0, n, bytes(4))
        for n in range(1, 2 * size(test=2_000, proof=50_000), 2)
    ]
    await asyncio.to_thread(send_until_refused, peer, b"".join(pieces), 1)
    peer.close()

    def at_rest() -> bool:
        with authority.ask() as control:
            found = control.call(StatusRequest(), Status)
            return (found.connections, found.streams) == (0, 0)

    await asyncio.to_thread(eventually, "nothing is left of it", at_rest)
    await still_serves(authority)


async def test_random_bytes_end_a_connection_not_authority(authority: AuthorityProcess) -> None:
    chosen = seed()
    print("seed", chosen)
    dice = random.Random(chosen)
    whole = PREFACE + frame(SETTINGS, 0, 0, b"") + frame(HEADERS, 5, 1, request_headers())
    for _ in range(size(test=100, proof=10_000)):
        content = bytearray(whole)
        for _ in range(dice.randrange(1, 6)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        if not dice.randrange(4):
            content[:] = dice.randbytes(dice.randrange(300))
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(authority.socket))
            connection.sendall(content)
    await still_serves(authority)


async def test_one_users_streams_have_a_limit(authority: AuthorityProcess) -> None:
    channels = [Channel(path=str(authority.socket)) for _ in range(STREAM_LIMIT.of_user // 64 + 1)]
    streams = []
    statuses = []
    try:
        for number in range(STREAM_LIMIT.of_user + 3):
            calls = SpiffeWorkloadAPIStub(channels[number // 64])
            stream = await begin(calls.FetchX509SVID, X509SVIDRequest())
            try:
                await stream.recv_message()
                streams.append(stream)
            except GRPCError as error:
                statuses.append(error.status)
        assert len(streams) == STREAM_LIMIT.of_user
        assert statuses == [GrpcStatus.RESOURCE_EXHAUSTED] * 3
    finally:
        for channel in channels:
            channel.close()

    def ended() -> bool:
        with authority.ask() as control:
            return control.call(StatusRequest(), Status).streams == 0

    await asyncio.to_thread(eventually, "the streams end", ended)
    await still_serves(authority)


async def test_one_users_connections_have_a_limit_and_leave_with_it(
    authority: AuthorityProcess,
) -> None:
    held = []
    try:
        for _ in range(300):
            connection = socket.socket(socket.AF_UNIX)
            held.append(connection)
            await asyncio.to_thread(connection.connect, str(authority.socket))

        def full() -> bool:
            with authority.ask() as control:
                return control.call(StatusRequest(), Status).connections == 256

        await asyncio.to_thread(eventually, "the limit is reached", full)
        async with stub(authority.socket) as calls:

            async def one_more() -> None:
                stream = await begin(calls.FetchX509SVID, X509SVIDRequest())
                await stream.recv_message()

            # grpclib has no transport yet where the connection was closed before it was told of it.
            with pytest.raises((StreamTerminatedError, OSError, AttributeError)):
                await one_more()
    finally:
        for connection in held:
            connection.close()

    def empty() -> bool:
        with authority.ask() as control:
            return control.call(StatusRequest(), Status).connections == 0

    await asyncio.to_thread(eventually, "the connections are gone", empty)
    await still_serves(authority)


def test_one_user_cannot_take_anothers_place() -> None:
    admission = Admission(Limit(of_user=2, of_all=3))
    one, other = Uid(1), Uid(2)
    assert admission.enter(one)
    assert admission.enter(one)
    assert not admission.enter(one)
    assert admission.enter(other)
    assert not admission.enter(other)
    admission.leave(one)
    with admission.place(other) as entered:
        assert entered
        with admission.place(one) as refused:
            assert not refused
    assert admission.total == 2


class Visitor:
    def __init__(self, *, calls: bool = False) -> None:
        self._calls = calls

    def is_needed(self) -> bool:
        return self._calls


def test_users_who_fill_every_place_keep_no_other_user_out() -> None:
    guests: Guests[Visitor] = Guests(Limit(of_user=3, of_all=6))
    crowds = {Uid(number): [Visitor(calls=True), Visitor(), Visitor()] for number in (1, 2)}
    for uid, visitors in crowds.items():
        assert [guests.admit(uid, each) for each in visitors] == [None] * 3
    too_many = Visitor()
    assert guests.admit(Uid(1), too_many) is too_many
    first, second, third = (Visitor() for _ in range(3))
    # The newest one without a call leaves, of the user with the most.
    assert guests.admit(Uid(3), first) is crowds[Uid(1)][2]
    assert guests.admit(Uid(3), second) is crowds[Uid(2)][2]
    assert guests.admit(Uid(3), third) is third, "it would have more than anybody"
    assert len(guests) == 6
    guests.leave(Uid(3), first)
    guests.leave(Uid(3), first)
    assert len(guests) == 5


def test_a_call_is_broken_off_only_where_a_user_has_nothing_else() -> None:
    guests: Guests[Visitor] = Guests(Limit(of_user=2, of_all=2))
    old, new = Visitor(calls=True), Visitor(calls=True)
    assert guests.admit(Uid(1), old) is None
    assert guests.admit(Uid(1), new) is None
    assert guests.admit(Uid(2), Visitor()) is new
