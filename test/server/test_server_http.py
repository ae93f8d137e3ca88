"""HTTP/1.1 as the server speaks it, over real TLS connections."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from server_kit import WORKLOAD_ID, Echo, Gate, request, running, until
from spike.server import BINARY_HEADERS, Request, Response, header_block
from spike.spiffe.id import SpiffeId

CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_a_handler_sees_what_was_asked_and_by_whom() -> None:
    echo = Echo()
    async with running(echo) as site, site.client() as client:
        await client.send(
            b"POST /v1/a%2Fb/../c?action=get&x=%20 HTTP/1.1\r\nHost: a\r\n"
            b"X-Twice: first\r\nx-twice: second\r\nContent-Length: 2\r\n\r\nhi"
        )
        answer = await client.answer()
    (seen,) = echo.seen
    assert (seen.method, seen.path, seen.query) == ("POST", "/v1/a%2Fb/../c", b"action=get&x=%20")
    assert seen.header(b"x-twice") == b"first"
    assert seen.header(b"absent") is None
    assert seen.peer.id == SpiffeId.parse_untrusted(WORKLOAD_ID)
    assert answer.body == b"hi"


async def test_json_answers_carry_the_header_fields_of_the_contract_and_http_s_own() -> None:
    async with running(Echo()) as site, site.client() as client:
        headers = (await client.ask("/", b"{}")).headers
    assert headers.pop("Date").endswith(" GMT")
    assert headers == {
        "Content-Type": "application/json",
        "Cache-Control": "no-store, no-cache, must-revalidate, private",
        "Pragma": "no-cache",
        "Expires": "0",
        "Content-Length": "2",
    }


async def test_binary_answers_say_so() -> None:
    async def handle(_request: Request) -> Response:
        return Response(200, b"\x00\xff\r\n\r\n", BINARY_HEADERS)

    async with running(handle) as site, site.client() as client:
        answer = await client.ask("/")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.body == b"\x00\xff\r\n\r\n"


def test_no_header_value_can_start_another_line() -> None:
    for name, value in [("A", "b\r\nC: d"), ("A", "b\n"), ("A\r\n", "b"), ("A B", "c"), ("A", "é")]:
        with pytest.raises(ValueError, match="not a header field"):
            header_block((name, value))


async def test_one_connection_serves_many_requests_with_trail_ids_that_differ() -> None:
    echo = Echo()
    async with running(echo) as site, site.client() as client:
        for number in range(20):
            body = str(number).encode()
            assert (await client.ask("/", body)).body == body
    assert len({each.trail_id for each in echo.seen}) == 20


WELL_FORMED = {
    "chunked": (CHUNKED + b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n", b"abcde"),
    "chunked with trailers": (CHUNKED + b"2\r\nab\r\n0\r\nX-T: v\r\nHost: b\r\n\r\n", b"ab"),
    "chunk extensions": (CHUNKED + b"2;name=value\r\nab\r\n0;x\r\n\r\n", b"ab"),
    "an empty chunked body": (CHUNKED + b"0\r\n\r\n", b""),
    "coding in capitals": (CHUNKED.replace(b"chunked", b"Chunked") + b"1\r\na\r\n0\r\n\r\n", b"a"),
    "no length": (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    "an empty line first": (b"\r\n" + request("/", b"x"), b"x"),
    "another method": (b"GET /g HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    "a target that is no path": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b""),
    "a whole URL": (b"POST https://a/b HTTP/1.1\r\nHost: a\r\n\r\n", b""),
}


@pytest.mark.parametrize("name", WELL_FORMED)
@pytest.mark.parametrize("piecewise", [False, True], ids=["at once", "byte by byte"])
async def test_well_formed_requests_are_read_and_the_connection_kept(
    name: str, piecewise: bool
) -> None:
    data, body = WELL_FORMED[name]
    async with running(Echo()) as site, site.client() as client:
        for part in (data[i : i + 1] for i in range(len(data))) if piecewise else [data]:
            await client.send(part)
            await asyncio.sleep(0)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, body)
        assert "Connection" not in answer.headers
        assert (await client.ask("/", b"again")).body == b"again"


REFUSED = {
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "one length twice": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na",
    "a signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na",
    "a length beyond 64 bits": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
    "length and coding": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding and length": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Content-Length: 1\r\n\r\n0\r\n\r\n",
    "a coding before chunked": b"POST / HTTP/1.1\r\nHost: a\r\n"
    b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "two codings": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
    b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a coding in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"POST / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a folded field": b"POST / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
    "bare line feeds": b"POST / HTTP/1.1\nHost: a\n\n",
    "a bare carriage return": b"POST / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n",
    "a zero byte": b"POST / HTTP/1.1\r\nHost: a\r\nX: b\x00\r\n\r\n",
    "a byte above 127 in the target": b"POST /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "no Host": b"POST / HTTP/1.1\r\n\r\n",
    "two Hosts": b"POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/1.2": b"POST / HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/2.0": b"POST / HTTP/2.0\r\nHost: a\r\n\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown method": b"STEAL / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a TLS hello inside TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an upgrade with a body": b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n"
    b"Upgrade: h2c\r\nContent-Length: 28\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
    "garbage": b"\x00\x01\x02\x03 garbage\r\n\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_no_clear_request_is_answered_400_and_never_handled(name: str) -> None:
    echo = Echo()
    async with running(echo) as site:
        async with site.client() as client:
            await client.send(REFUSED[name])
            answer = await client.answer()
            assert (answer.status, answer.body) == (400, b'{"err":"api_bad_request"}')
            assert answer.headers["Connection"] == "close"
            assert await client.is_closed()
        assert not echo.seen
        assert await site.lives()


BROKEN_BODIES = {
    "no chunk size": b"zz\r\nab\r\n",
    "a chunk size beyond 64 bits": b"fffffffffffffffff\r\nab\r\n",
    "a negative chunk size": b"-1\r\nab\r\n",
    "a chunk longer than it says": b"2\r\nabc\r\n",
    "bare line feeds": b"2\nab\n0\n\n",
    "a trailer that is none": b"2\r\nab\r\n0\r\nno colon\r\n\r\n",
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
async def test_a_body_broken_on_the_way_is_400_and_the_end(name: str) -> None:
    async with running(Echo()) as site:
        async with site.client() as client:
            await client.send(CHUNKED)
            await client.send(BROKEN_BODIES[name])
            answer = await client.answer()
            assert (answer.status, answer.headers["Connection"]) == (400, "close")
            assert await client.is_closed()
        assert await site.lives()


async def test_the_peer_can_ask_for_the_end() -> None:
    async with running(Echo()) as site, site.client() as client:
        answer = await client.ask("/", b"x", "Connection: close")
        assert (answer.body, answer.headers["Connection"]) == (b"x", "close")
        assert await client.is_closed()


async def test_http_1_0_ends_after_one_request_unless_it_asks_otherwise() -> None:
    async with running(Echo()) as site:
        async with site.client() as client:
            await client.send(b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
            assert (await client.answer()).body == b"x"
            assert await client.is_closed()
        async with site.client() as client:
            for _ in range(2):
                await client.send(
                    b"POST / HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx"
                )
                assert (await client.answer()).body == b"x"


async def test_an_answer_to_head_has_no_body_and_the_next_one_is_in_its_place() -> None:
    async def handle(request: Request) -> Response:
        return Response(400, request.method.encode())

    async with running(handle) as site, site.client() as client:
        await client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer(bodiless=True)).headers["Content-Length"] == "4"
        assert (await client.ask("/")).body == b"POST"


async def test_an_upgrade_is_ignored_and_nothing_after_it_is_read() -> None:
    echo = Echo()
    async with running(echo) as site, site.client() as client:
        await client.send(
            b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            + request("/smuggled")
        )
        answer = await client.answer()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert await client.is_closed()
    assert [each.path for each in echo.seen] == ["/a"]


async def test_connect_is_a_method_like_any_other() -> None:
    echo = Echo()
    async with running(echo) as site, site.client() as client:
        await client.send(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.answer()).headers["Connection"] == "close"
        assert await client.is_closed()
    assert [each.method for each in echo.seen] == ["CONNECT"]


EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"


async def test_a_peer_that_waits_for_100_is_told_to_go_on() -> None:
    async with running(Echo()) as site, site.client() as client:
        for _ in range(2):
            await client.send(EXPECTING)
            assert (await client.answer()).status == 100
            await client.send(b"ab")
            assert (await client.answer()).body == b"ab"


async def test_100_is_not_said_to_a_peer_that_did_not_wait() -> None:
    async with running(Echo()) as site, site.client() as client:
        await client.send(EXPECTING + b"ab")
        assert (await client.answer()).status == 200


async def test_a_peer_that_waits_for_100_may_get_the_final_answer_instead() -> None:
    async def refuse(_request: Request) -> Response:
        return Response(401, b'{"err":"access_unauthorized"}')

    async with running(refuse) as site, site.client() as client:
        await client.send(EXPECTING)
        answer = await client.answer()
        # Whether the body still comes cannot be known: only closing keeps the framing.
        assert (answer.status, answer.headers["Connection"]) == (401, "close")
        assert await client.is_closed()


@pytest.mark.parametrize("in_one_write", [True, False])
async def test_a_second_request_before_the_answer_ends_the_connection_after_the_first(
    in_one_write: bool,
) -> None:
    gate = Gate()
    async with running(gate) as site, site.client() as client:
        await client.send(request("/first") + (request("/second") if in_one_write else b""))
        await until(lambda: gate.entered == 1)
        if not in_one_write:
            await client.send(request("/second"))
        async with site.client():
            pass  # a handshake takes the loop several rounds: what was sent has been read by now
        gate.open.set()
        first = await client.answer()
        assert (first.status, first.headers["Connection"]) == (200, "close")
        assert await client.is_closed()
    assert gate.entered == 1


async def test_an_answer_before_the_body_keeps_the_connection_if_little_is_missing() -> None:
    async def refuse(_request: Request) -> Response:
        return Response(401)

    async with running(refuse) as site, site.client() as client:
        for framing in (b"Content-Length: 6\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
            assert "Connection" not in (await client.answer()).headers
            rest = b"3\r\nabc\r\n0\r\n\r\n" if b"chunked" in framing else b"abcdef"
            await client.send(rest + request("/next"))
            assert (await client.answer()).status == 401


async def test_answers_of_any_size_arrive_whole() -> None:
    bodies = itertools.cycle([b"", b"x" * 65_000, b"y" * 70_000, b"z" * 5_000_000])

    async def handle(_request: Request) -> Response:
        return Response(200, next(bodies))

    async with running(handle) as site, site.client() as client:
        for size_bytes in (0, 65_000, 70_000, 5_000_000) * 2:
            assert len((await client.ask("/")).body) == size_bytes


async def test_a_fault_in_a_handler_is_500_and_its_values_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(request: Request) -> Response:
        raise RuntimeError("the secret is hunter2")

    async with running(handle) as site, site.client() as client:
        for _ in range(2):  # the connection is kept: it is no fault of the peer's
            answer = await client.ask("/")
            assert (answer.status, answer.body) == (500, b'{"err":"api_internal_error"}')
    assert "RuntimeError at " in caplog.text
    assert "hunter2" not in caplog.text


async def test_an_answer_that_cannot_be_sent_is_a_fault_of_ours() -> None:
    async def handle(_request: Request) -> Response:
        return Response(204)

    async with running(handle) as site, site.client() as client:
        assert (await client.ask("/")).status == 500


async def test_a_handler_can_end_the_connection() -> None:
    async def handle(_request: Request) -> Response:
        return Response(503, close=True)

    async with running(handle) as site, site.client() as client:
        assert (await client.ask("/")).headers["Connection"] == "close"
        assert await client.is_closed()
