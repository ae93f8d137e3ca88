"""Kept connections: kept, dropped, repeated or not, against servers that behave and servers that do not."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from spiffe_kit import Ca, material
from spike.client.pool import Pool, Reply
from spike.client.setting import Address
from spike.error import AnswerError, DeniedError, IdentityError, UnreachableError
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context

NEXUS = "spiffe://spike.ist/spike/nexus"
PATIENCE_S = 30.0
GOOD = b'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{"a"'
CLOSE = b""  # read the request, then close without an answer
HANG = None  # read the request, then nothing

Act = bytes | None


class RudeServer:
    """A TLS server that does what the test says: for each connection one act for each request."""

    def __init__(self, source: HeldSource, *connections: list[Act]) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.idle = threading.Event()  # set when the first connection has done all its acts
        self._plan = list(connections)
        self._context = server_context(source)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self._socket.getsockname()[1])

    def close(self) -> None:
        self._stop.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(PATIENCE_S)

    def _serve(self) -> None:
        for acts in self._plan:
            try:
                plain, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            with (
                suppress(ssl.SSLError, OSError),
                plain,
                self._context.wrap_socket(plain, server_side=True) as wire,
            ):
                self._answer(wire, acts)
            self.idle.set()

    def _answer(self, wire: ssl.SSLSocket, acts: list[Act]) -> None:
        for act in acts:
            request = b""
            while b"\r\n\r\n" not in request or not request.endswith(b"}"):
                part = wire.recv(65536)
                if not part:
                    return
                request += part
            self.requests.append(request)
            if act is HANG:
                self._stop.wait(PATIENCE_S)
            elif act:
                wire.sendall(act)


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca("spike.ist")


@contextmanager
def rude(ca: Ca, *connections: list[Act], spiffe_id: str = NEXUS) -> Iterator[RudeServer]:
    server = RudeServer(HeldSource(material(ca.svid(spiffe_id), ca)), *connections)
    try:
        yield server
    finally:
        server.close()


@contextmanager
def pool_of(address: Address, ca: Ca, source: HeldSource | None = None) -> Iterator[Pool]:
    own = source or HeldSource(material(ca.svid("spiffe://spike.ist/workload/web"), ca))
    with Pool(address, own, lambda spiffe_id: str(spiffe_id) == NEXUS) as pool:
        yield pool


def read(pool: Pool, timeout_s: float = PATIENCE_S) -> Reply:
    return pool.exchange("/v1/x?action=get", b"{}", repeatable=True, timeout_s=timeout_s)


def write(pool: Pool) -> Reply:
    return pool.exchange("/v1/x", b"{}", repeatable=False, timeout_s=PATIENCE_S)


def test_a_connection_is_kept_for_the_next_request(ca: Ca) -> None:
    with rude(ca, [GOOD] * 3) as server, pool_of(server.address, ca) as pool:
        assert [read(pool), write(pool), read(pool)] == [Reply(200, b'{"a"')] * 3
        assert server.connections == 1


def test_a_read_is_repeated_once_when_a_kept_connection_ends_unanswered(ca: Ca) -> None:
    with rude(ca, [GOOD, CLOSE], [GOOD]) as server, pool_of(server.address, ca) as pool:
        read(pool)
        assert read(pool).status == 200
        assert len(server.requests) == 3


def test_a_read_is_not_repeated_twice(ca: Ca) -> None:
    with (
        rude(ca, [GOOD, CLOSE], [CLOSE], [GOOD]) as server,
        pool_of(server.address, ca) as pool,
    ):
        read(pool)
        with pytest.raises(UnreachableError, match="closed the connection without an answer"):
            read(pool)
        assert len(server.requests) == 3


def test_a_write_is_never_repeated(ca: Ca) -> None:
    with rude(ca, [GOOD, CLOSE], [GOOD]) as server, pool_of(server.address, ca) as pool:
        read(pool)
        with pytest.raises(UnreachableError):
            write(pool)
        assert len(server.requests) == 2


def test_a_read_on_a_new_connection_is_not_repeated(ca: Ca) -> None:
    with rude(ca, [CLOSE], [GOOD]) as server, pool_of(server.address, ca) as pool:
        with pytest.raises(UnreachableError):
            read(pool)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}",
    ],
)
def test_an_answer_that_breaks_off_is_an_error_and_not_repeated(ca: Ca, part: bytes) -> None:
    with rude(ca, [GOOD, part], [GOOD]) as server, pool_of(server.address, ca) as pool:
        read(pool)
        with pytest.raises((UnreachableError, AnswerError)):
            read(pool)
        assert len(server.requests) == 2


def test_a_connection_the_server_closed_meanwhile_is_noticed_before_a_write_goes_into_it(
    ca: Ca,
) -> None:
    with rude(ca, [GOOD], [GOOD]) as server, pool_of(server.address, ca) as pool:
        read(pool)
        assert server.idle.wait(PATIENCE_S)
        assert write(pool).status == 200
        assert server.connections == 2


def test_an_answer_that_says_close_ends_its_connection(ca: Ca) -> None:
    last = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}"
    with rude(ca, [last], [GOOD]) as server, pool_of(server.address, ca) as pool:
        read(pool)
        assert write(pool).status == 200
        assert server.connections == 2


def test_a_server_that_does_not_answer_is_given_up(ca: Ca) -> None:
    with rude(ca, [HANG]) as server, pool_of(server.address, ca) as pool:
        begin = time.monotonic()
        with pytest.raises(UnreachableError, match="did not answer in time"):
            read(pool, timeout_s=0.2)
        assert time.monotonic() - begin < PATIENCE_S / 2


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 two hundred\r\n\r\n", b"HTTP/1.1 200 OK\r\n" * 200]
)
def test_an_answer_that_is_not_http_is_an_error_of_ours(ca: Ca, answer: bytes) -> None:
    with (
        rude(ca, [answer]) as server,
        pool_of(server.address, ca) as pool,
        pytest.raises((AnswerError, UnreachableError)),
    ):
        read(pool)


@pytest.mark.parametrize("length", [(64 << 20) + 1, 10**18])
def test_an_answer_too_large_is_refused_before_it_is_read(ca: Ca, length: int) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n{}" % length
    with (
        rude(ca, [head]) as server,
        pool_of(server.address, ca) as pool,
        pytest.raises(AnswerError, match="more than 64 MiB"),
    ):
        read(pool)


@pytest.mark.parametrize(
    "spiffe_id", ["spiffe://spike.ist/spike/keeper", "spiffe://spike.ist/spike/nexusx"]
)
def test_a_server_without_the_nexus_role_gets_no_request(ca: Ca, spiffe_id: str) -> None:
    with (
        rude(ca, [GOOD], spiffe_id=spiffe_id) as server,
        pool_of(server.address, ca) as pool,
    ):
        with pytest.raises(IdentityError, match="not a Nexus to trust"):
            read(pool)
        assert server.requests == []


def test_a_server_of_an_unknown_trust_domain_gets_no_request(ca: Ca) -> None:
    with rude(Ca("spike.ist"), [GOOD]) as server, pool_of(server.address, ca) as pool:
        with pytest.raises(IdentityError, match="no identity that is trusted here"):
            read(pool)
        assert server.requests == []


def test_a_client_that_the_server_does_not_trust_is_told_so(ca: Ca) -> None:
    stranger = Ca("other.example")
    # It trusts the server's trust domain; the server does not trust its.
    own = HeldSource(material(stranger.svid("spiffe://other.example/web"), stranger, ca))
    with rude(ca, [GOOD]) as server, pool_of(server.address, ca, own) as pool:
        with pytest.raises(DeniedError, match="does not accept this identity"):
            read(pool)
        assert server.requests == []


def test_a_kept_connection_is_dropped_when_its_authority_is_no_longer_trusted(ca: Ca) -> None:
    own = HeldSource(material(ca.svid("spiffe://spike.ist/workload/web"), ca))
    with rude(ca, [GOOD, GOOD], [GOOD]) as server, pool_of(server.address, ca, own) as pool:
        read(pool)
        other = Ca("spike.ist")
        own.replace(material(other.svid("spiffe://spike.ist/workload/web"), other))
        with pytest.raises(IdentityError):
            read(pool)
        assert len(server.requests) == 1


def test_a_port_where_nobody_listens_is_said_at_once(ca: Ca) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        pool_of(Address("127.0.0.1", port), ca) as pool,
        pytest.raises(
            UnreachableError, match=f"nobody listens at https://127.0.0.1:{port}"
        ) as said,
    ):
        read(pool)
    assert "SPIKE_NEXUS_API_URL" in said.value.next_step


def test_a_server_that_speaks_no_tls_is_named(ca: Ca) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def greet() -> None:
            accepted, _ = plain.accept()
            with accepted:
                accepted.recv(4096)
                accepted.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        with (
            pool_of(Address("127.0.0.1", plain.getsockname()[1]), ca) as pool,
            pytest.raises((AnswerError, UnreachableError, DeniedError)),
        ):
            read(pool)
        thread.join(PATIENCE_S)


def test_a_closed_pool_keeps_nothing(ca: Ca) -> None:
    with rude(ca, [GOOD, GOOD], [GOOD]) as server, pool_of(server.address, ca) as pool:
        read(pool)
        pool.close()
        assert server.idle.wait(PATIENCE_S)
        read(pool)
        assert server.connections == 2
