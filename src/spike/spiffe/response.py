"""What the Workload API says, turned into material. Pure.

Source: SPIFFE Workload API standard, section 5.2.1. A message is the whole truth at its time:
nothing of an earlier one is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from spike.error import IdentityError, SvidError
from spike.spiffe.id import SpiffeId, TrustDomain, parse_trust_domain_untrusted
from spike.spiffe.svid import SvidKey, TrustBundle, X509Material, X509Svid
from spike.spiffe.workload.workload_pb2 import X509SVIDResponse

RESPONSE_LIMIT_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Update:
    """The material of one message, and for each foreign bundle left out, why."""

    material: X509Material
    left_out: tuple[str, ...]


def update_of_untrusted(response: X509SVIDResponse, now: datetime) -> Update:
    """Read one message. With several SVIDs the first is the default identity and the one taken.

    A malformed bundle of a federated trust domain is left out, and its peers are then not trusted;
    our own identity must not end by another organization's mistake.

    Raises:
        SvidError: no SVID, one that is malformed or outside of its time, a key or bundle that does
            not fit it, or a message of more than 16 MiB.
        SpiffeIdError: the SVID names no SPIFFE ID.
    """
    if response.ByteSize() > RESPONSE_LIMIT_BYTES:
        raise SvidError(f"the Workload API sent more than {RESPONSE_LIMIT_BYTES} bytes at once")
    if not response.svids:
        raise SvidError("the Workload API sent no SVID")
    first = response.svids[0]
    svid = X509Svid.parse_untrusted(first.x509_svid)
    if SpiffeId.parse_untrusted(first.spiffe_id) != svid.id:
        raise SvidError("the Workload API names another ID than its SVID")
    own = TrustBundle.parse_untrusted(svid.id.trust_domain, first.bundle)
    federated: dict[TrustDomain, TrustBundle] = {}
    left_out: list[str] = []
    for name, der in response.federated_bundles.items():
        try:
            trust_domain = parse_trust_domain_untrusted(name)
            federated[trust_domain] = TrustBundle.parse_untrusted(trust_domain, der)
        except IdentityError as error:
            left_out.append(error.message)
    key = SvidKey(first.x509_svid_key)
    return Update(X509Material.assemble(svid, key, own, federated, now), tuple(left_out))
