"""The Workload API's calls. Source: SPIFFE Workload API standard, sections 4 to 6.

The request messages have no fields that matter here, so they are not read at all: the connection drops
a request's content as it comes (see connection.py), and no caller can make it grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final

from google.protobuf.message import Message
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from spike.authority.admission import Admission, Limit
from spike.authority.book import Identity, bundle_der
from spike.authority.office import Denied, Issued, Office
from spike.authority.process import Caller
from spike.error import SpikeError
from spike.spiffe.workload import workload_pb2 as pb

# Set by the connection for everything that runs on its behalf.
CALLER: ContextVar[Caller] = ContextVar("CALLER")

STREAM_LIMIT: Final = Limit(of_user=512, of_all=2048)
# A caller that takes no message for so long is hung up on.
SEND_TIMEOUT_S: Final = 30.0
# However long nothing is due: the machine may have slept, or its clock been set.
LONGEST_WAIT_S: Final = 30.0
# A renewal a little late harms nobody; a loop that never rests would.
_SHORTEST_WAIT_S: Final = 0.05

_HEADER: Final = "workload.spiffe.io"
_SERVICE: Final = "/SpiffeWorkloadAPI/"

_log = logging.getLogger(__name__)


class WorkloadService:
    """Answers callers from the office's knowledge."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self.streams = Admission(STREAM_LIMIT)

    def __mapping__(self) -> dict[str, Handler]:
        """Return the calls by their gRPC path."""
        streaming, unary = Cardinality.UNARY_STREAM, Cardinality.UNARY_UNARY
        missing = self._unimplemented
        calls = (
            ("FetchX509SVID", self._fetch_svid, streaming, pb.X509SVIDRequest, pb.X509SVIDResponse),
            (
                "FetchX509Bundles",
                self._fetch_bundles,
                streaming,
                pb.X509BundlesRequest,
                pb.X509BundlesResponse,
            ),
            ("FetchJWTSVID", missing, unary, pb.JWTSVIDRequest, pb.JWTSVIDResponse),
            ("FetchJWTBundles", missing, streaming, pb.JWTBundlesRequest, pb.JWTBundlesResponse),
            (
                "ValidateJWTSVID",
                missing,
                unary,
                pb.ValidateJWTSVIDRequest,
                pb.ValidateJWTSVIDResponse,
            ),
        )
        return {
            _SERVICE + name: Handler(call, cardinality, request, response)
            for name, call, cardinality, request, response in calls
        }

    async def _fetch_svid(self, stream: Stream[Any, Any]) -> None:
        with self._admitted(stream) as caller:
            held: tuple[Issued, ...] = ()
            sent: pb.X509SVIDResponse | None = None
            while True:
                change = self._office.next_change()
                identities = self._identities_of(caller)
                now = self._office.now()
                if tuple(each.identity for each in held) != identities or any(
                    each.is_due(now) for each in held
                ):
                    held = tuple(self._office.issue(each) for each in identities)
                    _log_issue(caller, held)
                response = self._svid_response(held)
                if response != sent:
                    await self._send(stream, caller, response)
                    sent = response
                    continue
                await self._wait(change, min(each.renew_at for each in held))

    async def _fetch_bundles(self, stream: Stream[Any, Any]) -> None:
        with self._admitted(stream) as caller:
            sent: pb.X509BundlesResponse | None = None
            while True:
                change = self._office.next_change()
                self._identities_of(caller)
                own = f"spiffe://{self._office.book.trust_domain}"
                response = pb.X509BundlesResponse(
                    bundles={own: self._own_bundle(), **self._foreign_bundles()}
                )
                if response != sent:
                    await self._send(stream, caller, response)
                    sent = response
                    continue
                await self._wait(change, None)

    async def _unimplemented(self, stream: Stream[Any, Any]) -> None:
        with self._admitted(stream):
            raise GRPCError(Status.UNIMPLEMENTED, "this Workload API issues X.509-SVIDs only")

    @contextlib.contextmanager
    def _admitted(self, stream: Stream[Any, Any]) -> Iterator[Caller]:
        """Let a call in, and turn whatever goes wrong in it into a gRPC status."""
        caller = CALLER.get()
        # Workload Endpoint standard, section 6: a browser or a naive proxy cannot set this header.
        if stream.metadata is None or stream.metadata.getall(_HEADER, []) != ["true"]:
            raise GRPCError(Status.INVALID_ARGUMENT, f"the header {_HEADER}: true is missing")
        with self.streams.place(caller.uid) as entered:
            if not entered:
                raise GRPCError(Status.RESOURCE_EXHAUSTED, "too many streams are open")
            try:
                yield caller
            except SpikeError as error:
                _log.warning("a call of pid %d failed: %s", caller.pid, error.message)
                raise GRPCError(Status.INTERNAL, "the Workload API failed") from error

    def _identities_of(self, caller: Caller) -> tuple[Identity, ...]:
        entitlement = self._office.entitlement_of(caller)
        if isinstance(entitlement, Denied):
            _log.info("denied pid %d of uid %d: %s", caller.pid, caller.uid, entitlement.reason)
            raise GRPCError(Status.PERMISSION_DENIED, entitlement.reason)
        return entitlement.identities

    def _svid_response(self, held: tuple[Issued, ...]) -> pb.X509SVIDResponse:
        own = self._own_bundle()
        return pb.X509SVIDResponse(
            svids=[
                pb.X509SVID(
                    spiffe_id=str(each.identity.id),
                    x509_svid=bundle_der(each.svid.chain),
                    x509_svid_key=each.key_der,
                    bundle=own,
                    hint=each.identity.hint,
                )
                for each in held
            ],
            federated_bundles=self._foreign_bundles(),
        )

    def _own_bundle(self) -> bytes:
        return bundle_der(tuple(each.certificate for each in self._office.authorities))

    def _foreign_bundles(self) -> dict[str, bytes]:
        bundles = self._office.book.bundles
        return {f"spiffe://{each.trust_domain}": bundle_der(each.authorities) for each in bundles}

    async def _send(self, stream: Stream[Any, Any], caller: Caller, response: Message) -> None:
        """Send a message; a caller that loses its right while it is slow to read does not get the rest."""
        sending = asyncio.ensure_future(stream.send_message(response))
        sending.add_done_callback(_look_at_outcome)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                while not sending.done():
                    change = asyncio.ensure_future(self._office.next_change().wait())
                    try:
                        await asyncio.wait((sending, change), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        change.cancel()
                    if not sending.done():
                        self._identities_of(caller)
            await sending
        except TimeoutError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "the caller reads too slowly") from None
        finally:
            sending.cancel()

    async def _wait(self, change: asyncio.Event, until: datetime | None) -> None:
        """Wait for a change, but not beyond `until`."""
        left_s = LONGEST_WAIT_S
        if until is not None:
            left_s = min(left_s, (until - self._office.now()).total_seconds())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(left_s, _SHORTEST_WAIT_S)):
                await change.wait()


def _log_issue(caller: Caller, held: tuple[Issued, ...]) -> None:
    for each in held:
        _log.info(
            "issued %s to pid %d of uid %d, good until %s",
            each.identity.id,
            caller.pid,
            caller.uid,
            f"{each.svid.expires_at:%FT%TZ}",
        )


def _look_at_outcome(sending: asyncio.Future[None]) -> None:
    # When the stream ends first, nobody else looks, and asyncio would complain about that.
    if not sending.cancelled():
        sending.exception()
