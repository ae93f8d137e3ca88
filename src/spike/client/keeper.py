"""One Keeper's client: one TLS connection for each exchange, and one deadline for all of it.

A Keeper is called every few seconds and may be hostile, so nothing of an exchange outlives it and nothing that comes
from the other side is believed to end: resolving, connecting, handshake, request and answer share the deadline, and
an answer has at most 64 KiB.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from spike.client.exchange import post
from spike.client.fault import Server, fault_of
from spike.client.pool import Reply
from spike.client.setting import Address
from spike.error import (
    AnswerError,
    DeniedError,
    FormatError,
    NotFoundError,
    RefusedError,
    SpikeError,
    UnreachableError,
)
from spike.spiffe.id import SpiffeId
from spike.spiffe.source import MaterialSource
from spike.spiffe.tls import client_context
from spike.wire.call import Call
from spike.wire.go_json import decode_answer_untrusted, encode
from spike.wire.keeper import BODY_LIMIT_BYTES, HeldLabel, KeeperReason, KeeperRefusalAnswer
from spike.wire.message import Message

A = TypeVar("A", bound=Message)
Q = TypeVar("Q", bound=Message)

_REFUSED_PREFIX: Final = "refused_"
_WHEN_SILENT: Final = "see that the Keeper runs, and that SPIKE_NEXUS_KEEPER_PEERS has its address"
_WHEN_ANOTHER: Final = (
    "see SPIKE_NEXUS_KEEPER_PEERS and SPIKE_TRUST_ROOT_KEEPER, or find out who answers there"
)


class KeeperRefusedError(RefusedError):
    """A Keeper's rules refuse the call; `held` is the share that stands in the way, by its own word."""

    def __init__(self, reason: KeeperReason, held: HeldLabel | None, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.held = held


class KeeperClient:
    """Calls one Keeper. Any number of calls may run at once on the event loop."""

    def __init__(
        self,
        address: Address,
        source: MaterialSource,
        accept: Callable[[SpiffeId], bool],
        deadline_s: float,
    ) -> None:
        """`accept` says which servers' IDs are this Keeper's; `deadline_s` is for a whole call, in seconds.

        Raises:
            SvidError: the TLS library does not take the source's present material.
        """
        self.address = address
        self._context = client_context(source, accept)
        self._deadline_s = deadline_s
        self._server = Server("Keeper", address, _WHEN_SILENT, _WHEN_ANOTHER)

    async def ask(self, call: Call[Q, A], message: Q) -> A:
        """Make a call and return its answer. It is made once: whether to repeat it is the caller's matter.

        Raises:
            UnreachableError: no connection, a broken one, or no whole answer before the deadline. A server that
                turns our identity away in the handshake just hangs up.
            IdentityError: the server's identity is not trusted or not accepted.
            DeniedError: the server does not accept ours.
            AnswerError: an answer that is no HTTP, too large, of another form, or a fault of the server's.
            NotFoundError: the share asked for is not held.
            KeeperRefusedError: the Keeper's rules refuse it, and nothing was changed.
        """
        try:
            async with asyncio.timeout(self._deadline_s):
                reply = await post(
                    self.address, self._context, call.target, encode(message), BODY_LIMIT_BYTES
                )
        except (OSError, UnicodeError) as error:  # the latter: a name that cannot be resolved
            raise fault_of(error, self._server) from error
        except FormatError as error:
            raise AnswerError(f"{self._server}: {error.message}") from error
        return self._result(call, reply)

    def _result(self, call: Call[Q, A], reply: Reply) -> A:
        if reply.status != 200:
            raise error_of(reply, f"{call.name} at {self.address}")
        try:
            return decode_answer_untrusted(call.answer, reply.body, BODY_LIMIT_BYTES)
        except FormatError as error:
            raise AnswerError(f"{call.name} at {self.address} failed: {error.message}") from error


def error_of(reply: Reply, subject: str) -> SpikeError:
    """Return the error that a Keeper's answer other than 200 stands for. `subject` completes "… failed"."""
    match reply.status:
        case 400:
            return _refusal_untrusted(reply, subject) or AnswerError(
                f"{subject} failed: it does not understand the request",
                "see that Nexus and Keeper are of versions that fit together",
            )
        case 401:
            return DeniedError(f"{subject} failed: this identity is not allowed to")
        case 404:
            return NotFoundError(f"{subject}: it holds no such share")
        case 503:
            return UnreachableError(f"{subject} failed: it is not ready")
        case status:
            return AnswerError(f"{subject} failed: it answered {status}", "look at its log")


def _refusal_untrusted(reply: Reply, subject: str) -> KeeperRefusedError | None:
    try:
        answer = decode_answer_untrusted(KeeperRefusalAnswer, reply.body, BODY_LIMIT_BYTES)
    except FormatError:
        return None
    name = answer.err.removeprefix(_REFUSED_PREFIX)
    if name == answer.err or name not in set(KeeperReason):
        return None
    reason = KeeperReason(name)
    return KeeperRefusedError(reason, answer.held, f"{subject} was refused: {reason.meaning}")
