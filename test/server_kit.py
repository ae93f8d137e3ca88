"""A running server with an authority of its own, and clients that can misbehave.

    async with running(handler) as site:
        async with site.client() as client:
            answer = await client.ask("/v1/x", b"{}")

The TLS, the sockets and the server are real. Only the clock may be a `HandClock`: then hours pass
when the test says so, and the server's sweep sees them a few milliseconds later.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

from spiffe_kit import Ca, Issued, foreign_context, material
from spike.server import Clock, Handler, Limits, Request, Response, Server
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context

SERVER_ID = "spiffe://spike.ist/spike/nexus"
WORKLOAD_ID = "spiffe://spike.ist/workload/web"
QUICK = Limits(sweep_interval_s=0.01, accept_rest_s=0.05, linger_s=1.0)
PATIENCE_S = 10.0


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self._moved = 0.0
        self._started = time.time()

    def monotonic(self) -> float:
        return 1000.0 + self._moved

    def time(self) -> float:
        return self._started + self._moved

    def move(self, seconds: float) -> None:
        self._moved += seconds


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; fail loudly if it never comes."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  what is waited for knows nothing of the test
            await asyncio.sleep(0.002)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One TLS connection that sends whatever bytes a test wants."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, bodiless: bool = False) -> Answer:
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("ascii")
            line, *fields = head.removesuffix("\r\n\r\n").split("\r\n")
            headers = dict(each.split(": ", 1) for each in fields)
            assert len(headers) == len(fields), "a header field came twice"
            length = 0 if bodiless else int(headers.get("Content-Length", "0"))
            return Answer(int(line.split(" ")[1]), headers, await self.reader.readexactly(length))

    async def ask(self, path: str, body: bytes = b"", *more: str) -> Answer:
        await self.send(request(path, body, *more))
        return await self.answer()

    async def is_closed(self) -> bool:
        """Wait for the end; tell whether nothing more came before it."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except (ConnectionError, ssl.SSLError):
                return True


def request(path: str, body: bytes = b"", *more: str) -> bytes:
    fields = ["Host: localhost", f"Content-Length: {len(body)}", *more]
    return f"POST {path} HTTP/1.1\r\n".encode() + "\r\n".join(fields).encode() + b"\r\n\r\n" + body


@dataclass
class Site:
    """A server, its authority, its identity's source."""

    server: Server
    ca: Ca
    source: HeldSource
    clients: list[Client] = field(default_factory=list)

    def context(self, spiffe_id: str = WORKLOAD_ID, issued: Issued | None = None) -> ssl.SSLContext:
        """What a peer with this identity would use; from a stranger's TLS code, not ours."""
        return foreign_context(issued or self.ca.svid(spiffe_id), self.ca)

    async def connect(self, context: ssl.SSLContext | None = None) -> Client:
        self.clients.append(await connect(self.server.port, context or self.context()))
        return self.clients[-1]

    @asynccontextmanager
    async def client(self, context: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
        client = await self.connect(context)
        try:
            yield client
        finally:
            await hang_up(client)

    @contextmanager
    def raw(self) -> Iterator[socket.socket]:
        """A TCP connection without TLS."""
        with socket.create_connection(("127.0.0.1", self.server.port)) as plain:
            plain.setblocking(False)
            yield plain

    async def lives(self) -> bool:
        """Tell whether a well-behaved client is served now."""
        async with self.client() as client:
            return (await client.ask("/alive", b"{}")).status == 200


async def connect(port: int, context: ssl.SSLContext) -> Client:
    """Connect to whoever listens on loopback."""
    async with asyncio.timeout(PATIENCE_S):
        return Client(*await asyncio.open_connection("127.0.0.1", port, ssl=context))


async def hang_up(client: Client) -> None:
    """Close at once."""
    client.writer.transport.abort()
    with suppress(ConnectionError, ssl.SSLError):
        await client.writer.wait_closed()


@asynccontextmanager
async def running(
    handler: Handler, limits: Limits = QUICK, clock: Clock = time
) -> AsyncIterator[Site]:
    ca = Ca("spike.ist")
    source = HeldSource(material(ca.svid(SERVER_ID), ca))
    server = Server(
        handler,
        server_context(source),
        "127.0.0.1",
        0,
        trust=source.still_trusts,
        limits=limits,
        clock=clock,
    )
    await server.start()
    site = Site(server, ca, source)
    try:
        yield site
    finally:
        for client in site.clients:
            await hang_up(client)
        await server.drain(PATIENCE_S)


class Echo:
    """A handler that answers with what it was sent and remembers the requests."""

    def __init__(self, limit_bytes: int = 1024 * 1024) -> None:
        self.limit_bytes = limit_bytes
        self.seen: list[Request] = []

    async def __call__(self, request: Request) -> Response:
        self.seen.append(request)
        return Response(200, await request.body(self.limit_bytes))


class Gate:
    """A handler that answers when the test opens the gate."""

    def __init__(self) -> None:
        self.entered = 0
        self.finished = 0
        self.open = asyncio.Event()

    async def __call__(self, _request: Request) -> Response:
        self.entered += 1
        await self.open.wait()
        self.finished += 1
        return Response(200, b'{"gate":"open"}')
