"""A live source: one stream from the Workload API, followed for as long as the process lives.

Source: SPIFFE Workload API standard, sections 4 to 6; SPIFFE Workload Endpoint standard. It speaks
with SPIRE's agent and with SPIKE's Authority alike.

Rules: material that is malformed or expired never replaces good material; a broken stream is made
again after a pause that doubles from 0.1 s to 2 s; nothing the other side does ends the source.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path

from grpclib.client import Channel
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from spike.error import IdentityError, SettingError, SpikeError, WorkloadApiError
from spike.spiffe.endpoint import (
    SOCKET_VARIABLE,
    Viewpoint,
    check_endpoint,
    parse_endpoint_untrusted,
)
from spike.spiffe.peer import Peer
from spike.spiffe.response import update_of_untrusted
from spike.spiffe.source import Callback, HeldSource, Unsubscribe
from spike.spiffe.svid import X509Material
from spike.spiffe.workload.workload_grpc import SpiffeWorkloadAPIStub
from spike.spiffe.workload.workload_pb2 import X509SVIDRequest, X509SVIDResponse

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
# At the start a missing socket may be one that is about to be made; longer than this it is missing.
UNREACHABLE_GRACE_S = 2.0
CANCEL_AGAIN_S = 0.1

_HEADER = {"workload.spiffe.io": "true"}
# A call that will be answered the same for ever: waiting does not help at the start.
_HOPELESS = frozenset({Status.INVALID_ARGUMENT, Status.UNIMPLEMENTED})

_log = logging.getLogger(__name__)


class _Patience(Enum):
    """How long to go on asking before there is a first material. Later: for ever."""

    NONE = auto()
    SHORT = auto()  # UNREACHABLE_GRACE_S
    LONG = auto()  # the caller's time-out


def utc_now() -> datetime:
    """Return the present time, aware."""
    return datetime.now(UTC)


class X509Source:
    """The identity of this process, live. Belongs to the event loop it was opened on."""

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        """Use `open`."""
        self._path = path
        self._clock = clock
        self._held: HeldSource | None = None
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._fault: SpikeError | None = None
        self._following: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls, socket: str | None, timeout_s: float, clock: Callable[[], datetime] = utc_now
    ) -> X509Source:
        """Connect and wait for the first good material.

        `socket` is an endpoint such as `unix:///run/spire/agent.sock`; None reads
        SPIFFE_ENDPOINT_SOCKET. A denial is asked again until `timeout_s` has passed, because an
        entry may be on its way; a socket where nobody answers is given up after two seconds.

        Raises:
            SettingError: no endpoint, a malformed one, or one that others could replace.
            WorkloadApiError: denied, malformed or out of reach.
        """
        if socket is None:
            socket = os.environ.get(SOCKET_VARIABLE)
        path = parse_endpoint_untrusted(socket)
        source = cls(path, clock)
        source._following = asyncio.create_task(source._follow(), name="workload-api")
        try:
            async with asyncio.timeout(timeout_s):
                await source._first
        except TimeoutError:
            await source.close()
            silent = WorkloadApiError(
                f"the Workload API at {path} does not answer", "look whether it is running"
            )
            raise source._fault or silent from None
        except BaseException:
            await source.close()
            raise
        return source

    @property
    def material(self) -> X509Material:
        """The newest good material; it stays when the Workload API goes away."""
        return self._opened().material

    def subscribe(self, callback: Callback) -> Unsubscribe:
        """Call back, on the event loop, with each new material from now on."""
        return self._opened().subscribe(callback)

    def still_trusts(self, peer: Peer, now: datetime) -> bool:
        """Tell whether a peer verified earlier would still be trusted now."""
        return self._opened().still_trusts(peer, now)

    async def close(self) -> None:
        """Stop following. The last material stays readable."""
        if self._following is not None:
            # Again and again: in the moment a connection breaks, grpclib takes a cancellation from
            # outside for its own and raises the fault of the connection instead (Wrapper.__exit__).
            while not self._following.done():
                self._following.cancel()
                # Not `await self._following`: its cancellation and our own would look the same.
                await asyncio.wait([self._following], timeout=CANCEL_AGAIN_S)
        if self._first.done() and not self._first.cancelled():
            self._first.exception()  # seen: nobody else will ask for it
        self._first.cancel()

    def _opened(self) -> HeldSource:
        if self._held is None:
            raise WorkloadApiError("the source has no material yet")
        return self._held

    async def _follow(self) -> None:
        """Keep a stream open for ever. Ends only by cancellation, or by failing the first wait."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        unreachable_since: float | None = None
        while True:
            before = self._held.material if self._held else None
            fault, patience = await self._attempt()
            if patience is not _Patience.SHORT:
                unreachable_since = None
            elif unreachable_since is None:
                unreachable_since = loop.time()
            given_up = patience is _Patience.NONE or (
                unreachable_since is not None
                and loop.time() - unreachable_since >= UNREACHABLE_GRACE_S
            )
            if given_up and not self._first.done():
                self._first.set_exception(fault)
                return
            self._note(fault)
            if self._held and self._held.material is not before:
                pause_s = FIRST_PAUSE_S
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _attempt(self) -> tuple[SpikeError, _Patience]:
        """Follow one stream to its end, and say why it ended. Never raises but to be cancelled."""
        try:
            await self._stream()
        except SettingError as error:
            return error, _Patience.NONE
        except Exception as error:  # noqa: BLE001  nothing the other side does ends the source
            return _fault_of(self._path, error)
        return WorkloadApiError(f"the Workload API at {self._path} hung up"), _Patience.LONG

    async def _stream(self) -> None:
        """Take messages until the stream ends.

        Raises:
            SettingError: the socket could be replaced by others.
            Exception: whatever grpclib, protobuf and the kernel have to say.
        """
        check_endpoint(self._path, Viewpoint.of_process())
        channel = Channel(path=str(self._path))
        try:
            stub = SpiffeWorkloadAPIStub(channel)
            async with stub.FetchX509SVID.open(metadata=_HEADER) as stream:
                await stream.send_message(X509SVIDRequest(), end=True)
                async for response in stream:
                    self._take(response)
        finally:
            channel.close()

    def _take(self, response: X509SVIDResponse) -> None:
        try:
            update = update_of_untrusted(response, self._clock())
        except IdentityError as error:
            self._note(
                WorkloadApiError(
                    f"the Workload API at {self._path} sent something unusable: {error.message}",
                    error.next_step or "look at the log of the Workload API",
                )
            )
            return
        for reason in update.left_out:
            _log.warning("left out a federated trust bundle: %s", reason)
        self._fault = None
        svid = update.material.svid
        _log.info("took the SVID of %s, good until %s", svid.id, svid.expires_at)
        if self._held is None:
            self._held = HeldSource(update.material)
        else:
            self._held.replace(update.material)
        if not self._first.done():
            self._first.set_result(None)

    def _note(self, fault: SpikeError) -> None:
        """Log a fault once, however often it comes in a row."""
        if self._fault is None or fault.message != self._fault.message:
            _log.warning("%s", fault.message)
        self._fault = fault


