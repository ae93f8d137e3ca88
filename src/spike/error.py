"""Every error SPIKE raises, drawn as a tree by whose fault it is.

SpikeError
├── InputError               the caller sent something that is refused
│   └── BodyTooLargeError    a request's body is larger than the call allows
├── NotFoundError            the thing named does not exist (or the caller may not know that it does)
├── DeniedError              the server does not allow the call to this identity
├── NotReadyError            no root key yet, or overloaded; the same call may succeed later
│   └── UnreachableError     the server does not answer, or not in time
├── AnswerError              the server answers with a fault of its own, or something that cannot be
├── RefusedError             an operation on keys refused by its rules; nothing was changed
├── StoreError               the storage's doing
│   ├── StoreConflictError   the expected revision is not the present one
│   │   └── FenceError       the write was sealed under another keyring epoch
│   ├── StoreUnavailableError  the engine does not answer, or the disk is full
│   └── StoreCorruptError    the engine answers with something that cannot be
├── OpenError                a sealed blob does not open; it says nothing of why
├── FormatError              bytes from outside are not in a known encoding
│   └── NewerFormatError     they are in the encoding of a newer SPIKE
├── WipedError               key memory used after it was wiped: a fault of ours
├── KnownAnswerError         a cryptographic primitive gives a wrong answer: the process must stop
├── IdentityError            a SPIFFE identity is not as it must be
│   ├── SpiffeIdError        not a SPIFFE ID
│   ├── SvidError            a certificate that is no valid X.509-SVID, or not for this peer
│   │   └── PeerRefusedError  the TLS handshake met a peer that is not trusted
│   └── WorkloadApiError     the Workload API denies, is malformed or out of reach
├── ClaimError               something the demo claims is false
└── SettingError             the operator's: an option, a variable, the machine; `next_step` says what to do

Messages are for people and never hold a secret: no value, key, share or password, whole or in part.
"""

from __future__ import annotations

import ssl


class SpikeError(Exception):
    """What failed and why, in one sentence; `next_step` says what to do about it, or is empty."""

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step


class InputError(SpikeError):
    """The caller sent something that is refused."""


class BodyTooLargeError(InputError):
    """A request's body is larger than the call allows; it was not read whole."""

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body has more than {limit_bytes} bytes")


class NotFoundError(SpikeError):
    """The thing named does not exist, or the caller may not know that it does."""


class NotReadyError(SpikeError):
    """There is no root key yet, or the server is overloaded."""


class UnreachableError(NotReadyError):
    """The server does not answer, or not in time; whether it acted is not known."""


class DeniedError(SpikeError):
    """The server does not allow the call to this identity."""


class AnswerError(SpikeError):
    """The server answers with a fault of its own, or with something that cannot be."""


class RefusedError(SpikeError):
    """An operation on keys was refused by its rules; nothing was changed."""


class StoreError(SpikeError):
    """The storage's doing."""


class StoreConflictError(StoreError):
    """The expected revision of a record is not the present one."""


class FenceError(StoreConflictError):
    """The write was sealed under another keyring epoch than the store's."""


class StoreUnavailableError(StoreError):
    """The engine does not answer, or the disk is full; nothing was written."""


class StoreCorruptError(StoreError):
    """The engine answers with something that cannot be."""


class OpenError(SpikeError):
    """A sealed blob does not open under the key and context given."""

    def __init__(self, message: str = "the sealed data do not open", next_step: str = "") -> None:
        super().__init__(message, next_step)


class FormatError(SpikeError):
    """Bytes from outside are not in a known encoding."""


class NewerFormatError(FormatError):
    """Bytes from outside are in a format this version does not know yet.

    `found` and `known` are format numbers.
    """

    def __init__(self, thing: str, found: int, known: int) -> None:
        super().__init__(
            f"the {thing} has format {found}; this version of SPIKE knows formats up to {known}",
            f"use a version of SPIKE that knows {thing} format {found}",
        )
        self.found = found
        self.known = known


class WipedError(SpikeError):
    """Key memory was used after it was wiped."""


class KnownAnswerError(SpikeError):
    """A cryptographic primitive gives a wrong answer."""


class IdentityError(SpikeError):
    """A SPIFFE identity is not as it must be."""


class SpiffeIdError(IdentityError):
    """Not a SPIFFE ID."""


class SvidError(IdentityError):
    """A certificate that is no valid X.509-SVID, or not one for this peer."""


class PeerRefusedError(SvidError, ssl.SSLError):
    """A TLS handshake ended with a peer that is not trusted.

    It is an `ssl.SSLError` as well, because that is what event loops drop a connection for.
    """

    def __str__(self) -> str:
        return self.message


class WorkloadApiError(IdentityError):
    """The Workload API denies, answers with something malformed, or is out of reach."""


class ClaimError(SpikeError):
    """Something the demo claims was looked at and found false."""


class SettingError(SpikeError):
    """An option, a variable or the machine is not as it must be."""
