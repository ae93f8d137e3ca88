"""The reading of requests alone: pure, so that millions of inputs can be tried."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from size import record, seed, size
from spike.server.framing import FramingError, Head, RequestFraming


class Found:
    """A sink that writes down what it is told, and checks the order."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.bodies: list[bytes] = []
        self.whole = 0
        self.held_bytes = 0

    def request_began(self) -> None:
        assert len(self.heads) == self.whole

    def head_came(self, head: Head) -> None:
        assert len(self.heads) == self.whole
        self.heads.append(head)
        self.bodies.append(b"")

    def body_came(self, part: bytes) -> None:
        assert len(self.heads) == self.whole + 1
        assert part
        self.bodies[-1] += part

    def request_ended(self) -> None:
        self.whole += 1
        assert len(self.heads) == self.whole


def _read(pieces: list[bytes]) -> Found:
    found = Found()
    framing = RequestFraming(found, 16 * 1024)
    for piece in pieces:
        framing.feed_untrusted(piece)
    return found


def _cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def _encoded(path: str, body: bytes, chunk_sizes: list[int] | None) -> bytes:
    head = f"POST /{path} HTTP/1.1\r\nHost: a\r\n".encode()
    if chunk_sizes is None:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunks, start = b"", 0
    for each in (*chunk_sizes, len(body)):
        part = body[start : start + each]
        start += len(part)
        if part:
            chunks += b"%x\r\n%b\r\n" % (len(part), part)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


@given(
    st.lists(
        st.tuples(
            st.text("abc/._-?=&%20", max_size=40),
            st.binary(max_size=300),
            st.none() | st.lists(st.integers(1, 50), max_size=6),
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.integers(0, 2000), max_size=12),
)
def test_requests_are_read_the_same_however_they_are_cut(
    requests: list[tuple[str, bytes, list[int] | None]], places: list[int]
) -> None:
    data = b"".join(_encoded(*each) for each in requests)
    found = _read(_cut(data, places))
    assert found.whole == len(requests)
    assert found.bodies == [body for _, body, _ in requests]
    for head, (path, body, chunk_sizes) in zip(found.heads, requests, strict=True):
        wanted, _, query = f"/{path}".partition("?")
        assert (head.path, head.query) == (wanted, query.encode())
        assert head.length == (len(body) if chunk_sizes is None else None)
        assert head.keep_alive


SEEDS = (
    _encoded("a?b=c", b"body", None),
    _encoded("a", b"some body", [4]),
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\na\r\n0\r\nT: v\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
)
TOKENS = (
    b"\r\n", b"\n", b"\r", b"\x00", b" ", b":", b"Content-Length: 5\r\n", b"HTTP/1.1", b"HTTP/2.0",
    b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"-1", b"ffffffffffffffff", b"\xff", b"0\r\n\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n", b"POST / HTTP/1.1\r\n", b"Connection: close\r\n",
)  # fmt: skip


def _mutated(chance: random.Random) -> bytes:
    data = bytearray(b"".join(chance.choices(SEEDS, k=chance.randint(1, 2))))
    for _ in range(chance.randint(1, 4)):
        place = chance.randint(0, len(data))
        match chance.randrange(4):
            case 0:
                data[place:place] = chance.choice(TOKENS)
            case 1:
                del data[place : place + chance.randint(1, 8)]
            case 2:
                data[place:place] = chance.randbytes(chance.randint(1, 4))
            case _:
                data[place : place + 1] = bytes([chance.randrange(256)])
    return bytes(data)


def test_whatever_comes_is_requests_or_one_error_however_it_is_cut() -> None:
    count, played = size(test=20_000, proof=1_000_000), seed()
    print("seed", played)
    chance = random.Random(played)
    refused = 0
    for _ in range(count):
        data = _mutated(chance)
        outcomes = []
        for pieces in ([data], _cut(data, [chance.randrange(500) for _ in range(3)])):
            found = Found()
            framing = RequestFraming(found, 16 * 1024)
            try:
                for piece in pieces:
                    framing.feed_untrusted(piece)
            except FramingError:
                refused += 1
            for head in found.heads:
                # What the whole server relies on.
                assert (
                    head.headers.get(b"transfer-encoding", b"chunked").strip().lower() == b"chunked"
                )
                assert not (
                    b"transfer-encoding" in head.headers and b"content-length" in head.headers
                )
            outcomes.append((found.heads, found.whole, found.bodies[: found.whole]))
        assert outcomes[0] == outcomes[1], data
    assert count // 10 < refused < 2 * count
    record(
        "mutated HTTP requests", count, f"{refused} readings refused, no other error", seed=played
    )


def test_after_an_error_nothing_more_is_read() -> None:
    found = Found()
    framing = RequestFraming(found, 16 * 1024)
    with pytest.raises(FramingError):
        framing.feed_untrusted(b"\x00")
    framing.feed_untrusted(SEEDS[0])
    assert not found.heads
