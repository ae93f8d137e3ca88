"""Messages of `/v1/cipher/encrypt`, `/v1/cipher/decrypt` and `/v1/cipher/rewrap`, in their JSON form.

All of them have a raw form as well, bytes in and bytes out, that no message describes.
"""

from __future__ import annotations

from typing import Final

from spike.wire.message import ConfidentialMessage, GoInt, Message

RAW_CONTENT_TYPE: Final = "application/octet-stream"
"""The Content-Type, exactly so, that asks for the raw form."""


class CipherEncryptRequest(ConfidentialMessage, frozen=True):
    """Encrypt; an empty `algorithm` is the only one there is."""

    plaintext: bytes = b""
    algorithm: str = ""


class CipherEncryptAnswer(Message, frozen=True):
    """What encrypt gave, in three parts; `nonce` has 12 bytes."""

    version: GoInt
    nonce: bytes
    ciphertext: bytes


class CipherDecryptRequest(Message, frozen=True):
    """Decrypt or rewrap what an encrypt answered."""

    version: GoInt = 0
    nonce: bytes = b""
    ciphertext: bytes = b""
    algorithm: str = ""


class CipherRewrapAnswer(Message, frozen=True):
    """The same plaintext under the active generation; `rewrapped` is false where it was so already."""

    version: GoInt
    nonce: bytes
    ciphertext: bytes
    rewrapped: bool


class CipherDecryptAnswer(ConfidentialMessage, frozen=True):
    """What had been encrypted."""

    plaintext: bytes
