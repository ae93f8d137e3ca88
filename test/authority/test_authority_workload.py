"""The Workload API as a caller sees it: a real Authority process, real gRPC, this process as the caller."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from authority_kit import SUPERUSER, WEB, AuthorityProcess, begin, fetch, stub, svid_of, svid_stream
from spiffe_kit import Ca
from spike.authority.book import pem_of
from spike.client.control import (
    BundleAddRequest,
    BundleList,
    BundleRemoveRequest,
    BundleShowRequest,
    Done,
    EntryAddRequest,
    EntryRemoveRequest,
)
from spike.spiffe.id import TrustDomain
from spike.spiffe.svid import SvidKey, TrustBundle
from spike.spiffe.workload.workload_pb2 import (
    JWTBundlesRequest,
    JWTSVIDRequest,
    ValidateJWTSVIDRequest,
    X509BundlesRequest,
)
from spike.spiffe.workload_source import X509Source

ME = os.geteuid()


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    with AuthorityProcess(tmp_path) as started:
        yield started


async def status_of(stream: Any) -> Status:
    try:
        while await stream.recv_message() is not None:
            pass
        await stream.recv_trailing_metadata()
    except GRPCError as error:
        return error.status
    return Status.OK


async def test_the_user_that_runs_it_gets_the_superuser_role_and_nothing_else(
    authority: AuthorityProcess,
) -> None:
    message = await fetch(authority.socket)
    (svid,) = message.svids
    assert svid.spiffe_id == SUPERUSER
    parsed = svid_of(message)
    assert str(parsed.id) == SUPERUSER
    SvidKey(svid.x509_svid_key).require_fits(parsed.chain[0])
    bundle = TrustBundle.parse_untrusted(TrustDomain("spike.ist"), svid.bundle)
    parsed.chain[0].verify_directly_issued_by(bundle.authorities[0])
    left = parsed.expires_at - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1)
    assert not message.federated_bundles


async def test_each_stream_has_a_key_of_its_own(authority: AuthorityProcess) -> None:
    first, second = await fetch(authority.socket), await fetch(authority.socket)
    assert first.svids[0].x509_svid_key != second.svids[0].x509_svid_key


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"workload.spiffe.io": "false"},
        {"workload.spiffe.io": "True"},
        [("workload.spiffe.io", "true"), ("workload.spiffe.io", "true")],
    ],
)
async def test_a_call_without_the_header_is_an_invalid_argument(
    authority: AuthorityProcess, metadata: Any
) -> None:
    async with svid_stream(authority.socket, metadata) as stream:
        assert await status_of(stream) is Status.INVALID_ARGUMENT


async def test_jwt_calls_are_unimplemented(authority: AuthorityProcess) -> None:
    async with stub(authority.socket) as calls:
        for call, request in (
            (calls.FetchJWTSVID, JWTSVIDRequest(audience=["a"])),
            (calls.FetchJWTBundles, JWTBundlesRequest()),
            (calls.ValidateJWTSVID, ValidateJWTSVIDRequest(audience="a", svid="b")),
        ):
            assert await status_of(await begin(call, request)) is Status.UNIMPLEMENTED
            assert await status_of(await begin(call, request, {})) is Status.INVALID_ARGUMENT


async def test_a_caller_without_an_entry_is_denied_until_there_is_one(
    authority: AuthorityProcess,
) -> None:
    with authority.ask() as control:
        control.call(EntryRemoveRequest(ME, SUPERUSER), Done)
        async with svid_stream(authority.socket) as stream:
            assert await status_of(stream) is Status.PERMISSION_DENIED
        async with stub(authority.socket) as calls:
            stream = await begin(calls.FetchX509Bundles, X509BundlesRequest())
            assert await status_of(stream) is Status.PERMISSION_DENIED
        control.call(EntryAddRequest(ME, WEB), Done)
    assert (await fetch(authority.socket)).svids[0].spiffe_id == WEB


async def test_open_streams_follow_the_entries_at_once_and_end_with_the_last(
    authority: AuthorityProcess,
) -> None:
    with authority.ask() as control:
        async with svid_stream(authority.socket) as stream, asyncio.timeout(5):
            first = await stream.recv_message()
            control.call(EntryAddRequest(ME, WEB, "web"), Done)
            both = await stream.recv_message()
            assert [(each.spiffe_id, each.hint) for each in both.svids] == [
                (SUPERUSER, ""),
                (WEB, "web"),
            ]
            control.call(EntryRemoveRequest(ME, SUPERUSER), Done)
            left = await stream.recv_message()
            assert [each.spiffe_id for each in left.svids] == [WEB]
            assert first.svids[0].bundle == left.svids[0].bundle
            control.call(EntryRemoveRequest(ME, WEB), Done)
            assert await status_of(stream) is Status.PERMISSION_DENIED


async def test_foreign_bundles_reach_every_open_stream_and_leave_it(
    authority: AuthorityProcess,
) -> None:
    foreign = Ca("other.org")
    with authority.ask() as control:
        own = control.call(BundleShowRequest(), BundleList).bundles[0]
        async with (
            asyncio.timeout(5),
            svid_stream(authority.socket) as svids,
            stub(authority.socket) as calls,
        ):
            bundles = await begin(calls.FetchX509Bundles, X509BundlesRequest())
            before, alone = await svids.recv_message(), await bundles.recv_message()
            assert dict(alone.bundles) == {"spiffe://spike.ist": before.svids[0].bundle}
            shown = TrustBundle.parse_untrusted(TrustDomain("spike.ist"), before.svids[0].bundle)
            assert own.pem == pem_of(shown.authorities)

            control.call(BundleAddRequest("other.org", pem_of((foreign.cert,))), Done)
            after, more = await svids.recv_message(), await bundles.recv_message()
            assert dict(after.federated_bundles) == {"spiffe://other.org": foreign.bundle_der}
            assert more.bundles["spiffe://other.org"] == foreign.bundle_der
            # A new bundle is no reason for a new key.
            assert after.svids == before.svids

            control.call(BundleRemoveRequest("other.org"), Done)
            assert not (await svids.recv_message()).federated_bundles
            assert dict((await bundles.recv_message()).bundles) == dict(alone.bundles)


async def test_an_svid_is_renewed_at_half_of_its_life_on_the_same_stream(tmp_path: Path) -> None:
    with AuthorityProcess(tmp_path, "--svid-lifetime", "3s") as authority:
        async with svid_stream(authority.socket) as stream, asyncio.timeout(10):
            messages = [await stream.recv_message() for _ in range(3)]
        svids = [svid_of(each) for each in messages]
        for before, after in itertools.pairwise(svids):
            # The new one comes while the old one lives.
            issued = after.chain[0].not_valid_before_utc + timedelta(seconds=30)
            assert issued < before.expires_at
            assert before.expires_at < after.expires_at
        keys = {each.svids[0].x509_svid_key for each in messages}
        assert len(keys) == 3
        assert len({each.svids[0].bundle for each in messages}) == 1


async def test_a_new_ca_is_announced_before_it_signs_and_no_chain_ever_fails(
    tmp_path: Path,
) -> None:
    options = ("--svid-lifetime", "2s", "--authority-lifetime", "8s")
    with AuthorityProcess(tmp_path, *options) as authority:
        known: list[TrustBundle] = []
        signers: set[x509.Name] = set()
        async with svid_stream(authority.socket) as stream, asyncio.timeout(30):
            while len(signers) < 2:
                message = await stream.recv_message()
                leaf = svid_of(message).chain[0]
                if known:
                    # Whoever still has the bundle of the message before can verify this SVID.
                    assert leaf.issuer in {each.subject for each in known[-1].authorities}
                known.append(
                    TrustBundle.parse_untrusted(TrustDomain("spike.ist"), message.svids[0].bundle)
                )
                assert leaf.issuer in {each.subject for each in known[-1].authorities}
                signers.add(leaf.issuer)
        assert max(len(each.authorities) for each in known) == 2


async def test_our_own_source_follows_it_over_a_restart_to_the_new_ca(
    authority: AuthorityProcess,
) -> None:
    source = await X509Source.open(authority.endpoint, 5)
    try:
        before = source.material
        renewed = asyncio.Event()
        source.subscribe(lambda _: renewed.set())
        authority.end(signal.SIGKILL)
        authority.start()
        async with asyncio.timeout(5):
            await renewed.wait()
        domain = TrustDomain("spike.ist")
        assert source.material.svid.id == before.svid.id
        assert source.material.bundles[domain] != before.bundles[domain]
    finally:
        await source.close()
