"""Takes connections off the listening socket and brings them through the TLS handshake.

Accepting is our own rather than the event loop's, because there the number of handshakes has no
limit and a machine out of descriptors makes the loop spin.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Final

from spike.server.limit import Clock, Limits
from spike.server.trouble import TroubleLog, place_of

BACKLOG: Final = 1024

_SEND_BUFFER_BYTES: Final = 256 * 1024
# The kernel doubles it. A read that does not fill uvloop's buffer of 256 KiB ends the connection's turn;
# else one that sends as fast as it is read is read up to 32 times in a row: 8 MiB of TLS records,
# seconds in which nobody else is served.
_RECEIVE_BUFFER_BYTES: Final = 64 * 1024

# How many are accepted before other work has its turn.
_AT_ONCE: Final = 16
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. An empty `host` is every address, IPv6 and IPv4.

    Raises:
        OSError: the address cannot be had.
    """
    if host == "" and socket.has_dualstack_ipv6():
        made = socket.create_server(
            ("::", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
    else:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=BACKLOG)
    made.setblocking(False)
    # Each accepted socket has the same. Left to itself the kernel lends a slow reader megabytes.
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    return made


class Listener:
    """Accepts while there are handshakes to spare, and keeps the time of each."""

    def __init__(
        self,
        listening: socket.socket,
        context: ssl.SSLContext,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        *,
        limits: Limits,
        clock: Clock,
        trouble: TroubleLog,
    ) -> None:
        self._socket = listening
        self._context = context
        self._make_protocol = make_protocol
        self._limits = limits
        self._clock = clock
        self._trouble = trouble
        self._loop = asyncio.get_running_loop()
        # In the order of their start; the value is when that was.
        self._handshakes: dict[asyncio.Task[None], float] = {}
        self._accepting = False
        self._rests_until = 0.0
        self._open = True
        self._accept_again()

    @property
    def handshakes(self) -> int:
        """How many have begun and not ended."""
        return len(self._handshakes)

    def check(self, now: float) -> None:
        """Free the slots of handshakes that last too long while others wait; end a rest."""
        if not self._accepting and self._is_full():
            for task, since in list(self._handshakes.items()):
                if now - since <= self._limits.handshake_pressure_s:
                    break
                self._trouble.report("a TLS handshake was too slow while others waited")
                task.cancel()
        if now >= self._rests_until:
            self._accept_again()

    async def close(self) -> None:
        """Stop accepting and break off all handshakes."""
        self._open = False
        self._stop_accepting()
        self._socket.close()
        tasks = list(self._handshakes)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_full(self) -> bool:
        return len(self._handshakes) >= self._limits.max_handshakes

    def _accept_again(self) -> None:
        if self._open and not self._accepting and not self._is_full():
            self._accepting = True
            self._loop.add_reader(self._socket, self._accept)

    def _stop_accepting(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._socket)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            if self._is_full():
                # The kernel's queue holds the others, in order.
                self._stop_accepting()
                return
            try:
                accepted, _address = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._accept_failed(error)
                return
            accepted.setblocking(False)
            task = self._loop.create_task(self._shake_hands(accepted))
            self._handshakes[task] = self._clock.monotonic()
            task.add_done_callback(partial(self._handshake_ended, accepted))

    def _accept_failed(self, error: OSError) -> None:
        if error.errno in _OUT_OF_RESOURCES:
            # The socket stays ready: trying again at once would turn in circles.
            self._trouble.report("accepting rests: %s", error.strerror)
            self._stop_accepting()
            self._rests_until = self._clock.monotonic() + self._limits.accept_rest_s
        # Anything else is the end of one connection before it began (accept(2)).

    async def _shake_hands(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._make_protocol,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=self._limits.handshake_timeout_s,
                ssl_shutdown_timeout=self._limits.linger_s,
            )
        except OSError as error:  # TLS errors and time-outs are OSErrors too
            reason = getattr(error, "reason", None) or error.strerror or str(error)
            self._trouble.report("a TLS handshake failed: %s", reason)

    def _handshake_ended(self, accepted: socket.socket, task: asyncio.Task[None]) -> None:
        del self._handshakes[task]
        if task.cancelled():
            accepted.close()  # it may never have been given to the event loop
        elif (fault := task.exception()) is not None:
            self._trouble.report("a connection was lost to a fault: %s", place_of(fault))
        if self._clock.monotonic() >= self._rests_until:
            self._accept_again()
