"""Real handshakes: who is let in, who is not, and what happens while identities change.

Each outsider uses a plain stdlib context with its own certificate, so that nothing of ours checks on
its side. "Refused" always means: not one byte of the application reached the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import uvloop
from cryptography.hazmat.primitives.serialization import Encoding

from size import record, size
from spiffe_kit import Ca, Issued, foreign_context, material, utc_now
from spike.error import PeerRefusedError, SvidError
from spike.spiffe.credential import load_credential, trusted_der
from spike.spiffe.id import SpiffeId, TrustDomain
from spike.spiffe.peer import Accept, Peer, any_peer, check_peer
from spike.spiffe.source import HeldSource
from spike.spiffe.svid import TrustBundle
from spike.spiffe.tls import client_context, peer_of, server_context

SERVER = "spiffe://example.org/server"
CLIENT = "spiffe://example.org/client"
GREETING = b"hello\n"
WAIT_S = 10

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.SelectorEventLoop,
    "uvloop": uvloop.new_event_loop,
}


@dataclass
class Server:
    """A TLS server in a thread: greets, then sends back what it gets, and remembers its peers."""

    context: ssl.SSLContext
    loop: asyncio.AbstractEventLoop
    peers: list[Any] = field(default_factory=list)
    port: int = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("ssl_object")
        try:
            self.peers.append(peer_of(connection))
        except SvidError:
            self.peers.append("nobody")
        with contextlib.suppress(OSError):
            writer.write(GREETING)
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    @contextlib.contextmanager
    def running(self) -> Iterator[Server]:
        asyncio_server: list[asyncio.Server] = []

        async def start() -> None:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
            asyncio_server.append(server)
            self.port = server.sockets[0].getsockname()[1]

        async def stop() -> None:
            asyncio_server[0].close()
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        self.loop.run_until_complete(start())
        thread = threading.Thread(target=self.loop.run_forever)
        thread.start()
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(stop(), self.loop).result(WAIT_S)
            self.loop.call_soon_threadsafe(self.loop.stop)
            thread.join()
            self.loop.close()


@dataclass(frozen=True)
class World:
    """Our domain, a federated one, and one nobody has heard of."""

    own: Ca
    federated: Ca
    unknown: Ca

    def source(self, spiffe_id: str) -> HeldSource:
        return HeldSource(material(self.own.svid(spiffe_id), self.own, self.federated))


@pytest.fixture(scope="module")
def world() -> World:
    return World(Ca("example.org"), Ca("partner.org"), Ca("stranger.org"))


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoop:
    return LOOPS[request.param]()


def connect(context: ssl.SSLContext, port: int, session: Any = None) -> ssl.SSLSocket:
    plain = socket.create_connection(("127.0.0.1", port), WAIT_S)
    return context.wrap_socket(plain, server_hostname="localhost", session=session)


def greeting_of(context: ssl.SSLContext, port: int) -> bytes:
    """What a client reads first; nothing if it is refused, however it learns of it."""
    try:
        with connect(context, port) as connection:
            return connection.recv(len(GREETING))
    except (ssl.SSLError, ConnectionError):
        return b""


# ---- clients at our server -------------------------------------------------------------------

Cast = Callable[[World], Issued | None]

WELCOME: dict[str, Cast] = {
    "our own": lambda world: world.own.svid(CLIENT),
    "a federated domain's": lambda world: world.federated.svid("spiffe://partner.org/client"),
    "one with an intermediate": lambda world: world.own.intermediate().svid(CLIENT),
    "one without stated purposes": lambda world: world.own.svid(CLIENT, purposes=()),
    "one with a DNS name beside": lambda world: world.own.svid(CLIENT, dns=["example.org"]),
}

OUTSIDER: dict[str, Cast] = {
    "without a certificate": lambda _: None,
    "of an unknown domain": lambda world: world.unknown.svid("spiffe://stranger.org/client"),
    "of an unknown domain claiming ours": lambda world: world.unknown.svid(CLIENT),
    "of a federated domain claiming ours": lambda world: world.federated.svid(CLIENT),
    "of a federated domain's intermediate claiming ours": lambda world: (
        world.federated.intermediate().svid(CLIENT)
    ),
    "of ours claiming a federated domain": lambda world: world.own.svid(
        "spiffe://partner.org/client"
    ),
    "expired": lambda world: world.own.svid(CLIENT, lifetime=timedelta(seconds=-1)),
    "not valid yet": lambda world: world.own.svid(CLIENT, starts=timedelta(minutes=5)),
    "with no URI": lambda world: world.own.svid(CLIENT, uris=[]),
    "with two URIs": lambda world: world.own.svid(CLIENT, uris=[CLIENT, SERVER]),
    "with a web address": lambda world: world.own.svid(CLIENT, uris=["https://example.org/client"]),
    "with a newline in the ID": lambda world: world.own.svid(CLIENT, uris=[CLIENT + "\n"]),
    "naming only the domain": lambda world: world.own.svid(CLIENT, uris=["spiffe://example.org"]),
    "with a CA certificate": lambda world: world.own.svid(CLIENT, ca=True, key_cert_sign=True),
    "allowed to sign certificates": lambda world: world.own.svid(CLIENT, key_cert_sign=True),
    "allowed to sign revocation lists": lambda world: world.own.svid(CLIENT, crl_sign=True),
    "not allowed to sign data": lambda world: world.own.svid(CLIENT, digital_signature=False),
    "without key usage": lambda world: world.own.svid(CLIENT, key_usage=False),
}


@pytest.mark.parametrize("who", WELCOME)
def test_the_server_lets_in(world: World, loop: asyncio.AbstractEventLoop, who: str) -> None:
    issued = WELCOME[who](world)
    assert issued is not None
    with Server(server_context(world.source(SERVER)), loop).running() as server:
        assert greeting_of(foreign_context(issued, world.own), server.port) == GREETING
    (peer,) = server.peers
    named = "spiffe://partner.org/client" if "federated" in who else CLIENT
    assert str(peer.id) == named
    assert peer.not_after == issued.chain[0].not_valid_after_utc


@pytest.mark.parametrize("who", OUTSIDER)
def test_the_server_refuses_a_client(
    world: World, loop: asyncio.AbstractEventLoop, who: str
) -> None:
    outsider = foreign_context(OUTSIDER[who](world), world.own)
    with Server(server_context(world.source(SERVER)), loop).running() as server:
        assert greeting_of(outsider, server.port) == b""
        # The server lives, and it was the client it did not like.
        assert greeting_of(foreign_context(world.own.svid(CLIENT), world.own), server.port)
    assert [str(peer.id) for peer in server.peers] == [CLIENT]


def test_the_server_refuses_a_client_for_other_purposes(
    world: World, loop: asyncio.AbstractEventLoop
) -> None:
    server_only = world.own.svid(CLIENT, purposes=[ssl_purpose("server")])
    with Server(server_context(world.source(SERVER)), loop).running() as server:
        assert greeting_of(foreign_context(server_only, world.own), server.port) == b""
    assert server.peers == []


def test_the_server_refuses_who_its_predicate_does_not_accept(
    world: World, loop: asyncio.AbstractEventLoop
) -> None:
    context = server_context(world.source(SERVER), lambda spiffe_id: spiffe_id.path == "/other")
    with Server(context, loop).running() as server:
        assert greeting_of(foreign_context(world.own.svid(CLIENT), world.own), server.port) == b""
        other = world.own.svid("spiffe://example.org/other")
        assert greeting_of(foreign_context(other, world.own), server.port) == GREETING


def test_the_server_speaks_no_older_tls(world: World, loop: asyncio.AbstractEventLoop) -> None:
    client = foreign_context(world.own.svid(CLIENT), world.own)
    with Server(server_context(world.source(SERVER)), loop).running() as server:
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        assert greeting_of(client, server.port) == b""
        client.maximum_version = ssl.TLSVersion.TLSv1_3
        assert greeting_of(client, server.port) == GREETING


def ssl_purpose(kind: str) -> Any:
    from spiffe_kit import BOTH_PURPOSES

    return BOTH_PURPOSES[0 if kind == "server" else 1]


# ---- our client at servers -------------------------------------------------------------------


def _connect_blocking(context: ssl.SSLContext, port: int) -> Peer:
    with connect(context, port) as connection:
        assert connection.recv(len(GREETING)) == GREETING
        return peer_of(connection)


def _connect_with(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> Any:
    async def talk(context: ssl.SSLContext, port: int) -> Peer:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        assert await reader.readline() == GREETING
        peer = peer_of(writer.get_extra_info("ssl_object"))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return peer

    def run(context: ssl.SSLContext, port: int) -> Peer:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            return runner.run(talk(context, port))

    return run


CLIENTS = {
    "blocking": _connect_blocking,
    "asyncio": _connect_with(LOOPS["asyncio"]),
    "uvloop": _connect_with(LOOPS["uvloop"]),
}


@contextlib.contextmanager
def foreign_server(issued: Issued, trusted: Ca) -> Iterator[int]:
    context = foreign_context(issued, trusted, protocol=ssl.PROTOCOL_TLS_SERVER)
    with Server(context, asyncio.SelectorEventLoop()).running() as server:
        yield server.port


def is_server(spiffe_id: SpiffeId) -> bool:
    return str(spiffe_id) == SERVER


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_client_speaks_to_the_server_it_looks_for(world: World, kind: str) -> None:
    context = client_context(world.source(CLIENT), is_server)
    with foreign_server(world.own.svid(SERVER), world.own) as port:
        assert str(CLIENTS[kind](context, port).id) == SERVER


FALSE_SERVER: dict[str, Callable[[World], Issued]] = {
    "another workload of ours": lambda world: world.own.svid(CLIENT),
    "a federated domain's claiming ours": lambda world: world.federated.svid(SERVER),
    "an unknown domain's claiming ours": lambda world: world.unknown.svid(SERVER),
    "expired": lambda world: world.own.svid(SERVER, lifetime=timedelta(seconds=-1)),
    "with no URI, only the host name": lambda world: world.own.svid(
        SERVER, uris=[], dns=["localhost"]
    ),
    "with two URIs": lambda world: world.own.svid(SERVER, uris=[SERVER, CLIENT]),
    "with a CA certificate": lambda world: world.own.svid(SERVER, ca=True, key_cert_sign=True),
    "for clients only": lambda world: world.own.svid(SERVER, purposes=[ssl_purpose("client")]),
}


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("who", FALSE_SERVER)
def test_the_client_refuses_a_false_server(world: World, kind: str, who: str) -> None:
    context = client_context(world.source(CLIENT), is_server)
    with foreign_server(FALSE_SERVER[who](world), world.own) as port, pytest.raises(ssl.SSLError):
        CLIENTS[kind](context, port)


def test_the_client_says_why_it_refuses(world: World) -> None:
    context = client_context(world.source(CLIENT), is_server)
    with (
        foreign_server(world.federated.svid(SERVER), world.own) as port,
        pytest.raises(PeerRefusedError, match="authority of its own trust domain") as caught,
    ):
        connect(context, port)
    assert isinstance(caught.value, SvidError)


def test_the_client_context_serves_http_client(world: World) -> None:
    context = client_context(world.source(CLIENT), is_server)
    with Server(server_context(world.source(SERVER)), LOOPS["asyncio"]()).running() as server:
        connection = http.client.HTTPSConnection("localhost", server.port, context=context)
        connection.connect()
        assert str(peer_of(connection.sock).id) == SERVER
        connection.close()


# ---- bundles ---------------------------------------------------------------------------------


def _handshake(server: HeldSource, client: HeldSource, accept: Accept = any_peer) -> Peer:
    """One handshake between our own two sides over a socket pair; the server's view of the peer."""
    ends = socket.socketpair()
    seen: list[Peer | Exception] = []

    def serve() -> None:
        try:
            with server_context(server, accept).wrap_socket(ends[0], server_side=True) as done:
                seen.append(peer_of(done))
                done.send(GREETING)
        except OSError as error:
            seen.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client_context(client, any_peer).wrap_socket(ends[1]) as done:
            done.recv(len(GREETING))
    finally:
        thread.join()
    if isinstance(seen[0], Exception):
        raise seen[0]
    return seen[0]


