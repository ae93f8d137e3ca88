"""The client of a Keeper against servers with a Keeper's identity that lie, drip, flood and fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import uvloop

from keeper_kit import DEADLINE_S, KEEPER, NEXUS
from spiffe_kit import Ca, material
from spike.client.exchange import ReplyFraming
from spike.client.keeper import KeeperClient
from spike.client.setting import Address
from spike.error import (
    AnswerError,
    DeniedError,
    FormatError,
    NotFoundError,
    SpikeError,
    UnreachableError,
)
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context
from spike.wire import keeper as wire
from spike.wire.keeper import KeeperStatusRequest

STORE, LINEAGE, SET, TAG = "a" * 32, "b" * 32, "c" * 32, "d" * 64
STATUS = KeeperStatusRequest(bytes(32))
EMPTY_STATUS = b'{"committed":null,"staged":null,"anchor":null,"version":"1"}'
SOON_S = 0.4
"""The deadline in tests in which it has to pass."""

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def hostile(
    play: Play, *, tls: bool = True, deadline_s: float = DEADLINE_S
) -> AsyncIterator[KeeperClient]:
    """Let a server with a Keeper's identity do as it likes; yield a client of it."""
    ca = Ca("spike.ist")
    ended: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        ended.append(task)
        with contextlib.suppress(OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            await play(reader, writer)
        writer.transport.abort()

    context = server_context(HeldSource(material(ca.svid(KEEPER), ca))) if tls else None
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    own = HeldSource(material(ca.svid(NEXUS), ca))
    try:
        yield KeeperClient(
            Address("127.0.0.1", port), own, lambda peer: str(peer) == KEEPER, deadline_s
        )
    finally:
        server.close()
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)


