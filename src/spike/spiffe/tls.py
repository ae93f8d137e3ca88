"""Mutual TLS 1.3 between SPIFFE identities, following a source while it changes.

`ssl.SSLContext` cannot lose a root or change a key safely while connections are being made, so
each material gets a context of its own, and the context handed out is a switch that passes every
new connection to the newest. Connections already made keep what they were made with; whether they
are still trusted is `still_trusts`'s question.
"""

from __future__ import annotations

import logging
import socket as sockets
import ssl
import threading
from datetime import UTC, datetime
from typing import Any, Final, Protocol, cast

from spike.error import IdentityError, PeerRefusedError, SvidError
from spike.spiffe.credential import load_credential, trusted_der
from spike.spiffe.peer import Accept, Peer, any_peer, check_peer
from spike.spiffe.source import MaterialSource
from spike.spiffe.svid import X509Material

_log = logging.getLogger(__name__)

_DER: Final = 2  # _ssl.ENCODING_DER


def server_context(source: MaterialSource, accept: Accept = any_peer) -> ssl.SSLContext:
    """Return a context for a server with the source's identity; give it to any event loop.

    The handshake fails for every peer that `check_peer` refuses. New connections follow the source.

    Raises:
        SvidError: the TLS library does not take the source's present material.
    """
    return _FollowingContext(ssl.PROTOCOL_TLS_SERVER, source, accept)


def client_context(source: MaterialSource, accept: Accept) -> ssl.SSLContext:
    """Return a context for a client that speaks only to servers whose ID `accept` takes.

    The host name means nothing: the ID in the server's SVID does.

    Raises:
        SvidError: the TLS library does not take the source's present material.
    """
    return _FollowingContext(ssl.PROTOCOL_TLS_CLIENT, source, accept)


def peer_of(connection: object) -> Peer:
    """Return who is at the other end of an `SSLObject` or `SSLSocket` made by these contexts.

    Read once, in the handshake. An event loop gives the object as
    `transport.get_extra_info("ssl_object")`.

    Raises:
        SvidError: not made by these contexts, or the handshake has not ended.
    """
    match connection:
        case _CheckedObject(peer=Peer() as peer) | _CheckedSocket(peer=Peer() as peer):
            return peer
    raise SvidError("the connection has no verified peer")


class _Pinned(ssl.SSLContext):
    """The TLS context of one material; never changed once it is built."""

    material: X509Material
    accept: Accept


class _Handshaken(Protocol):
    """OpenSSL's side of a connection. Python 3.11 and 3.12 give no public way to these two."""

    def get_verified_chain(self) -> list[Any] | None: ...
    def get_unverified_chain(self) -> list[Any] | None: ...


def _refuse_or_name(connection: ssl.SSLObject | ssl.SSLSocket) -> Peer:
    """Return the peer of a handshake that OpenSSL has just let pass, or refuse it.

    Raises:
        PeerRefusedError: in every case that is not a peer to trust, whatever went wrong. Event
            loops drop the connection for an SSLError and only for that.
    """
    try:
        # The very context that verified the chain, whatever the source has by now.
        context = cast(_Pinned, connection.context)
        inner = cast(_Handshaken, getattr(connection, "_sslobj"))  # noqa: B009  mypy's doing
        verified = _ders(inner.get_verified_chain())
        sent = _ders(inner.get_unverified_chain())
        now = datetime.now(UTC)  # OpenSSL's clock too
        return check_peer(verified, sent, context.material.bundles, context.accept, now)
    except IdentityError as error:
        raise PeerRefusedError(error.message, error.next_step) from error
    except Exception as error:
        _log.exception("a fault while checking a peer; it is refused")
        raise PeerRefusedError("the peer could not be checked") from error


def _ders(chain: list[Any] | None) -> list[bytes]:
    return [each if isinstance(each, bytes) else each.public_bytes(_DER) for each in chain or ()]


class _CheckedObject(ssl.SSLObject):
    """What event loops use."""

    peer: Peer | None = None

    def do_handshake(self) -> None:
        super().do_handshake()
        self.peer = _refuse_or_name(self)


class _CheckedSocket(ssl.SSLSocket):
    """What blocking code uses."""

    peer: Peer | None = None

    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        self.peer = _refuse_or_name(self)


_Pinned.sslobject_class = _CheckedObject
_Pinned.sslsocket_class = _CheckedSocket


def _set_rules(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # An authority of a bundle is a root even where another has signed it.
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.set_alpn_protocols(["http/1.1"])


def _pin(protocol: int, material: X509Material, accept: Accept) -> _Pinned:
    context = _Pinned(protocol)
    _set_rules(context)
    if protocol == ssl.PROTOCOL_TLS_SERVER:
        # A resumed session verifies no chain: an expired SVID would come back in with a ticket.
        context.num_tickets = 0
    context.material = material
    context.accept = accept
    try:
        context.load_verify_locations(cadata=trusted_der(material))
        load_credential(context, material)
    except ssl.SSLError as error:
        raise SvidError(f"the TLS library does not take this SVID ({error.reason})") from error
    return context


class _FollowingContext(ssl.SSLContext):
    """The switch: every new connection is made with the newest material's context.

    Contexts are built when a connection asks for one, 2 to 3 ms each, and at most once for each
    material. Threads may share it.
    """

    def __new__(cls, protocol: int, *_args: object) -> _FollowingContext:
        return super().__new__(cls, protocol)

    def __init__(self, protocol: int, source: MaterialSource, accept: Accept) -> None:
        _set_rules(self)  # whoever looks at this object sees what its connections do
        self._protocol = protocol
        self._source = source
        self._accept = accept
        self._lock = threading.Lock()
        self._pinned = _pin(protocol, source.material, accept)
        self._seen = source.material

    def _current(self) -> _Pinned:
        material = self._source.material
        if material is self._seen:
            return self._pinned
        with self._lock:
            if material is not self._seen:
                self._seen = material
                try:
                    self._pinned = _pin(self._protocol, material, self._accept)
                except SvidError as error:
                    # The old SVID is good until it expires, and then peers refuse it by themselves.
                    _log.error("kept the old TLS context: %s", error.message)
            return self._pinned

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        """Make a connection over memory buffers, as event loops do. They call `do_handshake`."""
        return self._current().wrap_bio(*args, **kwargs)

    def wrap_socket(  # noqa: PLR0917  the standard library's signature
        self,
        sock: sockets.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """Make a connection over a socket; its handshake is part of connecting.

        Raises:
            ValueError: a listening socket, whose connections would never see a new SVID, or a
                handshake left to the first read, which would skip the check of the peer.
        """
        if sock.getsockopt(sockets.SOL_SOCKET, sockets.SO_ACCEPTCONN):
            raise ValueError("wrap each accepted connection, not the listening socket")
        if not do_handshake_on_connect:
            raise ValueError("the handshake cannot be put off")
        return self._current().wrap_socket(
            sock, server_side, True, suppress_ragged_eofs, server_hostname, session
        )