def test_an_authority_that_another_has_signed_is_a_root_where_a_bundle_holds_it() -> None:
    root = Ca("example.org")
    middle = root.intermediate()
    source = HeldSource(material(middle.svid(SERVER), middle))
    (fingerprint,) = middle.bundle.fingerprints
    assert _handshake(source, source).root == fingerprint


def test_two_domains_under_one_root_do_not_disturb_each_other() -> None:
    corporate = Ca("corporate.org")
    ours = Ca("example.org", issuer=corporate)
    theirs = Ca("partner.org", issuer=corporate)
    source = HeldSource(material(ours.svid(SERVER), ours, theirs, corporate))
    assert str(_handshake(source, source).id) == SERVER
    false = HeldSource(material(theirs.svid("spiffe://partner.org/x"), theirs, ours, corporate))
    assert _handshake(source, false).id.trust_domain == "partner.org"


def test_a_partner_cannot_lock_us_out_with_an_authority_that_looks_like_ours() -> None:
    ours = Ca("example.org", subject="the authority")
    twins = [
        Ca(
            "partner.org",
            subject="the authority",
            key_identifier=ours.key_identifier,
            lifetime=timedelta(days=days),
        )
        for days in range(1, 30)
    ]
    fake = TrustBundle.parse_untrusted(
        TrustDomain("partner.org"), b"".join(each.bundle_der for each in twins)
    )
    source = HeldSource(material(ours.svid(SERVER), ours, fake))
    # Which of them OpenSSL would take is its own affair, so it is given none of them.
    assert trusted_der(source.material) == ours.bundle_der
    assert str(_handshake(source, source).id) == SERVER