async def asked(reader: asyncio.StreamReader) -> None:
    """Read the whole request."""
    head = await reader.readuntil(b"\r\n\r\n")
    (length,) = (line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
    await reader.readexactly(int(length.split(b":")[1]))


def saying(*parts: bytes, pause_s: float = 0.0, stay: bool = False) -> Play:
    """Answer with these bytes, a pause after each, and then hang up or stay."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
        if stay:
            await asyncio.sleep(60)

    return play


def answer(body: bytes, status: int = 200, *more: str) -> bytes:
    fields = "".join(f"{each}\r\n" for each in more)
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body


async def failure_of(client: KeeperClient) -> SpikeError:
    """Return what a call fails with."""
    with pytest.raises(SpikeError) as caught:
        await client.ask(wire.STATUS, STATUS)
    return caught.value


async def test_a_good_answer_is_taken_however_it_is_cut() -> None:
    whole = answer(EMPTY_STATUS)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"%x\r\n%b\r\n0\r\n\r\n" % (len(EMPTY_STATUS), EMPTY_STATUS)
    for parts in ((whole,), (whole[:10], whole[10:60], whole[60:]), (chunked,)):
        async with hostile(saying(*parts, stay=True)) as client:
            assert (await client.ask(wire.STATUS, STATUS)).version == "1"


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for octet in answer(EMPTY_STATUS):
        writer.write(bytes((octet,)))
        await asyncio.sleep(0.05)


async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asked(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1 << 14):  # 1 GiB
        writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        await writer.drain()


async def floods_its_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asked(reader)
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"y" * 1000 + b"\r\n")
        await writer.drain()


async def floods_one_field(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asked(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"y" * 1000)
        await writer.drain()


SILENCES = [
    pytest.param(never, id="never answers"),
    pytest.param(drips, id="drips"),
    pytest.param(saying(answer(EMPTY_STATUS)[:-5], stay=True), id="stops half-way"),
]
MISDEEDS = [
    pytest.param(floods, AnswerError, id="sends 1 GiB"),
    pytest.param(floods_its_head, AnswerError, id="sends fields without end"),
    pytest.param(floods_one_field, AnswerError, id="sends one field without end"),
    pytest.param(saying(), UnreachableError, id="hangs up unanswered"),
    pytest.param(saying(answer(EMPTY_STATUS)[:-5]), UnreachableError, id="hangs up half-way"),
    pytest.param(saying(b"HTTP/1.1 200 OK\r\n"), UnreachableError, id="hangs up in the head"),
    pytest.param(
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n" + EMPTY_STATUS),
        AnswerError,
        id="says too short a length",
    ),
    pytest.param(
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n", stay=True),
        AnswerError,
        id="announces 1 GiB",
    ),
    pytest.param(
        saying(b"HTTP/1.1 200 OK\r\nContent-Length: 1" + b"0" * 40 + b"\r\n\r\n", stay=True),
        AnswerError,
        id="announces more than a number can hold",
    ),
    pytest.param(
        saying(b"HTTP/1.1 200 OK\r\n\r\n" + EMPTY_STATUS), UnreachableError, id="has no length"
    ),
    pytest.param(saying(b"\0\1\2 what is this"), AnswerError, id="speaks no HTTP"),
    pytest.param(
        saying(b"HTTP/1.1 101 X\r\nUpgrade: y\r\nConnection: upgrade\r\n\r\n"),
        AnswerError,
        id="wants another protocol",
    ),
    pytest.param(saying(answer(b"{")), AnswerError, id="sends no JSON"),
    pytest.param(saying(answer(b"{}")), AnswerError, id="sends another message"),
    pytest.param(saying(answer(b"")), AnswerError, id="sends nothing"),
    pytest.param(saying(answer(EMPTY_STATUS, 204)), AnswerError, id="sends another status"),
    pytest.param(saying(answer(b"x", 302, "Location: /")), AnswerError, id="sends elsewhere"),
    pytest.param(saying(answer(b"{}", 400)), AnswerError, id="refuses without a reason"),
    pytest.param(
        saying(answer(b'{"err":"refused_nonsense","message":"m","held":null}', 400)),
        AnswerError,
        id="refuses for a reason nobody knows",
    ),
    pytest.param(
        saying(answer(b'{"err":"refused_old","message":"m","held":{}}', 400)),
        AnswerError,
        id="refuses with what cannot be held",
    ),
    pytest.param(saying(answer(b"{}", 401)), DeniedError, id="denies"),
    pytest.param(saying(answer(b"{}", 404)), NotFoundError, id="has nothing"),
    pytest.param(saying(answer(b"{}", 500)), AnswerError, id="is faulty"),
    pytest.param(saying(answer(b"{}", 503)), UnreachableError, id="is not ready"),
]


@pytest.mark.parametrize("play", SILENCES)
async def test_a_server_that_does_not_come_to_an_end_is_unreachable_in_time(play: Play) -> None:
    async with hostile(play, deadline_s=SOON_S) as client:
        started = time.monotonic()
        assert type(await failure_of(client)) is UnreachableError
        assert SOON_S <= time.monotonic() - started < DEADLINE_S


@pytest.mark.parametrize(("play", "kind"), MISDEEDS)
async def test_whatever_else_a_server_does_the_error_is_the_right_one(
    play: Play, kind: type[SpikeError]
) -> None:
    async with hostile(play) as client:
        error = await failure_of(client)
    assert type(error) is kind
    assert "127.0.0.1" in error.message


@pytest.mark.parametrize(("play", "kind"), MISDEEDS)
def test_on_the_loop_of_nexus_it_is_the_same(play: Play, kind: type[SpikeError]) -> None:
    async def fail() -> None:
        async with hostile(play) as client:
            assert type(await failure_of(client)) is kind

    uvloop.run(fail())


async def blurts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(answer(EMPTY_STATUS))
    await writer.drain()
    await asyncio.sleep(60)


async def test_a_server_without_tls_is_no_keeper() -> None:
    async with hostile(blurts, tls=False) as client:
        assert type(await failure_of(client)) is AnswerError
    async with hostile(never, tls=False, deadline_s=SOON_S) as client:
        assert type(await failure_of(client)) is UnreachableError


HELD = {
    "storeId": STORE,
    "lineage": LINEAGE,
    "setId": SET,
    "generation": 1,
    "index": 1,
    "threshold": 2,
    "epoch": 3,
    "proof": "0" * 64,
}


@pytest.mark.parametrize(
    "changes",
    [
        {"storeId": ""},
        {"setId": "C" * 32},
        {"generation": 0},
        {"generation": "1"},
        {"index": 0},
        {"index": 256},
        {"threshold": 256},
        {"epoch": -1},
        {"epoch": 1 << 63},
        {"epoch": 1.5},
        {"proof": "0" * 63},
        {"proof": None},
    ],
)
async def test_what_a_keeper_cannot_hold_is_not_believed(changes: dict[str, object]) -> None:
    said = {"committed": HELD | changes, "staged": None, "anchor": None, "version": "1"}
    async with hostile(saying(answer(json.dumps(said).encode()))) as client:
        assert isinstance(await failure_of(client), AnswerError)


@pytest.mark.parametrize("shard", [None, [], [1] * 31, [1] * 33, [256] * 32, "AA=="])
async def test_what_is_no_share_is_not_taken(shard: object) -> None:
    said = {name: value for name, value in HELD.items() if name != "proof"}
    said |= {"place": "committed", "shard": shard, "tag": TAG}
    async with hostile(saying(answer(json.dumps(said).encode()))) as client:
        with pytest.raises(AnswerError):
            await client.ask(wire.GET, wire.SetRequest(SET))


async def test_a_cancelled_call_leaves_no_connection_behind() -> None:
    came, closed = asyncio.Event(), asyncio.Event()

    async def waits(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asked(reader)
        came.set()
        with contextlib.suppress(OSError):
            await reader.read()
        closed.set()

    async with asyncio.timeout(10), hostile(waits) as client:
        call = asyncio.create_task(client.ask(wire.STATUS, STATUS))
        await came.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await closed.wait()


def test_an_answer_is_read_from_any_pieces_and_what_follows_it_is_let_be() -> None:
    whole = answer(b"abc") + b"garbage"
    for cut in range(len(whole)):
        framing = ReplyFraming(10)
        framing.feed_untrusted(whole[:cut])
        framing.feed_untrusted(whole[cut:])
        assert framing.reply is not None
        assert (framing.reply.status, framing.reply.body) == (200, b"abc")


def test_a_body_of_the_limit_is_taken_and_one_byte_more_is_not() -> None:
    framing = ReplyFraming(10)
    framing.feed_untrusted(answer(b"x" * 10))
    assert framing.reply is not None
    with pytest.raises(FormatError):
        ReplyFraming(10).feed_untrusted(answer(b"x" * 11))
