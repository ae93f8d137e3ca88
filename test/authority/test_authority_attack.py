"""What was tried against Authority from outside and got further than it should have."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from spike.authority.book import PEM_LIMIT_BYTES, Identity, parse_bundle_pem_untrusted
from spike.authority.issuer import CertificateAuthority, generate_key, generate_serial
from spike.authority.office import Issued
from spike.authority.process import attest
from spike.authority.ring import AuthorityRing
from spike.error import FormatError
from spike.spiffe.id import SpiffeId, TrustDomain

DOMAIN = TrustDomain("spike.ist")
START = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIME = timedelta(days=7)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_a_caller_is_not_attested_rather_than_taken_for_its_user() -> None:
    """A caller without a process counts as its user: a Keeper would become the superuser."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        with no_descriptor_left(), pytest.raises(OSError, match="open files"):
            attest(ours)
        caller = attest(ours)
        assert caller.process is not None
        caller.process.close()


@pytest.mark.parametrize(
    "text", ["-----BEGIN CERTIFICATE-----" + " " * 60_000, "-----BEGIN CERTIFICATE-----\n" * 2000]
)
def test_no_bundle_makes_authority_ponder(text: str) -> None:
    assert len(text) <= PEM_LIMIT_BYTES
    began = time.process_time()
    with pytest.raises(FormatError):
        parse_bundle_pem_untrusted(TrustDomain("partner.org"), text)
    assert time.process_time() - began < 1.0


def _make(now: datetime, lifetime: timedelta) -> CertificateAuthority:
    return CertificateAuthority.create(DOMAIN, generate_key(), now, lifetime, generate_serial())


@pytest.mark.parametrize("ahead", [LIFETIME / 2, LIFETIME, timedelta(days=3650)])
def test_a_clock_that_was_ahead_and_is_set_right_leaves_an_authority_that_is_good_now(
    ahead: timedelta,
) -> None:
    ring = AuthorityRing.create(START, LIFETIME, _make)
    ring = ring.at(START + ahead, _make)
    ring = ring.at(START + timedelta(minutes=1), _make)
    now = START + timedelta(minutes=1)
    signing = ring.signing(now)
    assert signing.certificate.not_valid_before_utc <= now < signing.expires_at
    assert all(each.certificate.not_valid_before_utc <= now for each in ring.authorities)
    assert ring.next_change_at() - now <= LIFETIME


def test_an_svid_from_a_time_that_was_taken_back_is_replaced() -> None:
    now = START
    issued = _issued(START)
    assert not issued.is_due(now)
    assert not issued.is_due(now - timedelta(seconds=20))
    assert issued.is_due(now - timedelta(minutes=1))
    assert issued.is_due(issued.renew_at)


def _issued(now: datetime) -> Issued:
    key = generate_key()
    spiffe_id = SpiffeId(DOMAIN, "/web")
    svid = _make(now - timedelta(hours=1), LIFETIME).issue(
        spiffe_id, key.public_key(), now, timedelta(hours=1), generate_serial()
    )
    return Issued(Identity(spiffe_id), svid, b"", now + timedelta(minutes=30))
