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

from spike.error import SvidError
from spike.spiffe.certificate import Fingerprint, fingerprint_of, parse_certificate_untrusted
from spike.spiffe.id import SpiffeId, TrustDomain
from spike.spiffe.svid import TrustBundle, X509Material, id_of_leaf

Accept = Callable[[SpiffeId], bool]


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
    chain: Sequence[bytes], bundles: Mapping[TrustDomain, TrustBundle], accept: Accept
) -> Peer:
    """Return who the peer is. `chain` is what OpenSSL verified: DER, leaf first, root last.

    Raises:
        SvidError: no X.509-SVID, vouched for by no authority of its own trust domain, or not
            accepted.
        SpiffeIdError: its only URI is no SPIFFE ID.
    """
    if not chain:
        raise SvidError("the peer showed no certificate")
    leaf = parse_certificate_untrusted(chain[0])
    spiffe_id = id_of_leaf(leaf)
    bundle = bundles.get(spiffe_id.trust_domain)
    if bundle is None:
        raise SvidError(f"{spiffe_id} is of a trust domain that is not trusted here")
    # Not only the last certificate may be the root: where a bundle holds an authority that another
    # bundle's authority has signed, OpenSSL goes on to the latter. Every signature on the way is
    # verified, so any authority on it vouches; never the leaf itself.
    for depth in range(len(chain) - 1, 0, -1):
        root = fingerprint_of(chain[depth])
        if root in bundle.fingerprints:
            break
    else:
        raise SvidError(f"{spiffe_id} is not vouched for by an authority of its own trust domain")
    if not accept(spiffe_id):
        raise SvidError(f"{spiffe_id} is a valid identity, but not one that is accepted here")
    between = [parse_certificate_untrusted(der) for der in chain[1:depth]]
    not_after = min(each.not_valid_after_utc for each in (leaf, *between))
    return Peer(spiffe_id, not_after, root)


def still_trusts(material: X509Material, peer: Peer, now: datetime) -> bool:
    """Tell whether a peer verified earlier would still be trusted: asked at each request.

    A kept connection outlives both the peer's SVID and the authority that issued it.
    """
    bundle = material.bundles.get(peer.id.trust_domain)
    return bundle is not None and peer.root in bundle.fingerprints and now < peer.not_after
