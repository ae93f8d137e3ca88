"""Certificates as they come from the Workload API: DER, one after another, without a separator.

Source: SPIFFE Workload API standard, section 5.2.1 (fields `x509_svid` and `bundle`).
"""

from __future__ import annotations

import hashlib
from typing import NewType

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning

from spike.error import SvidError

# SHA-256 over the DER of a certificate, 32 bytes.
Fingerprint = NewType("Fingerprint", bytes)

CHAIN_LIMIT_BYTES = 64 * 1024
BUNDLE_LIMIT_BYTES = 1024 * 1024

# The last is for certificates the library means to refuse one day; where warnings are errors, it
# refuses them today.
_MALFORMED = (
    ValueError,
    TypeError,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
    CryptographyDeprecationWarning,
)

_SEQUENCE = 0x30
_LONG_FORM = 0x80


def fingerprint_of(der: bytes) -> Fingerprint:
    """Return the SHA-256 of a certificate's DER."""
    return Fingerprint(hashlib.sha256(der).digest())


def der_of(certificate: x509.Certificate) -> bytes:
    """Return the bytes the certificate was read from."""
    return certificate.public_bytes(Encoding.DER)


def parse_certificates_untrusted(der: bytes, limit_bytes: int) -> tuple[x509.Certificate, ...]:
    """Read certificates that stand one after another, with nothing between, before or behind them.

    Raises:
        SvidError: more than `limit_bytes`, or not a sequence of certificates. None at all is an
            empty tuple.
    """
    if len(der) > limit_bytes:
        raise SvidError(f"a certificate list has at most {limit_bytes} bytes, not {len(der)}")
    certificates = []
    offset = 0
    while offset < len(der):
        end = _end_of_sequence(der, offset)
        certificates.append(parse_certificate_untrusted(der[offset:end]))
        offset = end
    return tuple(certificates)


def parse_certificate_untrusted(der: bytes) -> x509.Certificate:
    """Read exactly one certificate, and its extensions with it, so that later reads cannot fail.

    Raises:
        SvidError: `der` is no certificate, or an extension of it is malformed or there twice.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        _ = certificate.extensions
    except _MALFORMED:
        # The library's message may repeat what a stranger wrote into the certificate.
        raise SvidError("not a well-formed X.509 certificate") from None
    if certificate.serial_number <= 0:
        raise SvidError("an X.509 certificate whose serial number is not positive")
    return certificate


def _end_of_sequence(der: bytes, start: int) -> int:
    """Return where the DER SEQUENCE at `start` ends (X.690, section 8.1.3: definite lengths)."""
    header = der[start : start + 2]
    if len(header) < 2 or header[0] != _SEQUENCE:
        raise SvidError("a certificate list holds something that is no certificate")
    body = start + 2
    length = header[1]
    if length >= _LONG_FORM:
        # No list within the limit needs more than three bytes of length; 0x80 is BER's
        # indefinite form, which DER forbids.
        size = length - _LONG_FORM
        if not 1 <= size <= 3:
            raise SvidError("a certificate list holds something that is no certificate")
        length = int.from_bytes(der[body : body + size], "big")
        body += size
    end = body + length
    if end > len(der):
        raise SvidError("a certificate list ends in the middle of a certificate")
    return end
