"""One connection to the Workload API: who is behind it, and how much it may cost.

The gRPC library speaks the protocol; this stands between it and the transport. It attests the caller
before the first byte is read, and whatever is sent, the process neither dies nor grows:

* a request's content is acknowledged and dropped: no message of a Workload API client says anything,
  and the library would gather up to 4 GiB of one;
* a caller that makes answers without reading them (pings, settings) is hung up on;
* so is one whose bytes confuse the library, which raises whatever it likes then;
* and one that has ended, though the connection may have been handed to another process.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from typing import Final, cast

from grpclib.protocol import H2Protocol
from h2.events import DataReceived

from spike.authority.admission import Guests
from spike.authority.process import Caller, attest
from spike.authority.workload import CALLER
from spike.server.trouble import TroubleLog

# What the library may have written that the caller has not read yet; the largest message with all
# foreign bundles is 1 MiB and held back by HTTP/2's window of 64 KiB.
UNREAD_LIMIT_BYTES: Final = 256 * 1024
# A connection without a call is only kept for a while.
IDLE_LIMIT_S: Final = 60.0


class CallerConnection(asyncio.Protocol):
    """The event loop's side of one connection; `make_inner` makes the library's."""

    def __init__(
        self,
        make_inner: Callable[[], H2Protocol],
        guests: Guests[CallerConnection],
        all_connections: set[CallerConnection],
        trouble: TroubleLog,
    ) -> None:
        self._inner: H2Protocol = make_inner()
        self._guests = guests
        self._all = all_connections
        self._trouble = trouble
        self._context = contextvars.copy_context()
        self._caller: Caller | None = None
        self._transport: asyncio.Transport | None = None
        self._idle: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Attest the caller, or hang up."""
        self._transport = cast("asyncio.Transport", transport)
        caller = self._attested()
        if caller is None:
            self._transport.abort()
            return
        self._caller = caller
        self._all.add(self)
        self._context.run(CALLER.set, caller)
        if caller.process is not None:
            asyncio.get_running_loop().add_reader(caller.process.fileno(), self.abort)
        self._context.run(self._inner.connection_made, transport)
        self._inner.processor.processors[DataReceived] = self._drop_content
        self._watch_idleness()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on to the library."""
        if self._caller is None or self._transport is None:
            return
        try:
            self._context.run(self._inner.data_received, data)
        except Exception as error:  # noqa: BLE001  a caller's bytes can raise anything in there
            self._trouble.report("hung up on pid %d: %s", self._caller.pid, type(error).__name__)
            self.abort()
            return
        if self._transport.get_write_buffer_size() > UNREAD_LIMIT_BYTES:
            self._trouble.report(
                "hung up on pid %d: it does not read its answers", self._caller.pid
            )
            self.abort()

    def pause_writing(self) -> None:
        """Let the library wait."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Let the library go on."""
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        """End every call of this connection and let go of the process."""
        caller, self._caller = self._caller, None
        if caller is None:
            return
        self._all.discard(self)
        self._guests.leave(caller.uid, self)
        if self._idle is not None:
            self._idle.cancel()
        if caller.process is not None:
            asyncio.get_running_loop().remove_reader(caller.process.fileno())
        self._inner.connection_lost(error)
        if caller.process is not None:
            caller.process.close()

    def abort(self) -> None:
        """Hang up at once, whatever is still to be written."""
        if self._caller is not None and self._caller.process is not None:
            # It stays readable for ever: once is enough.
            asyncio.get_running_loop().remove_reader(self._caller.process.fileno())
        if self._transport is not None:
            self._transport.abort()

    def _attested(self) -> Caller | None:
        assert self._transport is not None
        try:
            caller = attest(self._transport.get_extra_info("socket"))
        except OSError as error:
            self._trouble.report("a caller could not be attested: %s", type(error).__name__)
            return None
        leaving = self._guests.admit(caller.uid, self)
        if leaving is self:
            self._trouble.report("uid %d has too many connections", caller.uid)
            if caller.process is not None:
                caller.process.close()
            return None
        if leaving is not None:
            leaving.give_way()
        return caller

    def is_needed(self) -> bool:
        """Tell whether a call is open on this connection."""
        return bool(self._inner.processor.streams)

    def give_way(self) -> None:
        """Hang up for another user's connection: this one's user has the most."""
        if self._caller is not None:
            self._trouble.report(
                "uid %d has the most connections and gives one up", self._caller.uid
            )
        self.abort()

    def _drop_content(self, event: DataReceived) -> None:
        if event.stream_id is not None and event.flow_controlled_length:
            self._inner.connection.ack(event.stream_id, event.flow_controlled_length)

    def _watch_idleness(self) -> None:
        """Look now and then whether a call was open since the last look."""
        started = self._inner.connection.streams_started

        def look() -> None:
            connection = self._inner.connection
            if not self._inner.processor.streams and connection.streams_started == started:
                self.abort()
            else:
                self._watch_idleness()

        self._idle = asyncio.get_running_loop().call_later(IDLE_LIMIT_S, look)
