"""Message authentication: HMAC-SHA-512 truncated to its first 32 bytes (RFC 2104, FIPS 198-1)."""

from __future__ import annotations

import hmac
from typing import Final

from cryptography.utils import Buffer

from spike.memory import KeyMemory

MAC_BYTES: Final = 32


def mac(key: KeyMemory, message: Buffer) -> bytes:
    """Return the 32-byte tag of `message`. One key, one purpose: see spike.crypto.purpose.

    `hmac.digest` with a view is the fastest that leaves no copy of the key (measured, see
    docs/decision/record-format.md); `hmac.new` takes no view.

    Raises:
        WipedError: `key` is gone.
    """
    with key.view() as view:
        return hmac.digest(view, message, "sha512")[:MAC_BYTES]


def mac_matches(key: KeyMemory, message: Buffer, tag: bytes) -> bool:
    """Tell, in constant time, whether `tag` is the 32-byte tag of `message`. Any other size: no.

    Raises:
        WipedError: `key` is gone.
    """
    return hmac.compare_digest(mac(key, message), tag)