def test_a_partner_cannot_lock_us_out_by_listing_our_intermediate() -> None:
    ours = Ca("example.org")
    middle = ours.intermediate()
    stolen = TrustBundle.parse_untrusted(TrustDomain("partner.org"), middle.bundle_der)
    source = HeldSource(material(middle.svid(SERVER), ours, stolen))
    peer = _handshake(source, source)
    assert (str(peer.id), {peer.root}) == (SERVER, set(ours.bundle.fingerprints))
    # Nor does it work the other way round: our root does not speak for the partner.
    false = HeldSource(material(ours.svid(SERVER), ours, stolen))
    outsider = foreign_context(ours.svid("spiffe://partner.org/x"), ours)
    with Server(server_context(false), LOOPS["asyncio"]()).running() as server:
        assert greeting_of(outsider, server.port) == b""


def test_the_root_may_stand_anywhere_above_the_leaf_of_a_verified_chain(world: World) -> None:
    middle = world.own.intermediate()
    issued = middle.intermediate().svid(CLIENT, lifetime=timedelta(hours=2))
    chain = [each.public_bytes(Encoding.DER) for each in (*issued.chain, world.own.cert)]
    for authority in (world.own, middle):
        bundles = {TrustDomain("example.org"): authority.bundle}
        peer = check_peer(chain, [], bundles, any_peer, utc_now())
        assert {peer.root} == set(authority.bundle.fingerprints)
    leaf_as_root = TrustBundle(TrustDomain("example.org"), issued.chain[:1])
    bundles = {TrustDomain("example.org"): leaf_as_root}
    with pytest.raises(SvidError, match="not vouched for"):
        check_peer(chain[:1], chain[:1], bundles, any_peer, utc_now())