def _fault_of(path: Path, error: Exception) -> tuple[WorkloadApiError, _Patience]:
    """Say what an ended stream means. The other side's own words are not repeated."""
    patience = _Patience.LONG
    next_step = "look at the log of the Workload API"
    match error:
        case FileNotFoundError() | NotADirectoryError() | ConnectionRefusedError():
            patience = _Patience.SHORT
            deserted = isinstance(error, ConnectionRefusedError)
            what = "nobody listens" if deserted else "there is no socket"
            message = f"the Workload API is out of reach: {what} at {path}"
            next_step = f"start `spike dev` or SPIRE's agent, or correct {SOCKET_VARIABLE}"
        case PermissionError():
            patience = _Patience.NONE
            message = f"this user may not connect to the Workload API at {path}"
            next_step = "give the user access to the socket and its directory"
        case GRPCError(status=Status.PERMISSION_DENIED):
            message = f"the Workload API at {path} has no identity for this process"
            next_step = (
                "register an entry for it (SPIRE: `spire-server entry create`), "
                "or start it with `spike-authority run`"
            )
        case GRPCError(status=status):
            if status in _HOPELESS:
                patience = _Patience.NONE
            message = f"the Workload API at {path} refuses the call: {status.name}"
        case _:
            message = f"the stream of the Workload API at {path} broke: {type(error).__name__}"
    fault = WorkloadApiError(message, next_step)
    fault.__cause__ = error
    return fault, patience


def fetch_material(socket: str | None, timeout_s: float) -> X509Material:
    """Fetch the present material and hang up: for a command that makes one call.

    Runs an event loop of its own, so not to be called on one. Raises what `X509Source.open` does.
    """

    async def fetch() -> X509Material:
        source = await X509Source.open(socket, timeout_s)
        await source.close()
        return source.material

    return asyncio.run(fetch())
