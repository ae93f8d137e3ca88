"""What the TLS library is given of a material: certificates, key and authorities.

OpenSSL's Python binding takes a key from a file name only. The file is one in memory, which has no
name in any file system, is overwritten, emptied and closed as soon as it has been read.
"""

from __future__ import annotations

import base64
import os
import ssl

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from spike.error import SettingError
from spike.spiffe.certificate import der_of
from spike.spiffe.svid import X509Material

# From linux/memfd.h, Linux 6.3: the file can never be executed. Python 3.11 does not name it.
_MFD_NOEXEC_SEAL = 0x0008


def load_credential(context: ssl.SSLContext, material: X509Material) -> None:
    """Give chain and private key to `context`; the key touches no file system.

    Raises:
        ssl.SSLError: OpenSSL does not take them.
        SettingError: the kernel gives no file in memory, or /proc is not mounted.
    """
    pem = bytearray(_key_pem(material))
    for certificate in material.svid.chain:
        pem += certificate.public_bytes(Encoding.PEM)
    try:
        descriptor = _open_memory_file()
        try:
            _write_whole(descriptor, pem)
            context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=_no_password)
        finally:
            os.pwrite(descriptor, b"\0" * len(pem), 0)
            os.ftruncate(descriptor, 0)
            os.close(descriptor)
    except ssl.SSLError:
        raise
    except OSError as error:
        raise SettingError(
            f"the key of the SVID cannot be handed to the TLS library: {error.strerror}",
            "mount /proc, and let the process use memfd_create",
        ) from error
    finally:
        pem[:] = b"\0" * len(pem)


def trusted_der(material: X509Material) -> bytes:
    """Return the authorities of all bundles, DER, without those that could be taken for another's.

    OpenSSL finds an issuer by its name and key identifier, takes the first that fits and does not
    try another when the signature then fails. A federated domain that lists an authority with the
    name and identifier of ours could so make all our own peers unverifiable: it is left out. The
    own domain comes first, then the others by name. One certificate in two bundles is no such case.
    """
    own = material.svid.id.trust_domain
    others = sorted(name for name in material.bundles if name != own)
    taken: dict[bytes, list[x509.Certificate]] = {}
    for trust_domain in (own, *others):
        mine: list[x509.Certificate] = []
        for authority in material.bundles[trust_domain].authorities:
            earlier = taken.get(authority.subject.public_bytes(), [])
            if authority in earlier or not any(_alike(authority, each) for each in earlier):
                mine.append(authority)
        for authority in mine:
            taken.setdefault(authority.subject.public_bytes(), []).append(authority)
    return b"".join(dict.fromkeys(der_of(each) for same in taken.values() for each in same))


def _alike(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Tell whether the key identifiers of two authorities of one name do not tell them apart."""
    first, second = _key_identifier(one), _key_identifier(other)
    return first is None or second is None or first == second


def _key_identifier(certificate: x509.Certificate) -> bytes | None:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return None
    return found.value.digest


def _key_pem(material: X509Material) -> bytes:
    body = base64.b64encode(material.private_key.der())
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    return b"\n".join((b"-----BEGIN PRIVATE KEY-----", *lines, b"-----END PRIVATE KEY-----", b""))


def _open_memory_file() -> int:
    try:
        return os.memfd_create("svid", os.MFD_CLOEXEC | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create("svid", os.MFD_CLOEXEC)  # a kernel before 6.3


def _write_whole(descriptor: int, content: bytearray) -> None:
    with memoryview(content) as view:
        written = 0
        while written < len(view):
            written += os.write(descriptor, view[written:])


def _no_password() -> bytes:
    """Without this, OpenSSL would ask on the terminal if it took the key for an encrypted one."""
    return b""