def test_a_peer_ends_with_the_first_of_its_certificates() -> None:
    root = Ca("example.org")
    short = Ca("example.org", issuer=root, lifetime=timedelta(minutes=10))
    issued = short.svid(CLIENT, lifetime=timedelta(hours=1))
    chain = [each.public_bytes(Encoding.DER) for each in (*issued.chain, root.cert)]
    bundles = {TrustDomain("example.org"): root.bundle}
    peer = check_peer(chain, [], bundles, any_peer, utc_now())
    assert peer.not_after == short.cert.not_valid_after_utc


def test_authorities_of_one_name_with_different_keys_are_told_apart() -> None:
    # SPIRE gives every authority the same subject by default.
    ours, theirs = (Ca(name, subject="O=SPIFFE") for name in ("example.org", "partner.org"))
    source = HeldSource(material(ours.svid(SERVER), ours, theirs))
    partner = HeldSource(material(theirs.svid("spiffe://partner.org/x"), theirs, ours))
    assert _handshake(source, partner).id.trust_domain == "partner.org"
    assert _handshake(partner, source).id.trust_domain == "example.org"


def test_an_own_domain_that_is_federated_too_does_not_let_the_other_bundle_in(
    world: World,
) -> None:
    impostor = Ca("example.org")
    server = HeldSource(material(world.own.svid(SERVER), world.own, impostor))
    client = HeldSource(material(impostor.svid(CLIENT), impostor, world.own))
    # The client sees its own "example.org" only, so it is the first to refuse.
    with pytest.raises(ssl.SSLError):
        _handshake(server, client)


