"""An X.509-SVID is taken only if the standard allows it, and material only if its parts fit."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from spiffe_kit import Ca, Issued, der, material, response, utc_now
from spike.error import IdentityError, SvidError
from spike.spiffe.certificate import BUNDLE_LIMIT_BYTES, parse_certificates_untrusted
from spike.spiffe.id import SpiffeId, TrustDomain
from spike.spiffe.peer import Peer, still_trusts
from spike.spiffe.response import update_of_untrusted
from spike.spiffe.svid import TrustBundle, X509Svid
from spike.spiffe.workload.workload_pb2 import X509SVIDResponse

WEB = "spiffe://example.org/web"
DOMAIN = TrustDomain("example.org")


@pytest.fixture(scope="module")
def ca() -> Ca:
    return Ca("example.org")


@pytest.fixture(scope="module")
def issued(ca: Ca) -> Issued:
    return ca.svid(WEB)


def test_a_good_svid_is_read_with_its_id_and_its_end(issued: Issued) -> None:
    svid = X509Svid.parse_untrusted(issued.chain_der)
    assert str(svid.id) == WEB
    assert svid.expires_at == issued.chain[0].not_valid_after_utc
    assert svid.chain == issued.chain


def test_an_svid_may_carry_intermediates_and_names_of_other_kinds(ca: Ca) -> None:
    issued = ca.intermediate().intermediate().svid(WEB, dns=["web.example.org"])
    assert len(X509Svid.parse_untrusted(issued.chain_der).chain) == 3


def test_an_svid_need_not_limit_its_purposes(ca: Ca) -> None:
    assert X509Svid.parse_untrusted(ca.svid(WEB, purposes=()).chain_der).id.path == "/web"


DEFECTS: dict[str, dict[str, Any]] = {
    "no URI": {"uris": []},
    "no URI but a DNS name": {"uris": [], "dns": ["example.org"]},
    "two URIs": {"uris": [WEB, "spiffe://example.org/other"]},
    "the same URI twice": {"uris": [WEB, WEB]},
    "a SPIFFE ID and a web address": {"uris": [WEB, "https://example.org/"]},
    "a URI that is no SPIFFE ID": {"uris": ["https://example.org/web"]},
    "a SPIFFE ID with a newline": {"uris": [WEB + "\n"]},
    "a SPIFFE ID with percent-encoding": {"uris": ["spiffe://example.org/%77eb"]},
    "the trust domain itself": {"uris": ["spiffe://example.org"]},
    "a CA certificate": {"ca": True},
    "allowed to sign certificates": {"key_cert_sign": True},
    "allowed to sign revocation lists": {"crl_sign": True},
    "not allowed to sign data": {"digital_signature": False},
    "no key usage": {"key_usage": False},
}


@pytest.mark.parametrize("name", DEFECTS)
def test_an_svid_with_a_defect_is_refused(ca: Ca, name: str) -> None:
    with pytest.raises(IdentityError):
        X509Svid.parse_untrusted(ca.svid(WEB, **DEFECTS[name]).chain_der)


def test_a_chain_whose_second_certificate_is_no_ca_is_refused(ca: Ca, issued: Issued) -> None:
    with pytest.raises(SvidError, match="no CA"):
        X509Svid.parse_untrusted(issued.chain_der + ca.svid(WEB).chain_der)


MANGLED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda _: b"",
    "cut at the end": lambda whole: whole[:-1],
    "cut in the header": lambda whole: whole[:3],
    "a byte behind": lambda whole: whole + b"\0",
    "a byte before": lambda whole: b"\0" + whole,
    "a newline behind": lambda whole: whole + b"\n",
    "indefinite length": lambda whole: b"\x30\x80" + whole[4:] + b"\0\0",
    "an empty sequence behind": lambda whole: whole + b"\x30\x00",
    "a length of 4 GiB": lambda whole: whole + b"\x30\x84\xff\xff\xff\xff",
    "PEM": lambda _: b"-----BEGIN CERTIFICATE-----\n",
    "too large": lambda whole: whole * (64 * 1024 // len(whole) + 1),
}


@pytest.mark.parametrize("name", MANGLED)
def test_a_mangled_chain_is_refused(issued: Issued, name: str) -> None:
    with pytest.raises(SvidError):
        X509Svid.parse_untrusted(MANGLED[name](issued.chain_der))


@pytest.mark.parametrize(
    "make",
    [
        lambda _: b"",
        lambda ca: ca.svid(WEB).chain_der,
        lambda ca: ca.bundle_der + ca.svid(WEB).chain_der,
        lambda ca: ca.bundle_der + b"\0",
        lambda ca: ca.bundle_der * (BUNDLE_LIMIT_BYTES // len(ca.bundle_der) + 1),
    ],
    ids=["empty", "a workload's", "one workload's among", "a byte behind", "too large"],
)
def test_a_bundle_that_is_not_made_of_authorities_is_refused(ca: Ca, make: Any) -> None:
    with pytest.raises(SvidError):
        TrustBundle.parse_untrusted(DOMAIN, make(ca))


@given(data=st.data())
def test_a_list_of_certificates_comes_back_as_the_same_bytes(ca: Ca, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 4))
    whole = der([ca.cert] * count)
    certificates = parse_certificates_untrusted(whole, BUNDLE_LIMIT_BYTES)
    assert b"".join(each.public_bytes(Encoding.DER) for each in certificates) == whole


@given(st.binary(max_size=200), st.integers(0, 700), st.integers(0, 700))
def test_a_damaged_chain_gives_the_documented_error_or_the_same_bytes(
    issued: Issued, noise: bytes, start: int, end: int
) -> None:
    damaged = issued.chain_der[:start] + noise + issued.chain_der[end:]
    try:
        svid = X509Svid.parse_untrusted(damaged)
    except IdentityError:
        return
    assert der(svid.chain) == damaged


# ---- material --------------------------------------------------------------------------------


def test_an_expired_svid_makes_no_material(ca: Ca) -> None:
    with pytest.raises(SvidError, match="expired"):
        material(ca.svid(WEB, lifetime=timedelta(seconds=-1)), ca)


def test_an_svid_of_the_future_makes_no_material_and_the_clock_is_named(ca: Ca) -> None:
    with pytest.raises(SvidError, match="not valid before") as caught:
        material(ca.svid(WEB, starts=timedelta(minutes=30)), ca)
    assert "clock" in caught.value.next_step


def test_an_svid_ends_at_its_last_second_exactly(issued: Issued) -> None:
    svid = X509Svid.parse_untrusted(issued.chain_der)
    svid.require_valid_at(svid.expires_at - timedelta(microseconds=1))
    with pytest.raises(SvidError):
        svid.require_valid_at(svid.expires_at)


@pytest.mark.parametrize("key", [b"", b"no key", b"\x30\x00"])
def test_a_key_that_is_none_makes_no_material(ca: Ca, issued: Issued, key: bytes) -> None:
    with pytest.raises(SvidError, match="private key"):
        material(Issued(issued.chain, key), ca)


def test_another_certificates_key_makes_no_material(ca: Ca, issued: Issued) -> None:
    with pytest.raises(SvidError, match="does not belong"):
        material(Issued(issued.chain, ca.svid(WEB).key_der), ca)


def test_another_domains_bundle_makes_no_material(issued: Issued) -> None:
    with pytest.raises(SvidError, match="came with"):
        material(issued, Ca("other.org"))


def test_where_the_own_domain_is_federated_too_the_own_bundle_wins(ca: Ca, issued: Issued) -> None:
    impostor = Ca("example.org")
    assert material(issued, ca, impostor).bundles[DOMAIN] == ca.bundle


def test_the_private_key_is_neither_shown_nor_pickled(ca: Ca, issued: Issued) -> None:
    whole = material(issued, ca)
    assert "private_key" not in repr(whole)
    assert repr(whole.private_key) == "SvidKey(…)"
    with pytest.raises(TypeError):
        pickle.dumps(whole.private_key)


def test_the_bundles_of_a_material_cannot_be_changed(ca: Ca, issued: Issued) -> None:
    bundles: Any = material(issued, ca).bundles
    with pytest.raises(TypeError):
        bundles[DOMAIN] = Ca("example.org").bundle


# ---- a kept peer -----------------------------------------------------------------------------


def _peer(ca: Ca, not_after: datetime) -> Peer:
    (root,) = ca.bundle.fingerprints
    return Peer(SpiffeId.parse_untrusted(WEB), not_after, root)


def test_a_kept_peer_is_trusted_until_its_end_and_no_longer(ca: Ca, issued: Issued) -> None:
    end = datetime(2030, 1, 1, tzinfo=UTC)
    own, peer = material(issued, ca), _peer(ca, end)
    assert still_trusts(own, peer, end - timedelta(microseconds=1))
    assert not still_trusts(own, peer, end)


def test_a_kept_peer_is_not_trusted_once_its_root_has_left_its_domains_bundle(ca: Ca) -> None:
    new = Ca("example.org")
    peer = _peer(ca, utc_now() + timedelta(hours=1))
    both = TrustBundle.parse_untrusted(DOMAIN, ca.bundle_der + new.bundle_der)
    assert still_trusts(material(new.svid(WEB), both), peer, utc_now())
    assert not still_trusts(material(new.svid(WEB), new), peer, utc_now())


def test_a_root_that_only_another_domain_keeps_does_not_vouch_for_a_kept_peer(ca: Ca) -> None:
    new = Ca("example.org")
    elsewhere = TrustBundle.parse_untrusted(TrustDomain("other.org"), ca.bundle_der)
    peer = _peer(ca, utc_now() + timedelta(hours=1))
    assert not still_trusts(material(new.svid(WEB), new, elsewhere), peer, utc_now())


# ---- messages of the Workload API ------------------------------------------------------------


def test_a_message_gives_the_same_material_as_its_parts(ca: Ca, issued: Issued) -> None:
    other = Ca("other.org")
    update = update_of_untrusted(response(issued, WEB, ca, other), utc_now())
    assert update.left_out == ()
    assert str(update.material.svid.id) == WEB
    assert set(update.material.bundles) == {"example.org", "other.org"}


def test_of_several_svids_the_first_is_taken(ca: Ca, issued: Issued) -> None:
    message = response(issued, WEB, ca)
    second = "spiffe://example.org/second"
    message.svids.extend(response(ca.svid(second), second, ca).svids)
    assert str(update_of_untrusted(message, utc_now()).material.svid.id) == WEB


def test_a_malformed_foreign_bundle_is_left_out_and_takes_nothing_with_it(
    ca: Ca, issued: Issued
) -> None:
    message = response(issued, WEB, ca, Ca("good.org"))
    message.federated_bundles["spiffe://broken.org"] = b"\x30\x03abc"
    message.federated_bundles["spiffe://empty.org"] = b""
    message.federated_bundles["Not A Domain"] = ca.bundle_der
    update = update_of_untrusted(message, utc_now())
    assert set(update.material.bundles) == {"example.org", "good.org"}
    assert len(update.left_out) == 3


def _without_svid(message: X509SVIDResponse) -> None:
    del message.svids[:]


def _with_another_id(message: X509SVIDResponse) -> None:
    message.svids[0].spiffe_id = "spiffe://example.org/superuser"


def _with_no_id(message: X509SVIDResponse) -> None:
    message.svids[0].spiffe_id = ""


def _with_no_bundle(message: X509SVIDResponse) -> None:
    message.svids[0].bundle = b""


def _with_a_cut_chain(message: X509SVIDResponse) -> None:
    message.svids[0].x509_svid = message.svids[0].x509_svid[:-1]


def _with_no_key(message: X509SVIDResponse) -> None:
    message.svids[0].x509_svid_key = b""


@pytest.mark.parametrize(
    "spoil",
    [
        _without_svid,
        _with_another_id,
        _with_no_id,
        _with_no_bundle,
        _with_a_cut_chain,
        _with_no_key,
    ],
)
def test_a_message_with_a_defect_is_refused_whole(ca: Ca, issued: Issued, spoil: Any) -> None:
    message = response(issued, WEB, ca)
    spoil(message)
    with pytest.raises(IdentityError):
        update_of_untrusted(message, utc_now())
