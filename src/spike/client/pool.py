"""Kept connections to one Nexus, for any number of threads.

A new mutual-TLS connection costs the server 2 ms and a kept one 0.05 ms a request. What is kept is
looked at before it is used again: a connection the server has closed, or whose server would no longer
be trusted, is dropped. A request is repeated on a fresh connection only if it reads and the kept one
ended before the first byte of the answer: then the server may have closed it without seeing the
request. A request that writes is never repeated here, because it may have been done.
"""

from __future__ import annotations

import http.client
import select
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Final

from spike.client.fault import Server, fault_of
from spike.client.setting import Address
from spike.error import AnswerError
from spike.spiffe.peer import Peer
from spike.spiffe.source import MaterialSource
from spike.spiffe.tls import client_context, peer_of

KEPT_LIMIT: Final = 8
IDLE_LIMIT_S: Final = 30.0
AGE_LIMIT_S: Final = 1800.0  # half of what the server allows
CONNECT_TIMEOUT_S: Final = 10.0
ANSWER_LIMIT_BYTES: Final = 64 << 20
_ALERT_TIMEOUT_S: Final = 0.5

JSON_CONTENT_TYPE: Final = "application/json"
_WHEN_SILENT: Final = "see that Nexus runs, and that SPIKE_NEXUS_API_URL is its address"
_WHEN_ANOTHER: Final = (
    "see SPIKE_NEXUS_API_URL and SPIKE_TRUST_ROOT_NEXUS, and do not go on if they are right"
)


Body = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, without what makes it HTTP."""

    target: str
    body: Body
    content_type: str

    def __repr__(self) -> str:
        return f"_Asked({self.target})"


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it came: its status and its body, unread."""

    status: int
    body: bytes


@dataclass(slots=True)
class _Connection:
    """One connection, used by one thread at a time. Times are of a monotonic clock."""

    http: http.client.HTTPSConnection
    peer: Peer
    made_s: float
    used_s: float

    def is_closed(self) -> bool:
        """Tell whether the server has closed, or sent what nobody asked for."""
        if self.http.sock is None:
            return True
        # Not select(2): it takes no descriptor above 1,023, which a large program soon has.
        poll = select.poll()
        poll.register(self.http.sock, select.POLLIN)
        return bool(self.http.sock.pending() or poll.poll(0))


class Pool:
    """Connections to one address; `is_nexus` says which servers' IDs are accepted."""

    def __init__(
        self, address: Address, source: MaterialSource, is_nexus: Callable[..., bool]
    ) -> None:
        self._address = address
        self._server = Server("Nexus", address, _WHEN_SILENT, _WHEN_ANOTHER)
        self._source = source
        self._context = client_context(source, is_nexus)
        self._lock = threading.Lock()
        self._idle: list[_Connection] = []
        self._closed = False

    def exchange(
        self,
        target: str,
        body: Body,
        *,
        repeatable: bool,
        timeout_s: float,
        content_type: str = JSON_CONTENT_TYPE,
    ) -> Reply:
        """POST `body` and return the answer.

        `repeatable`: the request changes nothing, so that it may be sent a second time.

        Raises:
            UnreachableError: no connection, or a wait for a part of the answer took `timeout_s`.
            IdentityError: the server is not Nexus, or has no valid identity.
            DeniedError: the server does not accept our identity in the handshake.
            AnswerError: the answer is not HTTP, or larger than 64 MiB.
        """
        kept = self._take()
        asked = _Asked(target, body, content_type)
        try:
            if kept is not None:
                try:
                    return self._use(kept, asked, timeout_s)
                except _ClosedUnansweredError:
                    if not repeatable:
                        raise
            return self._use(self._connect(), asked, timeout_s)
        except _ClosedUnansweredError as error:
            raise fault_of(error.reason, self._server) from error.reason

    def close(self) -> None:
        """Close every kept connection; those in use are closed when their answer is there."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for connection in idle:
            connection.http.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _use(self, connection: _Connection, asked: _Asked, timeout_s: float) -> Reply:
        """Send one request over a connection and keep it, or close it when anything goes wrong."""
        answered = False
        try:
            reply = _round_trip(connection.http, asked, timeout_s)
            answered = True
        except (OSError, http.client.HTTPException) as error:
            raise fault_of(error, self._server) from error
        finally:
            if not answered:
                connection.http.close()  # half an answer may still come over it
        self._give_back(connection)
        return reply

    def _take(self) -> _Connection | None:
        """Return a kept connection that is good, the one used last first; drop the others."""
        now_s, now = time.monotonic(), datetime.now(UTC)
        while True:
            with self._lock:
                if not self._idle:
                    return None
                connection = self._idle.pop()
            if (
                now_s - connection.used_s < IDLE_LIMIT_S
                and now_s - connection.made_s < AGE_LIMIT_S
                and not connection.is_closed()
                and self._source.still_trusts(connection.peer, now)
            ):
                return connection
            connection.http.close()

    def _give_back(self, connection: _Connection) -> None:
        connection.used_s = time.monotonic()
        with self._lock:
            good = connection.http.sock is not None and not self._closed
            if good and len(self._idle) < KEPT_LIMIT:
                self._idle.append(connection)
                return
        connection.http.close()

    def _connect(self) -> _Connection:
        wire = http.client.HTTPSConnection(
            self._address.host,
            self._address.port,
            timeout=CONNECT_TIMEOUT_S,
            context=self._context,
        )
        try:
            wire.connect()
            peer = peer_of(wire.sock)
        except OSError as error:
            wire.close()
            raise fault_of(error, self._server) from error
        now_s = time.monotonic()
        return _Connection(wire, peer, now_s, now_s)


class _ClosedUnansweredError(Exception):
    """The connection ended before the first byte of the answer."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


def _round_trip(wire: http.client.HTTPSConnection, asked: _Asked, timeout_s: float) -> Reply:
    wire.sock.settimeout(timeout_s)
    try:
        wire.request("POST", asked.target, asked.body, {"Content-Type": asked.content_type})
        response = wire.getresponse()
    except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError) as error:
        # http.client.RemoteDisconnected is a ConnectionError too.
        raise _ClosedUnansweredError(_alert_of(wire.sock) or error) from error
    if response.length is None and not response.chunked:
        # Its end would be the end of the connection, which anything can bring about.
        raise http.client.IncompleteRead(b"")
    if (response.length or 0) > ANSWER_LIMIT_BYTES:
        raise AnswerError(
            f"the answer has more than {ANSWER_LIMIT_BYTES >> 20} MiB", "ask for less"
        )
    data = response.read(ANSWER_LIMIT_BYTES + 1)
    if len(data) > ANSWER_LIMIT_BYTES:
        raise AnswerError(
            f"the answer has more than {ANSWER_LIMIT_BYTES >> 20} MiB", "ask for less"
        )
    if response.length or not response.isclosed():
        raise http.client.IncompleteRead(b"")  # the body ended before its length said so
    if response.will_close:
        wire.close()
    return Reply(response.status, data)


def _alert_of(wire: ssl.SSLSocket | None) -> ssl.SSLError | None:
    """Return the TLS alert that a server closed with, if it can still be read.

    In TLS 1.3 a client's handshake ends before the server has looked at its certificate: a refusal
    arrives when the request is already being written.
    """
    if wire is None:  # reading has met the end already, and an alert would have been an error
        return None
    try:
        wire.settimeout(_ALERT_TIMEOUT_S)
        wire.recv(1)
    except ssl.SSLError as error:
        return error if "ALERT" in (error.reason or "") else None
    except OSError:
        return None
    return None
