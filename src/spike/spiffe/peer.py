"""Who stands at the other end of a TLS connection. Pure: no socket, no clock.

OpenSSL has verified signatures, times and purposes of the chain before this is asked, but against
the authorities of all trust domains at once. What it cannot know is that an authority speaks for
its own trust domain only: without the check here, a federated domain's CA could issue an identity
in ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from spike.error import SvidError
from spike.spiffe.certificate import (
    Fingerprint,
    der_of,
    fingerprint_of,
    parse_certificate_untrusted,
)
from spike.spiffe.id import SpiffeId, TrustDomain
from spike.spiffe.svid import TrustBundle, X509Material, id_of_leaf

Accept = Callable[[SpiffeId], bool]

_DEPTH_LIMIT = 8


def any_peer(_spiffe_id: SpiffeId) -> bool:
    """Accept every ID that the bundles verify: for a server that authorizes each request."""
    return True


@dataclass(frozen=True, slots=True)
class Peer:
    """A verified peer. `root` is the authority of its own trust domain that vouches for it."""

    id: SpiffeId
    not_after: datetime  # aware; the earliest end among its certificates below the root
    root: Fingerprint


def check_peer(
    verified: Sequence[bytes],
    sent: Sequence[bytes],
    bundles: Mapping[TrustDomain, TrustBundle],
    accept: Accept,
    now: datetime,
) -> Peer:
    """Return who the peer is.

    `verified` is the chain OpenSSL has verified, `sent` what the peer showed: DER, leaf first.

    Raises:
        SvidError: no X.509-SVID, vouched for by no authority of its own trust domain, or not
            accepted.
        SpiffeIdError: its only URI is no SPIFFE ID.
    """
    if not verified:
        raise SvidError("the peer showed no certificate")
    spiffe_id = id_of_leaf(parse_certificate_untrusted(verified[0]))
    bundle = bundles.get(spiffe_id.trust_domain)
    if bundle is None:
        raise SvidError(f"{spiffe_id} is of a trust domain that is not trusted here")
    path = _path_among(verified, bundle) or _path_beyond(verified, sent, bundle, now)
    if path is None:
        raise SvidError(f"{spiffe_id} is not vouched for by an authority of its own trust domain")
    if not accept(spiffe_id):
        raise SvidError(f"{spiffe_id} is a valid identity, but not one that is accepted here")
    *below, root = path
    not_after = min(parse_certificate_untrusted(der).not_valid_after_utc for der in below)
    return Peer(spiffe_id, not_after, fingerprint_of(root))


def _path_among(verified: Sequence[bytes], bundle: TrustBundle) -> Sequence[bytes] | None:
    """Return the verified chain up to the domain's own authority, if it has one.

    Any certificate above the leaf may be it, not only the last: each is verified as a CA.
    """
    for depth in range(len(verified) - 1, 0, -1):
        if fingerprint_of(verified[depth]) in bundle.fingerprints:
            return verified[: depth + 1]
    return None


def _path_beyond(
    verified: Sequence[bytes], sent: Sequence[bytes], bundle: TrustBundle, now: datetime
) -> Sequence[bytes] | None:
    """Look for a path with the domain's own authorities alone.

    OpenSSL stops at the first authority of *any* bundle. If a federated domain lists one of our
    intermediates as its own, the chains of all our peers end there. Without this, it could so shut
    us out of our own domain.
    """
    leaf, *others = map(parse_certificate_untrusted, dict.fromkeys((*verified, *sent)))
    builder = PolicyBuilder().store(Store([*bundle.authorities])).time(now)
    # The leaf's form and purpose are already checked, by `id_of_leaf` and by OpenSSL.
    builder = builder.max_chain_depth(_DEPTH_LIMIT).extension_policies(
        ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all()
    )
    try:
        path = builder.build_client_verifier().verify(leaf, others).chain
    except VerificationError:
        return None
    # A leaf that is listed as an authority vouches for nobody, itself included.
    return [der_of(each) for each in path] if len(path) > 1 else None


def still_trusts(material: X509Material, peer: Peer, now: datetime) -> bool:
    """Tell whether a peer verified earlier would still be trusted: asked at each request.

    A kept connection outlives both the peer's SVID and the authority that issued it.
    """
    bundle = material.bundles.get(peer.id.trust_domain)
    return bundle is not None and peer.root in bundle.fingerprints and now < peer.not_after
