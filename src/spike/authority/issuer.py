"""Certificates: a trust domain's authority and the X.509-SVIDs it issues. Pure.

Source: the X.509-SVID standard, sections 2 to 5. Keys, time and serial numbers are parameters; what
a certificate says follows from them alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from spike.error import SvidError
from spike.spiffe.certificate import Fingerprint, der_of, fingerprint_of
from spike.spiffe.id import SpiffeId, TrustDomain
from spike.spiffe.svid import X509Svid

# A peer whose clock is a little behind must not refuse what was issued just now.
BACKDATED: Final = timedelta(seconds=30)


def generate_key() -> ec.EllipticCurvePrivateKey:
    """Make an ECDSA P-256 key, for an authority or a leaf; takes about 50 µs."""
    return ec.generate_private_key(ec.SECP256R1())


def generate_serial() -> int:
    """Return a random serial number of 159 bits (RFC 5280, section 4.1.2.2: at most 20 octets)."""
    return x509.random_serial_number()


def pkcs8_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a leaf's key as the Workload API hands it out: PKCS#8 DER, not encrypted."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """One signing key of a trust domain and its self-signed certificate. The key cannot be printed."""

    trust_domain: TrustDomain
    certificate: x509.Certificate
    created_at: datetime
    _key: ec.EllipticCurvePrivateKey = field(repr=False, compare=False)

    @classmethod
    def create(
        cls,
        trust_domain: TrustDomain,
        key: ec.EllipticCurvePrivateKey,
        now: datetime,
        lifetime: timedelta,
        serial: int,
    ) -> CertificateAuthority:
        """Make an authority that is good from `BACKDATED` before `now` until `lifetime` after it."""
        # Two authorities of one domain stand in one bundle while the older one runs out: with names
        # of their own, a chain is never tried against the wrong one.
        name = _name(f"SPIKE Authority {serial:x}"[:40])
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            _builder(name, name, key.public_key(), serial, (now - BACKDATED, now + lifetime))
            # It signs leaves only, no other authority.
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage_of_authority(), critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(_uri(SpiffeId(trust_domain, "")), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(trust_domain, certificate, now, key)

    @property
    def expires_at(self) -> datetime:
        """When it ends (aware, UTC)."""
        return self.certificate.not_valid_after_utc

    def is_good_at(self, now: datetime) -> bool:
        """Tell whether `now` is between its begin and its end."""
        return self.certificate.not_valid_before_utc <= now < self.expires_at

    @property
    def fingerprint(self) -> Fingerprint:
        """The SHA-256 of its certificate."""
        return fingerprint_of(der_of(self.certificate))

    def issue(
        self,
        spiffe_id: SpiffeId,
        public_key: ec.EllipticCurvePublicKey,
        now: datetime,
        lifetime: timedelta,
        serial: int,
    ) -> X509Svid:
        """Issue a leaf for both ends of a TLS connection; it never outlives this authority.

        Raises:
            SvidError: the ID names a trust domain instead of a workload, or another trust domain.
        """
        if spiffe_id.trust_domain != self.trust_domain:
            raise SvidError(f"{spiffe_id} is not in the trust domain {self.trust_domain}")
        if not spiffe_id.path:
            raise SvidError(f"{spiffe_id} names the trust domain instead of a workload in it")
        leaf = (
            _builder(
                _name("workload"),
                self.certificate.subject,
                public_key,
                serial,
                (
                    max(now - BACKDATED, self.certificate.not_valid_before_utc),
                    min(now + lifetime, self.expires_at),
                ),
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage_of_leaf(), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage(
                    [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
                ),
                critical=False,
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .add_extension(_uri(spiffe_id), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return X509Svid(spiffe_id, (leaf,))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    serial: int,
    validity: tuple[datetime, datetime],
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "SPIKE"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _uri(spiffe_id: SpiffeId) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(spiffe_id))])


def _usage_of_authority() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _usage_of_leaf() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=False,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
