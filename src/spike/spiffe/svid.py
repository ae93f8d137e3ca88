"""X.509-SVIDs, trust bundles and the material of one identity.

Source: the X.509-SVID standard, sections 2 to 5. What is refused here is refused for our own SVID
and for a peer's alike: both go through `id_of_leaf`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
)

from spike.error import SvidError
from spike.spiffe.certificate import (
    BUNDLE_LIMIT_BYTES,
    CHAIN_LIMIT_BYTES,
    Fingerprint,
    der_of,
    fingerprint_of,
    parse_certificates_untrusted,
)
from spike.spiffe.id import SpiffeId, TrustDomain

PRIVATE_KEY_LIMIT_BYTES = 16 * 1024

_Kind = TypeVar("_Kind", bound=x509.ExtensionType)


def id_of_leaf(leaf: x509.Certificate) -> SpiffeId:
    """Return the ID a leaf certificate names, if it has the form of an X.509-SVID.

    Form only: neither its signature nor its time is looked at.

    Raises:
        SvidError: a rule of the standard is broken; the message names it.
        SpiffeIdError: its only URI is no SPIFFE ID.
    """
    extensions = leaf.extensions
    # Section 5.2: a certificate that can sign others is never an identity.
    basic = _extension(extensions, x509.BasicConstraints)
    if basic is not None and basic.value.ca:
        raise SvidError("the leaf of an SVID is a CA certificate")
    # Section 4.3.
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None or not usage.value.digital_signature:
        raise SvidError("the leaf of an SVID does not allow digital signatures")
    if usage.value.key_cert_sign or usage.value.crl_sign:
        raise SvidError("the leaf of an SVID allows to sign certificates or revocation lists")
    # Section 2: exactly one URI. Other kinds of names may stand beside it and mean nothing.
    names = _extension(extensions, x509.SubjectAlternativeName)
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    if len(uris) != 1:
        raise SvidError(f"the leaf of an SVID names {len(uris)} URIs instead of exactly one")
    spiffe_id = SpiffeId.parse_untrusted(uris[0])
    # Section 3.1: the trust domain itself is its CA's name, no workload's.
    if not spiffe_id.path:
        raise SvidError("the leaf of an SVID names a trust domain instead of a workload in it")
    return spiffe_id


@dataclass(frozen=True, slots=True)
class X509Svid:
    """The certificates of one identity: leaf first, then the intermediates up to the root."""

    id: SpiffeId
    chain: tuple[x509.Certificate, ...]

    @property
    def expires_at(self) -> datetime:
        """When the leaf ends (aware, UTC)."""
        return self.chain[0].not_valid_after_utc

    @classmethod
    def parse_untrusted(cls, der: bytes) -> X509Svid:
        """Read a chain of at most 64 KiB.

        Raises:
            SvidError: no chain, a leaf that is no X.509-SVID, or a CA certificate that is none.
            SpiffeIdError: the leaf's only URI is no SPIFFE ID.
        """
        chain = parse_certificates_untrusted(der, CHAIN_LIMIT_BYTES)
        if not chain:
            raise SvidError("an SVID without a certificate")
        spiffe_id = id_of_leaf(chain[0])
        _require_authorities(chain[1:], "an SVID")
        return cls(spiffe_id, chain)

    def require_valid_at(self, now: datetime) -> None:
        """Refuse an SVID outside of its time.

        Raises:
            SvidError: `now` is before the leaf's start or not before its end.
        """
        leaf = self.chain[0]
        if now < leaf.not_valid_before_utc:
            raise SvidError(
                f"the SVID of {self.id} is not valid before {leaf.not_valid_before_utc:%FT%TZ}",
                "set this machine's clock",
            )
        if now >= leaf.not_valid_after_utc:
            raise SvidError(f"the SVID of {self.id} expired at {leaf.not_valid_after_utc:%FT%TZ}")


class SvidKey:
    """The private key of an SVID, PKCS#8 DER. It cannot be printed, compared or pickled.

    It lives as long as its SVID, minutes to hours, and comes as a protobuf field: no better memory
    than the heap would keep it from the places the message has been to.
    """

    __slots__ = ("_der",)

    def __init__(self, der: bytes) -> None:
        self._der = der

    def der(self) -> bytes:
        """Return the key itself: for the TLS library only."""
        return self._der

    def __repr__(self) -> str:
        return "SvidKey(…)"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("the private key of an SVID is not pickled")

    def require_fits(self, leaf: x509.Certificate) -> None:
        """Refuse a key that is not the one the certificate is for.

        Raises:
            SvidError: not an unencrypted PKCS#8 key, or another certificate's.
        """
        if len(self._der) > PRIVATE_KEY_LIMIT_BYTES:
            raise SvidError(f"a private key has at most {PRIVATE_KEY_LIMIT_BYTES} bytes")
        try:
            public = load_der_private_key(self._der, password=None).public_key()
            certified = leaf.public_key()
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SvidError("the private key of the SVID cannot be read") from None
        form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if public.public_bytes(*form) != certified.public_bytes(*form):
            raise SvidError("the private key does not belong to the SVID")


@dataclass(frozen=True, slots=True)
class TrustBundle:
    """The authorities of one trust domain; each is a root, whether it is self-signed or not."""

    trust_domain: TrustDomain
    authorities: tuple[x509.Certificate, ...]
    fingerprints: frozenset[Fingerprint] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        prints = frozenset(fingerprint_of(der_of(each)) for each in self.authorities)
        object.__setattr__(self, "fingerprints", prints)

    @classmethod
    def parse_untrusted(cls, trust_domain: TrustDomain, der: bytes) -> TrustBundle:
        """Read a bundle of at most 1 MiB.

        Raises:
            SvidError: malformed, empty, or with a certificate that is no CA's.
        """
        authorities = parse_certificates_untrusted(der, BUNDLE_LIMIT_BYTES)
        if not authorities:
            raise SvidError(f"the trust bundle of {trust_domain} is empty")
        _require_authorities(authorities, f"the trust bundle of {trust_domain}")
        return cls(trust_domain, authorities)


@dataclass(frozen=True, slots=True)
class X509Material:
    """All that one identity needs to speak TLS: SVID, key, and whom it may trust.

    `bundles` holds the bundle of the SVID's own trust domain and those of the federated ones.
    """

    svid: X509Svid
    private_key: SvidKey = field(repr=False)
    bundles: Mapping[TrustDomain, TrustBundle]

    def __post_init__(self) -> None:
        object.__setattr__(self, "bundles", MappingProxyType(dict(self.bundles)))

    @classmethod
    def assemble(
        cls,
        svid: X509Svid,
        private_key: SvidKey,
        own: TrustBundle,
        federated: Mapping[TrustDomain, TrustBundle],
        now: datetime,
    ) -> X509Material:
        """Put checked parts together. Where `federated` names the own trust domain, `own` wins.

        Raises:
            SvidError: the SVID is outside of its time, or key or bundle belong to another.
        """
        svid.require_valid_at(now)
        private_key.require_fits(svid.chain[0])
        if own.trust_domain != svid.id.trust_domain:
            raise SvidError(f"the bundle of {own.trust_domain} came with the SVID of {svid.id}")
        return cls(svid, private_key, {**federated, own.trust_domain: own})


def _require_authorities(certificates: tuple[x509.Certificate, ...], where: str) -> None:
    for certificate in certificates:
        basic = _extension(certificate.extensions, x509.BasicConstraints)
        if basic is None or not basic.value.ca:
            raise SvidError(f"{where} holds a certificate that is no CA's where one must be")


def _extension(extensions: x509.Extensions, kind: type[_Kind]) -> x509.Extension[_Kind] | None:
    try:
        return extensions.get_extension_for_class(kind)
    except x509.ExtensionNotFound:
        return None
