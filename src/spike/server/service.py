"""What all connections of one server share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Final, Protocol

from spike.server.admission import Admission, Guest
from spike.server.limit import Clock, Limits
from spike.server.request import Request
from spike.server.response import Response, date_field
from spike.server.trouble import TroubleLog
from spike.spiffe.peer import Peer

READ_BYTES: Final = 64 * 1024

Handler = Callable[[Request], Awaitable[Response]]
Trust = Callable[[Peer, datetime], bool]


class Member(Guest, Protocol):
    """A connection as its server sees it."""

    def check(self, now: float) -> None:
        """Act on whatever has lasted too long, or is no longer trusted."""

    def retire(self) -> None:
        """Close after the answer in progress; at once if there is none."""

    def evict(self) -> None:
        """Close at once, whatever is going on, without waiting for the peer to agree."""

    def cancel(self) -> asyncio.Task[None] | None:
        """Break off the handler and return its task, if one runs."""


@dataclass(slots=True)
class Service:
    """What all connections of one server share."""

    handler: Handler
    trust: Trust
    limits: Limits
    clock: Clock
    trouble: TroubleLog
    admission: Admission[Member]
    trail_prefix: str
    trail_numbers: count[int] = field(default_factory=count)
    # Connections with a running handler, also those that are gone: what has begun is finished.
    answering: set[Member] = field(default_factory=set)
    # What one read of a connection brings; its contents are copied out before the next read.
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(READ_BYTES)))
    date: bytes = b""
    draining: bool = False
    _quiet: asyncio.Event = field(default_factory=asyncio.Event)

    def tick(self) -> None:
        """Set the date of the answers."""
        self.date = date_field(self.clock.time())

    async def quiet(self) -> None:
        """Wait until there is no connection and no handler; only while draining."""
        self.note_end()
        await self._quiet.wait()

    def note_end(self) -> None:
        """Take note that a connection or a handler has ended."""
        if self.draining and not self.answering and not len(self.admission):
            self._quiet.set()

    def still_trusts(self, peer: Peer) -> bool:
        """Tell whether a verified peer is still to be trusted."""
        return self.trust(peer, datetime.fromtimestamp(self.clock.time(), UTC))
