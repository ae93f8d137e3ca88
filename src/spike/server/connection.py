"""One connection of one peer, from the end of its handshake to its close.

    IDLE ─first byte→ HEAD ─head→ BODY ─body whole→ ANSWER ─answer→ WRITE ─written→ IDLE
                        │           └──── answered before the body came ──→ WRITE → DISCARD → IDLE
                        └─ no request, too slow → WRITE (400) → CLOSING

A handler starts when the head is there and is never cancelled by what a peer does: a change that
has begun is finished even if nobody hears the answer. While it waits for the body (BODY) and in all
other states but ANSWER the peer is what is waited for, and `check` keeps the time.

One request at a time. A second one before the first is answered is refused in the way that
RFC 9112, section 9.3.2 foresees: the first is answered with `Connection: close`.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Final, cast

from spike.error import InputError, SvidError
from spike.server.framing import FramingError, Head, PipelineError, RequestFraming
from spike.server.limit import is_overdue
from spike.server.request import Body, Request
from spike.server.response import (
    BAD_REQUEST,
    CONTINUE,
    INTERNAL_ERROR,
    Response,
    encode_head,
)
from spike.server.service import Service
from spike.server.trouble import place_of
from spike.spiffe.peer import Peer
from spike.spiffe.tls import peer_of

_log = logging.getLogger(__name__)

# Answers go out in pieces of this size, each when the one before has left: what a slow reader does
# not take stays one object, and its progress can be seen.
_PIECE_BYTES: Final = 64 * 1024
# A body that nobody has asked for yet is taken up to here, then the peer has to wait.
_UNASKED_BYTES: Final = 64 * 1024
# What may wait to be sent while no answer is in progress.
_UNREAD_BYTES: Final = 64 * 1024


class Phase(Enum):
    """Where a connection stands; see the module."""

    IDLE = "idle"
    HEAD = "head"
    BODY = "body"
    ANSWER = "answer"
    WRITE = "write"
    DISCARD = "discard"
    CLOSING = "closing"


class Connection(asyncio.BufferedProtocol):
    """Reads requests, runs the handler, writes answers; one at a time."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._limits = service.limits
        self._framing = RequestFraming(self, service.limits.max_head_bytes)
        self._phase = Phase.CLOSING  # until there is a peer
        self._since = 0.0
        self._made = 0.0
        self._last = False  # the answer in progress is the last one
        self._head: Head | None = None
        self._body: Body | None = None
        self._peer: Peer | None = None
        self._task: asyncio.Task[None] | None = None
        self._reading = True
        self._can_write = True
        self._unsent = memoryview(b"")
        self._sent_bytes = 0

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Learn who the peer is; it may have to leave at once, or another for it."""
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        try:
            self._peer = peer = peer_of(transport.get_extra_info("ssl_object"))
        except SvidError as error:
            self._service.trouble.report("a connection without a verified peer: %s", error.message)
            self._transport.abort()
            return
        # Any byte that has not left pauses writing, and an empty buffer lets it go on.
        self._transport.set_write_buffer_limits(high=1, low=0)
        self._phase = Phase.IDLE
        self._made = self._since = self._service.clock.monotonic()
        for leaving in self._service.admission.admit(peer.id, self):
            leaving.evict()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell a handler that still waits for the body."""
        del exc
        if self._peer is not None:
            self._service.admission.leave(self._peer.id, self)
            self._service.note_end()
        self._phase = Phase.CLOSING
        self._unsent = memoryview(b"")
        # Without cycles, all that this connection held is free as soon as its handler has ended.
        self._framing.close()
        if self._body is not None:
            self._body.fail(InputError("the peer went away before its request was whole"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Lend the buffer all connections share: it is filled and read in one step of the loop.

        Without a buffer of ours, uvloop makes an object of 256 KiB for each read.
        """
        del sizehint
        return self._service.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Read what the peer sends, unless it has nothing more to say here."""
        if self._phase is Phase.IDLE:
            self._phase = Phase.HEAD
            self._since = self._service.clock.monotonic()
        elif self._phase is Phase.CLOSING:
            return
        try:
            self._framing.feed_untrusted(self._service.buffer[:nbytes])
        except PipelineError:
            self._last = True
            self._pause()
        except FramingError as error:
            self._misframed(error)

    def eof_received(self) -> bool:
        """Close: over TLS there is no half-closed connection."""
        return False

    def pause_writing(self) -> None:
        """Hold back what is not sent yet."""
        self._can_write = False

    def resume_writing(self) -> None:
        """Go on."""
        self._can_write = True
        if self._phase is Phase.WRITE:
            self._write_on()

    # Called by the framing.

    def request_began(self) -> None:
        """Refuse a request while another is in work."""
        if self._phase is not Phase.HEAD:
            if self._phase is Phase.IDLE:  # it came in the same read as the end of a dropped body
                self._phase = Phase.HEAD
                self._since = self._service.clock.monotonic()
            else:
                raise PipelineError("a request before the answer to the last one")

    def head_came(self, head: Head) -> None:
        """Start the handler, if the peer is still whom it was verified to be."""
        service = self._service
        peer = self._peer
        if peer is None or not service.still_trusts(peer):
            # Nothing is answered: the peer has to come back with an identity that is valid now.
            self._report("its SVID has expired or lost its root")
            self._close()
            raise FramingError("the peer is no longer trusted")
        self._head = head
        self._body = body = Body(head.length, self)
        self._phase = Phase.BODY
        trail_id = f"{service.trail_prefix}{next(service.trail_numbers):08x}"
        request = Request(head, peer, trail_id, body)
        service.answering.add(self)
        self._task = self._loop.create_task(self._answer(request))

    def body_came(self, part: bytes) -> None:
        """Give it to the handler, or count what nobody wants."""
        body = self._body
        if body is None:
            return
        body.put(part)
        if self._phase is Phase.DISCARD:
            if body.received > self._discard_limit:
                self._close()
        elif body.received > _UNASKED_BYTES and not body.awaited:
            self._pause()

    def request_ended(self) -> None:
        """Note that it is the handler's turn, or the next request's."""
        if self._body is not None:
            self._body.finish()
        if self._phase is Phase.BODY:
            self._phase = Phase.ANSWER
        elif self._phase is Phase.DISCARD:
            self._rest()

    # Called by the body.

    def body_wanted(self) -> None:
        """Let the body come, and start to count the time it takes."""
        self._since = self._service.clock.monotonic()
        if self._head is not None and self._head.awaits_continue and not self._body_started():
            self._head = self._head._replace(awaits_continue=False)
            self._transport.write(CONTINUE)
        self._resume()

    # Called by the server.

    def claim(self) -> tuple[int, float] | None:
        """Return how much there is to stay for; see `Guest`."""
        if self._phase in (Phase.IDLE, Phase.CLOSING):
            return (0, self._since)
        if self._phase is Phase.ANSWER or (self._phase is Phase.BODY and not self._awaits_body()):
            return None
        return (1, self._since)

    def evict(self) -> None:
        """Close at once, whatever is going on, without waiting for the peer to agree."""
        self._phase = Phase.CLOSING
        self._transport.abort()

    def cancel(self) -> asyncio.Task[None] | None:
        """Break off the handler and return its task, if one runs: the end of a drain, only then."""
        if self._task is not None:
            self._task.cancel()
        return self._task

    def retire(self) -> None:
        """Close after the answer in progress; at once if there is none."""
        self._last = True
        if self._phase is Phase.IDLE:
            self._close()

    def check(self, now: float) -> None:
        """Act on whatever has lasted too long, or is no longer trusted."""
        lasted = now - self._since
        match self._phase:
            case phase if phase not in (Phase.WRITE, Phase.CLOSING) and self._leaves_unread():
                self._report("it does not read what TLS itself answers")
                self.evict()
            case Phase.IDLE:
                waits_too_long = lasted > self._limits.idle_timeout_s
                if waits_too_long or self._is_old(now) or not self._is_trusted():
                    self._close()
            case Phase.HEAD:
                if lasted > self._limits.head_timeout_s:
                    self._misframed(FramingError("the head of a request came too slowly"))
            case Phase.BODY:
                if self._awaits_body() and self._is_slow(self._body_bytes(), now):
                    self._misframed(FramingError("the body of a request came too slowly"))
            case Phase.DISCARD:
                if self._is_slow(self._body_bytes(), now):
                    self._close()
            case Phase.WRITE:
                if self._is_slow(self._sent_bytes, now):
                    self._report("it took its answer too slowly")
                    self.evict()
            case Phase.ANSWER | Phase.CLOSING:
                pass  # ours to finish; the transport's own time limit

    # The answer.

    async def _answer(self, request: Request) -> None:
        try:
            response = await self._service.handler(request)
            self._respond(response)
        except InputError as error:
            _log.debug("%s: %s", request.trail_id, error.message)
            self._respond(BAD_REQUEST)
        except Exception as error:  # noqa: BLE001  whatever a handler raises, the server lives
            # The kind of the fault and where it happened; never its message, which may hold values.
            _log.error("%s: a fault of ours, %s", request.trail_id, place_of(error))
            self._respond(INTERNAL_ERROR)
        finally:
            self._task = None
            if self._phase is Phase.CLOSING:
                self._head = self._body = None
            self._service.answering.discard(self)
            self._service.note_end()

    def _respond(self, response: Response) -> None:
        if self._phase is Phase.CLOSING:
            return
        head = self._head
        now = self._service.clock.monotonic()
        if response.close or head is None or not head.keep_alive or self._is_old(now):
            self._last = True
        body = self._body
        if body is not None:
            if body.refused or (not body.whole and not self._is_worth_discarding(body)):
                self._last = True
            body.drop()
        data = encode_head(response, self._service.date, self._last)
        if head is None or head.method != "HEAD":
            data += response.body
        self._phase = Phase.WRITE
        self._since = now
        self._sent_bytes = 0
        if len(data) <= _PIECE_BYTES:
            self._transport.write(data)
        else:
            self._unsent = memoryview(data)
        self._write_on()

    def _write_on(self) -> None:
        while self._can_write and self._unsent:
            self._transport.write(self._unsent[:_PIECE_BYTES])
            self._sent_bytes += min(_PIECE_BYTES, len(self._unsent))
            self._unsent = self._unsent[_PIECE_BYTES:]
        if not self._can_write:
            return
        if self._last:
            self._close()
        elif self._body is None or self._body.whole:
            self._rest()
        else:
            self._phase = Phase.DISCARD
            self._discard_limit = self._body.received + self._limits.max_discard_bytes
            self._since = self._service.clock.monotonic()
            self._resume()

    def _rest(self) -> None:
        """Wait for the next request."""
        self._head = self._body = None
        self._phase = Phase.IDLE
        self._since = self._service.clock.monotonic()
        if self._last:
            self._close()
        else:
            self._resume()

    def _misframed(self, error: FramingError) -> None:
        """End the connection: with an answer where one is still possible."""
        self._last = True
        match self._phase:
            case Phase.HEAD:
                self._report(error.message)
                self._respond(BAD_REQUEST)
            case Phase.BODY:
                self._report(error.message)
                if self._body is not None:
                    self._body.fail(error)
            case Phase.DISCARD:
                self._close()
            case Phase.IDLE | Phase.ANSWER | Phase.WRITE:
                self._pause()
            case Phase.CLOSING:
                pass

    def _close(self) -> None:
        """Say goodbye; what still comes is dropped by the transport for `linger_s`."""
        self._phase = Phase.CLOSING
        self._resume()
        self._transport.close()

    def _report(self, message: str) -> None:
        if self._peer is not None:
            self._service.trouble.report("%s: %s", self._peer.id, message)

    # Small questions.

    def _is_trusted(self) -> bool:
        return self._peer is not None and self._service.still_trusts(self._peer)

    def _is_old(self, now: float) -> bool:
        return self._service.draining or now - self._made > self._limits.max_age_s

    def _is_slow(self, moved_bytes: int, now: float) -> bool:
        return is_overdue(self._limits, self._since, moved_bytes, now)

    def _leaves_unread(self) -> bool:
        """Tell whether TLS's own answers, to KeyUpdates, pile up because the peer never reads."""
        return self._transport.get_write_buffer_size() > _UNREAD_BYTES

    def _is_worth_discarding(self, body: Body) -> bool:
        if self._head is not None and self._head.awaits_continue:
            return False
        remaining = body.remaining()
        return remaining is None or remaining <= self._limits.max_discard_bytes

    def _awaits_body(self) -> bool:
        return self._body is not None and self._body.awaited

    def _body_bytes(self) -> int:
        return 0 if self._body is None else self._body.received

    def _body_started(self) -> bool:
        return self._body_bytes() > 0

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _resume(self) -> None:
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
