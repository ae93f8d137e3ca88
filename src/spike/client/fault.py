"""What a connection that could not be made, or broke, means: the error that says whose fault it is. Pure."""

from __future__ import annotations

import http.client
import socket
import ssl
from dataclasses import dataclass

from spike.client.setting import Address
from spike.error import (
    AnswerError,
    DeniedError,
    IdentityError,
    PeerRefusedError,
    UnreachableError,
)


@dataclass(frozen=True, slots=True)
class Server:
    """Who is called, for messages: its kind and address, and what to look at when it is silent or another."""

    kind: str
    address: Address
    when_silent: str
    when_another: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.address}"


def fault_of(
    error: Exception, server: Server
) -> UnreachableError | DeniedError | AnswerError | IdentityError:
    """Say what a failed connection or exchange means."""
    where = server.address
    match error:
        case PeerRefusedError():
            return IdentityError(
                f"the server at {where} is not a {server.kind} to trust: {error.message}",
                server.when_another,
            )
        case TimeoutError():
            return UnreachableError(f"{server} did not answer in time", server.when_silent)
        case ConnectionRefusedError():
            return UnreachableError(f"nobody listens at {where}", server.when_silent)
        case socket.gaierror():
            return UnreachableError(f"the name {where.host} is not known", server.when_silent)
        case ssl.SSLCertVerificationError():
            return IdentityError(
                f"the server at {where} has no identity that is trusted here: "
                f"{error.verify_message}",
                "see that both sides use the same Workload API or federated trust domains",
            )
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ConnectionError():
            return UnreachableError(
                f"{server} closed the connection without an answer",
                "look at its log; it may have refused this identity or be stopping",
            )
        case ssl.SSLError() if "ALERT" in (error.reason or ""):
            return DeniedError(
                f"{server} does not accept this identity",
                "see which SPIFFE ID this process has, and that it has not expired",
            )
        case ssl.SSLError():
            return AnswerError(
                f"the server at {where} does not speak SPIFFE mutual TLS", server.when_silent
            )
        case http.client.HTTPException():
            return AnswerError(f"{server} gave an answer that is not HTTP", server.when_silent)
        case _:
            said = error.strerror if isinstance(error, OSError) else None
            why = said or type(error).__name__
            return UnreachableError(f"{server} is out of reach: {why}", server.when_silent)
