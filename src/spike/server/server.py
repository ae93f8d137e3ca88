"""The HTTPS server: a listener, its connections, and the one timer that looks after them."""

from __future__ import annotations

import asyncio
import logging
import resource
import secrets
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from spike.error import SettingError
from spike.server.admission import Admission
from spike.server.connection import Connection
from spike.server.heap import trimmer
from spike.server.limit import Clock, Limits
from spike.server.listener import Listener, listen
from spike.server.service import Handler, Service, Trust
from spike.server.trouble import TroubleLog, place_of

_log = logging.getLogger(__name__)

# Descriptors for everything that is no connection: the store, the log, the Workload API.
_OTHER_DESCRIPTORS: Final = 128


class Server:
    """Serves one handler on one port.

    `ssl_context` is `spike.spiffe.tls.server_context`'s, `trust` its source's `still_trusts`: each
    request asks it again. `port` 0 takes a free one. The handler is called once for each request;
    an `InputError` it raises is answered 400, anything else 500, and a peer's going away never
    cancels it.
    """

    def __init__(
        self,
        handler: Handler,
        ssl_context: ssl.SSLContext,
        host: str,
        port: int,
        *,
        trust: Trust,
        limits: Limits | None = None,
        clock: Clock = time,
    ) -> None:
        self._context = ssl_context
        self._host = host
        self._wanted_port = port
        self._limits = limits or Limits()
        self._clock = clock
        self._trouble = TroubleLog(_log, clock)
        self._service = Service(
            handler,
            trust,
            self._limits,
            clock,
            self._trouble,
            Admission(self._limits.max_connections, self._limits.max_connections_per_identity),
            # Only so that the trail ids of one run differ from another's.
            trail_prefix=f"{secrets.token_hex(4)}-",
        )
        self._listener: Listener | None = None
        self._sweeper: asyncio.Task[None] | None = None
        self._port = 0

    @property
    def port(self) -> int:
        """The port that is listened on, once started."""
        return self._port

    @property
    def connections(self) -> int:
        """How many connections with a known peer are open."""
        return len(self._service.admission)

    async def start(self) -> None:
        """Listen. The soft limit of file descriptors is raised to what the limits need.

        Raises:
            SettingError: the address cannot be had, or there are too few descriptors.
        """
        _reserve_descriptors(
            self._limits.max_connections + self._limits.max_handshakes + _OTHER_DESCRIPTORS
        )
        try:
            listening = listen(self._host, self._wanted_port)
        except OSError as error:
            raise SettingError(
                f"cannot listen on {self._host or 'any address'}, port {self._wanted_port}:"
                f" {error.strerror}",
                "choose another port, or stop what uses this one",
            ) from error
        self._port = listening.getsockname()[1]
        self._service.tick()
        self._listener = Listener(
            listening,
            self._context,
            lambda: Connection(self._service),
            limits=self._limits,
            clock=self._clock,
            trouble=self._trouble,
        )
        self._sweeper = asyncio.create_task(self._sweep())

    async def serve_until(self, stop: asyncio.Event, grace_s: float) -> None:
        """Start, serve until `stop` is set, then drain.

        Raises:
            SettingError: as `start`.
        """
        await self.start()
        try:
            await stop.wait()
        finally:
            await self.drain(grace_s)

    async def drain(self, grace_s: float) -> None:
        """Stop: accept nothing more, close what is idle, let answers in progress end.

        What has not ended after `grace_s` seconds is broken off, handlers included. Calling it
        again, or before `start`, is harmless.
        """
        self._service.draining = True
        if self._listener is not None:
            await self._listener.close()
            self._listener = None
        for connection in self._service.admission.all():
            connection.retire()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._service.quiet()
        for connection in self._service.admission.all():
            connection.evict()
        handlers = [task for each in self._service.answering if (task := each.cancel()) is not None]
        await asyncio.gather(*handlers, return_exceptions=True)
        if self._sweeper is not None:
            self._sweeper.cancel()
            await asyncio.gather(self._sweeper, return_exceptions=True)
            self._sweeper = None

    async def _sweep(self) -> None:
        trim = trimmer()
        trimmed = self._clock.monotonic()
        while True:
            await asyncio.sleep(self._limits.sweep_interval_s)
            self._service.tick()
            now = self._clock.monotonic()
            if now - trimmed >= self._limits.trim_interval_s:
                trim()
                trimmed = now
            checks: list[Callable[[float], None]] = [
                each.check for each in self._service.admission.all()
            ]
            if self._listener is not None:
                checks.append(self._listener.check)
            for check in checks:
                try:
                    check(now)
                except Exception as error:  # noqa: BLE001  a fault with one must not spare the others
                    _log.error("a fault in the sweep, %s", place_of(error))


def _reserve_descriptors(needed: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SettingError(
            f"this process may have {hard} open files; its connections need {needed}",
            "raise the limit (ulimit -Hn, or LimitNOFILE= of the service), or allow fewer",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