# ---- identities that change ------------------------------------------------------------------


def test_no_session_is_resumed(world: World, loop: asyncio.AbstractEventLoop) -> None:
    context = foreign_context(world.own.svid(CLIENT), world.own)
    with Server(server_context(world.source(SERVER)), loop).running() as server:
        with connect(context, server.port) as first:
            assert first.recv(len(GREETING)) == GREETING
            session = first.session
        assert session is None or not session.has_ticket
        with connect(context, server.port, session) as second:
            assert second.recv(len(GREETING)) == GREETING
            assert second.session_reused is False


def test_the_proof_above_can_fail_a_server_with_tickets_resumes(world: World) -> None:
    context = foreign_context(world.own.svid(CLIENT), world.own)
    with foreign_server(world.own.svid(SERVER), world.own) as port:
        with connect(context, port) as first:
            assert first.recv(len(GREETING)) == GREETING
            session = first.session
        with connect(context, port, session) as second:
            assert second.session_reused is True


def test_a_new_svid_is_shown_to_the_next_peer_and_kept_connections_stay(
    world: World, loop: asyncio.AbstractEventLoop
) -> None:
    source = world.source(SERVER)
    client = client_context(world.source(CLIENT), any_peer)
    with (
        Server(server_context(source), loop).running() as server,
        connect(client, server.port) as kept,
    ):
        assert kept.recv(len(GREETING)) == GREETING
        renamed = "spiffe://example.org/renamed"
        source.replace(material(world.own.svid(renamed), world.own))
        with connect(client, server.port) as fresh:
            assert str(peer_of(fresh).id) == renamed
        kept.send(b"still here\n")
        assert kept.recv(100) == b"still here\n"
        assert str(peer_of(kept).id) == SERVER


