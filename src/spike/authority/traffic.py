"""The Workload API's socket: takes connections, and lets go of all of them at the end."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import Final, cast

from grpclib.config import Configuration
from grpclib.protocol import H2Protocol
from grpclib.server import Server

from spike.authority.admission import Guests, Limit
from spike.authority.connection import CallerConnection
from spike.authority.workload import WorkloadService
from spike.server.trouble import TroubleLog

# Each connection takes two descriptors: the socket and the caller's pidfd.
CONNECTION_LIMIT: Final = Limit(of_user=256, of_all=1024)
# The least HTTP/2 allows: callers have nothing to say (see connection.py).
_WINDOW_BYTES: Final = 65_535


class Traffic:
    """All connections to the Workload API."""

    def __init__(self, service: WorkloadService, limit: Limit = CONNECTION_LIMIT) -> None:
        self._service = service
        self._guests: Guests[CallerConnection] = Guests(limit)
        self._connections: set[CallerConnection] = set()
        # Any user of the machine can cause these lines.
        self._trouble = TroubleLog(logging.getLogger(__name__), time, level=logging.WARNING)

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    @property
    def streams(self) -> int:
        """How many calls are being served now."""
        return self._service.streams.total

    async def open(self, listener: socket.socket) -> asyncio.Server:
        """Take connections from a listening socket until `close`."""
        # Made here: it belongs to the running loop.
        grpc = Server(
            [self._service],
            config=Configuration(
                http2_connection_window_size=_WINDOW_BYTES, http2_stream_window_size=_WINDOW_BYTES
            ),
        )

        def make_inner() -> H2Protocol:
            # grpclib has no public way to reach a connection's socket, which is what attests the
            # caller; so the connection is ours and its protocol theirs.
            return cast("H2Protocol", grpc._protocol_factory())

        return await asyncio.get_running_loop().create_unix_server(
            lambda: CallerConnection(make_inner, self._guests, self._connections, self._trouble),
            sock=listener,
        )

    def close(self) -> None:
        """Hang up on everybody."""
        for connection in tuple(self._connections):
            connection.abort()
