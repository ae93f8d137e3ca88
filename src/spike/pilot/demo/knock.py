"""A TLS client of the demo's own: it shows any certificate to Nexus and tells what comes back.

None of SPIKE's own TLS rules are in it. It believes any server, so that it sees what every caller
would see; who the server is, is in what it returns.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass
from typing import Final

from cryptography import x509

from spike.error import ClaimError
from spike.spiffe.credential import load_credential
from spike.spiffe.id import SpiffeId
from spike.spiffe.svid import X509Material, id_of_leaf

_TIMEOUT_S: Final = 10.0
HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Served:
    """What the server's certificate says; taken from the connection."""

    id: SpiffeId
    serial: int
    issuer: str


@dataclass(frozen=True, slots=True)
class Answered:
    """Nexus took the connection and answered."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """The connection ended before a byte of HTTP came back; `why` is what TLS said."""

    why: str


class Visitor:
    """One TLS connection to Nexus; kept until closed."""

    def __init__(
        self, port: int, material: X509Material | None, earlier: Visitor | None = None
    ) -> None:
        """Connect and shake hands, showing `material`'s SVID whatever it is worth.

        `earlier` is a connection whose TLS session is offered again, with the ticket the server gave
        it, if it gave one.

        Raises:
            OSError: refused in the handshake.
        """
        # OpenSSL offers a session only in the context it was made in.
        self._context: ssl.SSLContext = _context(material) if earlier is None else earlier._context
        session = None if earlier is None else earlier.socket.session
        self.material = material
        plain = socket.create_connection((HOST, port), _TIMEOUT_S)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.socket: ssl.SSLSocket = self._context.wrap_socket(plain, session=session)
        except BaseException:
            plain.close()
            raise
        self._http = http.client.HTTPConnection(HOST, port, timeout=_TIMEOUT_S)
        self._http.sock = self.socket

    def post(self, target: str, body: bytes) -> Answered:
        """Make one request on the kept connection.

        Raises:
            OSError, http.client.HTTPException: refused, or closed.
        """
        self._http.request("POST", target, body, {"Content-Type": "application/json"})
        response = self._http.getresponse()
        return Answered(response.status, response.read())

    def served(self) -> Served:
        """Return what the server showed."""
        der = self.socket.getpeercert(binary_form=True)
        assert der is not None
        return served_of(der)

    def close(self) -> None:
        """Hang up. Idempotent."""
        self.socket.close()

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def knock(
    port: int,
    material: X509Material | None,
    target: str,
    body: bytes,
    earlier: Visitor | None = None,
) -> Answered | Refused:
    """Make one request on a connection of its own and tell what came of it."""
    try:
        with Visitor(port, material, earlier) as visitor:
            return visitor.post(target, body)
    except (OSError, http.client.HTTPException) as error:
        return Refused(reason_of(error))


def knock_again(visitor: Visitor, target: str, body: bytes) -> Answered | Refused:
    """Make one more request on a connection that was kept and tell what came of it."""
    try:
        return visitor.post(target, body)
    except (OSError, http.client.HTTPException) as error:
        return Refused(reason_of(error))


def look(port: int, material: X509Material) -> Served:
    """Return what the server shows at this moment.

    Raises:
        ClaimError: no connection comes about.
    """
    try:
        with Visitor(port, material) as visitor:
            return visitor.served()
    except OSError as error:
        raise ClaimError(f"Nexus takes no connection: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Return what a connection ended with, in the words of TLS."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return type(error).__name__


def served_of(der: bytes) -> Served:
    """Read a server's certificate."""
    leaf = x509.load_der_x509_certificate(der)
    return Served(id_of_leaf(leaf), leaf.serial_number, leaf.issuer.rfc4514_string())


def _context(material: X509Material | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if material is not None:
        load_credential(context, material)
    return context
