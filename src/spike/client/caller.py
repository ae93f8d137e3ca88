"""One exchange with Nexus: what every group of its calls is built on."""

from __future__ import annotations

from typing import Final, Protocol, TypeVar

from spike.client.answer import result_of
from spike.client.pool import JSON_CONTENT_TYPE, Body, Reply
from spike.wire.call import Call
from spike.wire.go_json import encode
from spike.wire.message import Message

ANSWER_TIMEOUT_S: Final = 30.0
# Argon2id, a child process, and a queue of one derivation at a time.
KEY_TIMEOUT_S: Final = 120.0

A = TypeVar("A", bound=Message)
Q = TypeVar("Q", bound=Message)


class Exchange(Protocol):
    """What carries requests: `spike.client.pool.Pool`."""

    def exchange(
        self,
        target: str,
        body: Body,
        *,
        repeatable: bool,
        timeout_s: float,
        content_type: str = JSON_CONTENT_TYPE,
    ) -> Reply:
        """POST `body` to `target` and return the answer."""

    def close(self) -> None:
        """Let go of what it holds."""


class Caller:
    """Makes calls through an exchange. A class for each group of calls inherits from it."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def _read(self, call: Call[Q, A], request: Q, subject: str) -> A:
        return self._call(call, request, subject, ANSWER_TIMEOUT_S, repeatable=True)

    def _write(self, call: Call[Q, A], request: Q, subject: str) -> A:
        return self._call(call, request, subject, ANSWER_TIMEOUT_S, repeatable=False)

    def _call(
        self, call: Call[Q, A], request: Q, subject: str, timeout_s: float, *, repeatable: bool
    ) -> A:
        reply = self._exchange.exchange(
            call.target, encode(request), repeatable=repeatable, timeout_s=timeout_s
        )
        return result_of(call, reply, subject)
