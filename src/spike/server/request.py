"""One request as a handler sees it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from spike.error import BodyTooLargeError, InputError
from spike.server.framing import Head
from spike.spiffe.peer import Peer


class Flow(Protocol):
    """Lets a body come: the side of the connection that the body sees."""

    def body_wanted(self) -> None:
        """Ask the peer for the rest of the body."""


class Body:
    """A body while it arrives: the connection puts in, the handler takes out."""

    __slots__ = (
        "_dropped",
        "_error",
        "_flow",
        "_length",
        "_limit",
        "_parts",
        "_waiter",
        "received",
        "whole",
    )

    def __init__(self, length: int | None, flow: Flow) -> None:
        self._length = length
        self._flow = flow
        self._limit: int | None = None
        self._parts: list[bytes] = []
        self._error: InputError | None = None
        self._dropped = False
        self._waiter: asyncio.Future[None] | None = None
        self.received = 0  # bytes
        self.whole = False

    @property
    def awaited(self) -> bool:
        """Whether the handler waits for it now."""
        return self._waiter is not None

    @property
    def refused(self) -> bool:
        """Whether it is of no more use: too large, too slow, broken off."""
        return self._error is not None

    def remaining(self) -> int | None:
        """Return how many bytes are still to come; None if the peer has not said."""
        return None if self._length is None else self._length - self.received

    def put(self, part: bytes) -> None:
        """Take what has come."""
        self.received += len(part)
        if self._dropped or self._error is not None:
            return
        if self._limit is not None and self.received > self._limit:
            self.fail(BodyTooLargeError(self._limit))
        else:
            self._parts.append(part)

    def finish(self) -> None:
        """Take note that all has come."""
        self.whole = True
        self._wake()

    def fail(self, error: InputError) -> None:
        """Give the handler `error` instead of a body, now or when it asks."""
        if self._error is None and (self._dropped or not self.whole):
            self._error = error
            self._parts.clear()
        self._wake()

    def drop(self) -> None:
        """Forget what has come and what is still to come: the handler is done."""
        self._dropped = True
        self._parts.clear()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body. See `Request.body`."""
        self._limit = limit_bytes
        if self._dropped:
            self.fail(InputError("the request is answered already"))
        if self._error is None and max(self._length or 0, self.received) > limit_bytes:
            self._error = BodyTooLargeError(limit_bytes)
            self._parts.clear()
        if self._error is None and not self.whole:
            await self._arrival()
        if self._error is not None:
            raise self._error
        if len(self._parts) != 1:
            self._parts = [b"".join(self._parts)]
        return self._parts[0]

    async def _arrival(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            self._flow.body_wanted()
            await self._waiter
        finally:
            self._waiter = None


class Request:
    """One request: what was asked, and by whom. `path` and `query` are as sent, nothing decoded."""

    __slots__ = ("_body", "_headers", "method", "path", "peer", "query", "trail_id")

    def __init__(self, head: Head, peer: Peer, trail_id: str, body: Body) -> None:
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.peer = peer
        self.trail_id = trail_id
        self._headers = head.headers
        self._body = body

    def header(self, name: bytes) -> bytes | None:
        """Return a field's value as sent, the first if there are several. `name` in lower case."""
        return self._headers.get(name)

    async def body(self, limit_bytes: int) -> bytes:
        """Return the whole body, waiting for it. Asking again gives it again.

        No more than `limit_bytes`, and what one read of the connection brought, is ever held.

        Raises:
            BodyTooLargeError: it is announced as larger, or turned out to be, than `limit_bytes`.
                The connection ends after the answer.
            InputError: it came too slowly, was malformed, or the peer went away.
        """
        return await self._body.read(limit_bytes)

    def __repr__(self) -> str:
        return f"<Request {self.trail_id} of {self.peer.id}>"
