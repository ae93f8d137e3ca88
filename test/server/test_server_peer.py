"""Who may speak, asked again at each request: identities end, roots are lost, keys change."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from datetime import timedelta

import pytest

from server_kit import (
    QUICK,
    SERVER_ID,
    WORKLOAD_ID,
    Client,
    Echo,
    Gate,
    HandClock,
    Site,
    request,
    running,
    until,
)
from spiffe_kit import Ca, Issued, foreign_context, material

# With so slow a sweep, only what is asked at each request can find anything.
NO_SWEEP = replace(QUICK, sweep_interval_s=3600, idle_timeout_s=1e9, max_age_s=1e9)
NO_OTHER_END = replace(QUICK, idle_timeout_s=1e9, max_age_s=1e9)


def _outsiders(ca: Ca) -> dict[str, Issued | None]:
    return {
        "no certificate": None,
        "an authority nobody knows": Ca("spike.ist").svid(WORKLOAD_ID),
        "an expired SVID": ca.svid(WORKLOAD_ID, lifetime=timedelta(seconds=-1)),
        "a certificate that can sign": ca.svid(WORKLOAD_ID, ca=True, key_cert_sign=True),
        "two names": ca.svid("", uris=[WORKLOAD_ID, SERVER_ID]),
        "no name": ca.svid("", uris=[]),
        "a name of another trust domain": ca.svid("spiffe://other.example/web"),
    }


@pytest.mark.parametrize("name", _outsiders(Ca("spike.ist")))
async def test_an_outsider_never_reaches_the_handler(name: str) -> None:
    echo = Echo()
    async with running(echo) as site:
        context = foreign_context(_outsiders(site.ca)[name], site.ca)
        # In TLS 1.3 the client may think itself connected before the server has looked at it.
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            async with site.client(context) as client:
                await client.ask("/")
        await until(lambda: site.server.connections == 0)
        assert not echo.seen
        assert await site.lives()


async def test_an_older_tls_is_refused() -> None:
    async with running(Echo()) as site:
        context = site.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await site.connect(context)


async def test_no_ticket_lets_a_session_be_resumed() -> None:
    async with running(Echo()) as site, site.client() as client:
        await client.ask("/")
        tls: ssl.SSLObject = client.writer.get_extra_info("ssl_object")
        assert tls.session is None or not tls.session.has_ticket


async def test_a_request_under_an_expired_svid_is_not_handled_and_the_connection_ends() -> None:
    echo, clock = Echo(), HandClock()
    async with running(echo, NO_SWEEP, clock) as site, site.client() as client:
        assert (await client.ask("/before")).status == 200
        clock.move(3601)
        await client.send(request("/after"))
        assert await client.is_closed()
    assert [each.path for each in echo.seen] == ["/before"]


async def test_an_idle_connection_ends_when_its_svid_expires() -> None:
    clock = HandClock()
    async with running(Echo(), NO_OTHER_END, clock) as site, site.client() as client:
        assert (await client.ask("/")).status == 200
        clock.move(3601)
        assert await client.is_closed()


async def test_a_request_begun_under_a_good_svid_is_answered() -> None:
    gate, clock = Gate(), HandClock()
    async with running(gate, NO_OTHER_END, clock) as site, site.client() as client:
        await client.send(request("/"))
        await until(lambda: gate.entered == 1)
        clock.move(3601)
        gate.open.set()
        assert (await client.answer()).status == 200
        assert await client.is_closed()


def _lose_root(site: Site) -> None:
    other = Ca("spike.ist")
    site.source.replace(material(other.svid(SERVER_ID), other))


async def test_a_root_that_leaves_the_bundle_ends_idle_connections() -> None:
    async with running(Echo()) as site, site.client() as client:
        assert (await client.ask("/")).status == 200
        _lose_root(site)
        assert await client.is_closed()


async def test_a_root_that_leaves_the_bundle_lets_the_answer_in_progress_end() -> None:
    gate = Gate()
    async with running(gate) as site, site.client() as client:
        await client.send(request("/"))
        await until(lambda: gate.entered == 1)
        _lose_root(site)
        gate.open.set()
        assert (await client.answer()).status == 200
        assert await client.is_closed()


async def test_a_request_under_a_lost_root_is_not_handled() -> None:
    echo = Echo()
    async with running(echo, NO_SWEEP) as site, site.client() as client:
        assert (await client.ask("/before")).status == 200
        _lose_root(site)
        await client.send(request("/after"))
        assert await client.is_closed()
    assert [each.path for each in echo.seen] == ["/before"]


async def test_identities_change_under_load_without_a_failed_request() -> None:
    async with running(Echo()) as site:
        context, stop = site.context(), asyncio.Event()
        kept, fresh = [0], [0]

        async def keep(client: Client) -> None:
            while not stop.is_set():
                assert (await client.ask("/", b"x")).body == b"x"
                kept[0] += 1

        async def come_and_go() -> None:
            while not stop.is_set():
                async with site.client(context) as client:
                    assert (await client.ask("/", b"x")).body == b"x"
                fresh[0] += 1

        clients = [await site.connect(context) for _ in range(4)]
        load = [*map(asyncio.create_task, map(keep, clients)), asyncio.create_task(come_and_go())]
        served = set()
        for swap in range(30):
            site.source.replace(material(site.ca.svid(SERVER_ID), site.ca))
            before = fresh[0]
            await until(lambda floor=before: fresh[0] > floor + 1)  # type: ignore[misc]
            async with site.client(context) as probe:
                tls: ssl.SSLObject = probe.writer.get_extra_info("ssl_object")
                served.add(tls.getpeercert(binary_form=True))
            assert len(served) == swap + 1, "a new connection was made with an old SVID"
        stop.set()
        await asyncio.gather(*load)
        assert kept[0] > 100
