"""An authority that is not ours: a trust domain of its own, and identities it has no right to issue."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from spike.spiffe.id import SpiffeId, TrustDomain
from spike.spiffe.svid import SvidKey, TrustBundle, X509Material, X509Svid

_LIFETIME: Final = timedelta(hours=1)
_BACKDATED: Final = timedelta(minutes=1)
_NO_USAGE: Final = {
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "encipher_only": False,
    "decipher_only": False,
}


class ForeignAuthority:
    """The certificate authority of another trust domain."""

    def __init__(self, trust_domain: str) -> None:
        """Make its key and self-signed certificate."""
        self.trust_domain = TrustDomain(trust_domain)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"authority of {trust_domain}")
        self.certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=False, key_cert_sign=True, crl_sign=True, **_NO_USAGE
                ),
                critical=True,
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .add_extension(_uri(f"spiffe://{trust_domain}"), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        """Its bundle, as `spike-authority bundle add` takes it."""
        return self.certificate.public_bytes(Encoding.PEM).decode("ascii")

    def issue(self, spiffe_id: str) -> X509Material:
        """Issue an SVID, also in a trust domain that is not its own."""
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = (
            _builder(_name("workload"), self._name, key)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True, key_cert_sign=False, crl_sign=False, **_NO_USAGE
                ),
                critical=True,
            )
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
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        identity = SpiffeId.parse_untrusted(spiffe_id)
        bundle = TrustBundle(identity.trust_domain, (self.certificate,))
        return X509Material(
            X509Svid(identity, (leaf,)), SvidKey(der), {identity.trust_domain: bundle}
        )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + _LIFETIME)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _uri(text: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text)])
