"""A certificate authority for tests: it makes good SVIDs, and bad ones with the defect you name.

    ca = Ca("example.org")
    issued = ca.svid("spiffe://example.org/web")
    source = HeldSource(material(issued, ca))
    server = server_context(source)

`foreign_context` is a stdlib TLS context with any certificate at all: what an outsider would use.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from spike.spiffe.id import TrustDomain
from spike.spiffe.svid import SvidKey, TrustBundle, X509Material, X509Svid
from spike.spiffe.workload.workload_pb2 import X509SVID, X509SVIDResponse

_BACKDATED = timedelta(seconds=30)
_AUTHORITY_LIFETIME = timedelta(days=1)
BOTH_PURPOSES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Issued:
    """A chain and its key as the Workload API hands them out."""

    chain: tuple[x509.Certificate, ...]
    key_der: bytes

    @property
    def chain_der(self) -> bytes:
        return der(self.chain)


class Ca:
    """An authority of one trust domain. `subject` and `key_identifier` can imitate another's."""

    def __init__(
        self,
        trust_domain: str,
        *,
        issuer: Ca | None = None,
        subject: str | None = None,
        key_identifier: x509.SubjectKeyIdentifier | None = None,
        lifetime: timedelta = _AUTHORITY_LIFETIME,
    ) -> None:
        self.trust_domain = TrustDomain(trust_domain)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = _name(subject or f"authority of {trust_domain} {os.urandom(4).hex()}")
        self.key_identifier = key_identifier or x509.SubjectKeyIdentifier.from_public_key(
            self.key.public_key()
        )
        self.issuer = issuer
        signer = issuer or self
        now = utc_now()
        self.cert = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(signer.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
            .add_extension(self.key_identifier, critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    signer.key_identifier
                ),
                critical=False,
            )
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")]
                ),
                critical=False,
            )
            .sign(signer.key, hashes.SHA256())
        )

    @property
    def bundle_der(self) -> bytes:
        return der([self.cert])

    @property
    def bundle(self) -> TrustBundle:
        return TrustBundle.parse_untrusted(self.trust_domain, self.bundle_der)

    def intermediate(self) -> Ca:
        """An authority of the same domain, signed by this one; its SVIDs carry it in the chain."""
        return Ca(self.trust_domain, issuer=self)

    def svid(
        self,
        spiffe_id: str,
        *,
        starts: timedelta = -_BACKDATED,
        lifetime: timedelta = timedelta(hours=1),
        uris: Sequence[str] | None = None,
        dns: Sequence[str] = (),
        ca: bool = False,
        digital_signature: bool = True,
        key_cert_sign: bool = False,
        crl_sign: bool = False,
        key_usage: bool = True,
        purposes: Sequence[x509.ObjectIdentifier] = BOTH_PURPOSES,
    ) -> Issued:
        """Issue an SVID that ends `lifetime` from now. Each later option is a way to be wrong."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = utc_now()
        names: list[x509.GeneralName] = [x509.DNSName(each) for each in dns]
        names += [
            x509.UniformResourceIdentifier(each)
            for each in (uris if uris is not None else [spiffe_id])
        ]
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name("workload"))
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now + starts, now + lifetime - _BACKDATED))
            .not_valid_after(now + lifetime)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self.key_identifier),
                critical=False,
            )
        )
        if key_usage:
            usage = _usage(
                digital_signature=digital_signature, key_cert_sign=key_cert_sign, crl_sign=crl_sign
            )
            builder = builder.add_extension(usage, critical=True)
        if purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        leaf = builder.sign(self.key, hashes.SHA256())
        key_der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        return Issued((leaf, *self._intermediates()), key_der)

    def _intermediates(self) -> tuple[x509.Certificate, ...]:
        return () if self.issuer is None else (self.cert, *self.issuer._intermediates())


def der(certificates: Iterable[x509.Certificate]) -> bytes:
    return b"".join(each.public_bytes(Encoding.DER) for each in certificates)


def material(issued: Issued, own: Ca | TrustBundle, *federated: Ca | TrustBundle) -> X509Material:
    """Material through the shipped parser, so of a good SVID only."""
    bundles = [each.bundle if isinstance(each, Ca) else each for each in (own, *federated)]
    return X509Material.assemble(
        X509Svid.parse_untrusted(issued.chain_der),
        SvidKey(issued.key_der),
        bundles[0],
        {each.trust_domain: each for each in bundles[1:]},
        utc_now(),
    )


def response(issued: Issued, spiffe_id: str, own: Ca, *federated: Ca) -> X509SVIDResponse:
    """The same as a message of the Workload API."""
    return X509SVIDResponse(
        svids=[
            X509SVID(
                spiffe_id=spiffe_id,
                x509_svid=issued.chain_der,
                x509_svid_key=issued.key_der,
                bundle=own.bundle_der,
            )
        ],
        federated_bundles={f"spiffe://{each.trust_domain}": each.bundle_der for each in federated},
    )


def foreign_context(
    issued: Issued | None, *trusted: Ca, protocol: int = ssl.PROTOCOL_TLS_CLIENT
) -> ssl.SSLContext:
    """A plain stdlib context, none of ours: takes any certificate, checks its peer's chain only."""
    context = ssl.SSLContext(protocol)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=der(each.cert for each in trusted))
    if issued is not None:
        with tempfile.NamedTemporaryFile() as file:
            key = load_der_private_key(issued.key_der, password=None)
            file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            for each in issued.chain:
                file.write(each.public_bytes(Encoding.PEM))
            file.flush()
            context.load_cert_chain(file.name)
    return context


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not (digital_signature or key_cert_sign or crl_sign),
        encipher_only=False,
        decipher_only=False,
    )
