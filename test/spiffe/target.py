"""Every decoder of spike.spiffe, for the fuzzer: each may raise IdentityError and nothing else.

    for name, target in TARGETS.items(): fuzz(target)

SEEDS gives each of them good input to start from.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from google.protobuf.message import DecodeError

from spiffe_kit import Ca, response, utc_now
from spike.error import IdentityError, SettingError
from spike.spiffe.endpoint import parse_endpoint_untrusted
from spike.spiffe.id import SpiffeId, TrustDomain, parse_trust_domain_untrusted
from spike.spiffe.peer import any_peer, check_peer
from spike.spiffe.response import update_of_untrusted
from spike.spiffe.svid import TrustBundle, X509Svid
from spike.spiffe.workload.workload_pb2 import X509SVIDResponse

_WEB = "spiffe://example.org/web"
_CA = Ca("example.org")
_ISSUED = _CA.intermediate().svid(_WEB)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def spiffe_id(data: bytes) -> None:
    with contextlib.suppress(IdentityError):
        assert str(SpiffeId.parse_untrusted(_text(data))) == _text(data)


def trust_domain(data: bytes) -> None:
    with contextlib.suppress(IdentityError):
        assert parse_trust_domain_untrusted(_text(data)) in _text(data)


def endpoint(data: bytes) -> None:
    with contextlib.suppress(SettingError):
        assert parse_endpoint_untrusted(_text(data)).is_absolute()


def svid(data: bytes) -> None:
    with contextlib.suppress(IdentityError):
        assert X509Svid.parse_untrusted(data).chain


def bundle(data: bytes) -> None:
    with contextlib.suppress(IdentityError):
        assert TrustBundle.parse_untrusted(TrustDomain("example.org"), data).fingerprints


def peer(data: bytes) -> None:
    """A leaf as a stranger could show it, had OpenSSL let it pass."""
    bundles = {_CA.trust_domain: _CA.bundle}
    with contextlib.suppress(IdentityError):
        check_peer([data, _CA.bundle_der], [data], bundles, any_peer, utc_now())


def workload_response(data: bytes) -> None:
    with contextlib.suppress(IdentityError, DecodeError):
        update_of_untrusted(X509SVIDResponse.FromString(data), utc_now())


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    "spiffe id": spiffe_id,
    "trust domain": trust_domain,
    "workload api endpoint": endpoint,
    "x509-svid": svid,
    "trust bundle": bundle,
    "tls peer": peer,
    "workload api response": workload_response,
}

SEEDS: Mapping[str, bytes] = {
    "spiffe id": _WEB.encode(),
    "trust domain": b"spiffe://example.org",
    "workload api endpoint": b"unix:///run/spire/agent.sock",
    "x509-svid": _ISSUED.chain_der,
    "trust bundle": _CA.bundle_der,
    "tls peer": _CA.svid(_WEB).chain_der,
    "workload api response": response(_ISSUED, _WEB, _CA, Ca("other.org")).SerializeToString(),
}
