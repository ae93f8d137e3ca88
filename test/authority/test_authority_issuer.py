"""What certificates say, and which authority signs at a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from hypothesis import given
from hypothesis import strategies as st

from spike.authority.issuer import (
    BACKDATED,
    CertificateAuthority,
    generate_key,
    generate_serial,
    pkcs8_of,
)
from spike.authority.ring import AuthorityRing
from spike.error import SvidError
from spike.spiffe.id import SpiffeId, TrustDomain
from spike.spiffe.svid import SvidKey, TrustBundle, X509Material, X509Svid, id_of_leaf

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DOMAIN = TrustDomain("example.org")
WEB = SpiffeId(DOMAIN, "/web")
HOUR = timedelta(hours=1)


def make(now: datetime, lifetime: timedelta) -> CertificateAuthority:
    return CertificateAuthority.create(DOMAIN, generate_key(), now, lifetime, generate_serial())


def issue(authority: CertificateAuthority, spiffe_id: SpiffeId = WEB) -> X509Svid:
    return authority.issue(spiffe_id, generate_key().public_key(), NOW, HOUR, generate_serial())


def usage_of(certificate: x509.Certificate) -> set[str]:
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign"
    )
    return {name for name in names.split() if getattr(usage.value, name)}


def test_a_leaf_is_an_svid_for_both_ends_of_a_connection_and_nothing_else() -> None:
    authority = make(NOW, 24 * HOUR)
    (leaf,) = issue(authority).chain
    assert id_of_leaf(leaf) == WEB
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://example.org/web")]
    assert usage_of(leaf) == {"digital_signature"}
    basic = leaf.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert not basic.value.ca
    purposes = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    leaf.verify_directly_issued_by(authority.certificate)
    assert leaf.not_valid_before_utc == NOW - BACKDATED
    assert leaf.not_valid_after_utc == NOW + HOUR


def test_an_authority_signs_leaves_only_and_carries_its_trust_domains_name() -> None:
    certificate = make(NOW, 24 * HOUR).certificate
    basic = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert basic.critical
    assert (basic.value.ca, basic.value.path_length) == (True, 0)
    assert usage_of(certificate) == {"key_cert_sign", "crl_sign"}
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier("spiffe://example.org")]
    assert certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_KEY_IDENTIFIER)
    certificate.verify_directly_issued_by(certificate)


def test_the_shipped_reader_takes_what_is_issued() -> None:
    authority, key = make(NOW, 24 * HOUR), generate_key()
    svid = authority.issue(WEB, key.public_key(), NOW, HOUR, generate_serial())
    bundle = TrustBundle(DOMAIN, (authority.certificate,))
    material = X509Material.assemble(svid, SvidKey(pkcs8_of(key)), bundle, {}, NOW)
    assert material.svid.id == WEB


def test_two_authorities_of_one_domain_have_names_and_serials_of_their_own() -> None:
    first, second = make(NOW, HOUR), make(NOW, HOUR)
    assert first.certificate.subject != second.certificate.subject
    assert first.certificate.serial_number != second.certificate.serial_number
    assert issue(first).chain[0].serial_number != issue(first).chain[0].serial_number


def test_an_svid_never_outlives_its_authority() -> None:
    authority = make(NOW, timedelta(minutes=10))
    assert issue(authority).expires_at == authority.expires_at


@pytest.mark.parametrize(
    ("spiffe_id", "fault"),
    [
        (SpiffeId(TrustDomain("other.org"), "/web"), "not in the trust domain"),
        (SpiffeId(DOMAIN, ""), "names the trust domain"),
    ],
)
def test_no_svid_of_another_domain_or_of_the_domain_itself(spiffe_id: SpiffeId, fault: str) -> None:
    with pytest.raises(SvidError, match=fault):
        issue(make(NOW, HOUR), spiffe_id)


def test_the_longest_trust_domain_can_have_an_authority() -> None:
    domain = TrustDomain("a" * 255)
    created = CertificateAuthority.create(domain, generate_key(), NOW, HOUR, generate_serial())
    assert created.trust_domain == domain


def test_a_printed_authority_shows_no_key() -> None:
    assert "key" not in repr(make(NOW, HOUR)).lower()


def test_the_first_authority_signs_at_once() -> None:
    ring = AuthorityRing.create(NOW, 24 * HOUR, make)
    assert ring.signing(NOW) is ring.authorities[0]
    assert ring.at(NOW + 11 * HOUR, make) is ring


def test_a_successor_is_known_before_it_signs_and_the_old_one_until_it_ends() -> None:
    ring = AuthorityRing.create(NOW, 24 * HOUR, make)
    (old,) = ring.authorities
    assert ring.next_change_at() == NOW + 12 * HOUR
    middle = NOW + 12 * HOUR
    ring = ring.at(middle, make)
    assert ring.authorities[0] is old
    new = ring.authorities[1]
    assert ring.signing(middle) is old
    assert ring.signing(middle + ring.spread) is new
    assert ring.at(NOW + 23 * HOUR, make).authorities == (old, new)
    assert ring.at(NOW + 24 * HOUR, make).authorities[0] is new


@given(st.lists(st.integers(0, 40 * 3600), max_size=12))
def test_whenever_it_is_looked_at_what_signs_is_in_the_bundle_and_lives(steps_s: list[int]) -> None:
    ring, now = AuthorityRing.create(NOW, 24 * HOUR, make), NOW
    for step_s in steps_s:
        now += timedelta(seconds=step_s)
        ring = ring.at(now, make)
        assert ring.signing(now) in ring.authorities
        assert all(each.expires_at > now for each in ring.authorities)
        assert ring.next_change_at() > now


@given(st.lists(st.integers(600, 3600), min_size=20, max_size=60))
def test_looked_at_in_time_no_svid_is_cut_short_and_nobody_is_surprised(steps_s: list[int]) -> None:
    ring, now = AuthorityRing.create(NOW, 24 * HOUR, make), NOW
    for step_s in steps_s:
        now += timedelta(seconds=step_s)
        known, ring = ring, ring.at(now, make)
        signing = ring.signing(now)
        # An SVID lives a quarter of its authority's life at most.
        assert signing.expires_at - now >= 6 * HOUR
        assert signing in known.authorities