def test_svids_are_swapped_under_fifty_connections_without_an_error(
    world: World, loop: asyncio.AbstractEventLoop
) -> None:
    source = world.source(SERVER)
    client_source = world.source(CLIENT)
    client = client_context(client_source, is_server)
    swaps = size(test=20, proof=500)

    async def visit(port: int, done: asyncio.Event) -> int:
        """Speak on one kept connection and make new ones beside it until the swaps are over."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        assert await reader.readline() == GREETING
        answered = 0
        while not done.is_set() or not answered:
            writer.write(b"ping\n")
            assert await reader.readline() == b"ping\n"
            answered += 1
            if answered % 20 == 0:
                fresh_reader, fresh = await asyncio.open_connection("127.0.0.1", port, ssl=client)
                assert await fresh_reader.readline() == GREETING
                fresh.close()
                await fresh.wait_closed()
        writer.close()
        await writer.wait_closed()
        return answered

    async def swap(done: asyncio.Event, port: int) -> None:
        for _ in range(swaps):
            source.replace(material(world.own.svid(SERVER), world.own))
            client_source.replace(material(world.own.svid(CLIENT), world.own))
            # One handshake with the new pair before the next, so that each swap is really used.
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            assert await reader.readline() == GREETING
            writer.close()
            await writer.wait_closed()
        done.set()

    async def storm(port: int) -> list[int]:
        done = asyncio.Event()
        visits = [asyncio.create_task(visit(port, done)) for _ in range(50)]
        await swap(done, port)
        return await asyncio.gather(*visits)

    with Server(server_context(source), loop).running() as server:
        answered = asyncio.run(storm(server.port))
    assert len(answered) == 50
    assert min(answered) > 0
    assert len(server.peers) >= 50 + swaps
    assert {str(peer.id) for peer in server.peers} == {CLIENT}
    record("SVID swaps under 50 connections", swaps, "no error")


def test_a_root_that_leaves_the_bundle_ends_the_trust_in_its_peers(
    world: World, loop: asyncio.AbstractEventLoop
) -> None:
    new = Ca("example.org")
    both = TrustBundle.parse_untrusted(
        TrustDomain("example.org"), world.own.bundle_der + new.bundle_der
    )
    source = HeldSource(material(new.svid(SERVER), both))
    old_client = foreign_context(world.own.svid(CLIENT), world.own, new)
    with Server(server_context(source), loop).running() as server:
        assert greeting_of(old_client, server.port) == GREETING
        (peer,) = server.peers
        assert source.still_trusts(peer, utc_now())
        source.replace(material(new.svid(SERVER), new))
        assert not source.still_trusts(peer, utc_now())
        assert greeting_of(old_client, server.port) == b""
        assert greeting_of(foreign_context(new.svid(CLIENT), new), server.port) == GREETING


def test_material_the_tls_library_does_not_take_leaves_the_old_context_in_use(
    world: World, loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    source = world.source(SERVER)
    good = foreign_context(world.own.svid(CLIENT), world.own)
    with Server(server_context(source), loop).running() as server:
        assert greeting_of(good, server.port) == GREETING
        broken = material(world.own.svid(SERVER), world.own)
        object.__setattr__(broken, "private_key", type(broken.private_key)(b"no key"))
        source.replace(broken)
        assert greeting_of(good, server.port) == GREETING
    assert "kept the old TLS context" in caplog.text


# ---- misuse ----------------------------------------------------------------------------------


def test_a_connection_of_a_foreign_context_has_no_peer(world: World) -> None:
    with Server(server_context(world.source(SERVER)), LOOPS["asyncio"]()).running() as server:
        foreign = connect(foreign_context(world.own.svid(CLIENT), world.own), server.port)
        with foreign, pytest.raises(SvidError):
            peer_of(foreign)
    with pytest.raises(SvidError):
        peer_of(None)


def test_a_connection_has_no_peer_before_its_handshake(world: World) -> None:
    context = client_context(world.source(CLIENT), any_peer)
    with pytest.raises(SvidError):
        peer_of(context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO()))


def test_the_handshake_cannot_be_put_off(world: World) -> None:
    ends = socket.socketpair()
    context = client_context(world.source(CLIENT), any_peer)
    with pytest.raises(ValueError, match="put off"):
        context.wrap_socket(ends[0], do_handshake_on_connect=False)
    for end in ends:
        end.close()


def test_a_listening_socket_is_not_wrapped(world: World) -> None:
    context = server_context(world.source(SERVER))
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        pytest.raises(ValueError, match="listening"),
    ):
        context.wrap_socket(listening, server_side=True)


# ---- the private key -------------------------------------------------------------------------


class _Watching(ssl.SSLContext):
    """Keeps the file that the key comes in open, to see what is left in it."""

    descriptor = -1
    seen = b""

    def load_cert_chain(self, certfile: Any, keyfile: Any = None, password: Any = None) -> None:
        self.descriptor = os.open(certfile, os.O_RDONLY)
        self.seen = os.pread(self.descriptor, 1 << 16, 0)
        super().load_cert_chain(certfile, keyfile, password)


def test_the_file_with_the_private_key_has_no_name_and_nothing_is_left_in_it(world: World) -> None:
    before = set(os.listdir("/proc/self/fd"))
    context = _Watching(ssl.PROTOCOL_TLS_SERVER)
    load_credential(context, world.source(SERVER).material)
    assert b"PRIVATE KEY" in context.seen
    assert os.readlink(f"/proc/self/fd/{context.descriptor}").startswith("/memfd:")
    assert os.fstat(context.descriptor).st_size == 0
    os.close(context.descriptor)
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_refused_key_leaves_no_descriptor_behind(world: World) -> None:
    broken = world.source(SERVER).material
    object.__setattr__(broken, "private_key", type(broken.private_key)(b"no key"))
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(ssl.SSLError):
        load_credential(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), broken)
    assert set(os.listdir("/proc/self/fd")) == before


_UNDUMPABLE = """
import ctypes, sys
sys.path[:0] = {path!r}
assert ctypes.CDLL(None).prctl(4, 0, 0, 0, 0) == 0
from spiffe_kit import Ca, material
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context
ca = Ca("example.org")
server_context(HeldSource(material(ca.svid("spiffe://example.org/server"), ca)))
print("built")
"""


def test_contexts_are_built_in_a_process_that_hides_its_memory() -> None:
    code = _UNDUMPABLE.format(path=[each for each in sys.path if each])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("built\n", "")
