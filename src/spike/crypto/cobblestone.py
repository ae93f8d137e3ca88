"""Cobblestone-256: C2SP chunked-encryption v1 with SHA-512 and AES-256-GCM.

    key (32) ‖ base nonce (12) ‖ commitment (32) = HKDF-Expand-SHA512(record key, info, 76)
    info = "c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM" ‖ 0x00 ‖ salt (24) ‖ context
    message = salt ‖ commitment ‖ chunks of 16 KiB, each with its tag; the last one is shorter, or
    empty; the nonce of chunk i is base nonce XOR i (big-endian)

Own code, because the class in `cryptography` leaves half of the key in freed heap when it opens, and
the plaintext, which may be a wrapped key, when it seals (docs/decision/record-format.md). Each
message has a key of its own from a random 192-bit salt, so the limit of 2^32 random GCM nonces does
not apply, and a message opens under one key and one context only.
"""

from __future__ import annotations

import hmac
import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.utils import Buffer

from spike.error import OpenError
from spike.memory import KEY_BYTES, KeyMemory

SALT_BYTES: Final = 24
COMMITMENT_BYTES: Final = 32
TAG_BYTES: Final = 16
CHUNK_BYTES: Final = 16 * 1024
OVERHEAD_BYTES: Final = SALT_BYTES + COMMITMENT_BYTES + TAG_BYTES  # of a message below one chunk
_HEAD_BYTES: Final = SALT_BYTES + COMMITMENT_BYTES
_SEALED_CHUNK_BYTES: Final = CHUNK_BYTES + TAG_BYTES
_NONCE_END: Final = KEY_BYTES + 12
_DERIVED_BYTES: Final = _NONCE_END + COMMITMENT_BYTES
_LABEL: Final = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\x00"
_HASH_BYTES: Final = 64
_ZEROS: Final = bytes(_DERIVED_BYTES)


def seal(key: KeyMemory, context: bytes, plaintext: Buffer, before: bytes = b"") -> bytes:
    """Return `before`, as it is, and the sealed message. Its salt comes from the kernel; nobody can choose it.

    Raises:
        WipedError: `key` is gone.
        ValueError: `key` is not of 32 bytes.
    """
    salt = os.urandom(SALT_BYTES)
    derived = bytearray(_DERIVED_BYTES)
    try:
        _derive(key, salt, context, derived)
        cipher = AESGCM(memoryview(derived)[:KEY_BYTES])
        parts: list[bytes | bytearray] = [before, salt, derived[_NONCE_END:]]
        with memoryview(plaintext) as source:
            for index in range(len(source) // CHUNK_BYTES + 1):
                chunk = source[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
                parts.append(cipher.encrypt(_nonce(derived, index), chunk, None))
        return b"".join(parts)
    finally:
        derived[:] = _ZEROS


def open_untrusted(key: KeyMemory, context: bytes, message: Buffer) -> bytes:
    """Return the plaintext of `message`.

    Raises:
        OpenError: another key or context, or not the bytes that were sealed. Nothing of a message
            that is wrong anywhere is returned.
        WipedError: `key` is gone.
        ValueError: `key` is not of 32 bytes.
    """
    derived = bytearray(_DERIVED_BYTES)
    try:
        with memoryview(message) as source:
            _derive_confirmed(key, source, context, derived)
            cipher = AESGCM(memoryview(derived)[:KEY_BYTES])
            parts = [
                cipher.decrypt(_nonce(derived, index), chunk, None)
                for index, chunk in enumerate(_sealed_chunks(source))
            ]
    except InvalidTag:
        raise OpenError from None
    finally:
        derived[:] = _ZEROS
    return parts[0] if len(parts) == 1 else b"".join(parts)


def open_into(key: KeyMemory, context: bytes, message: Buffer, out: KeyMemory) -> None:
    """Fill `out` with the plaintext of `message`, which must be of that size and below one chunk.

    Nothing of it touches the heap. When decryption fails, `out` holds zeros.

    Raises:
        OpenError: as for `open_untrusted`, or the plaintext has another size.
        WipedError: `key` or `out` is gone.
        ValueError: `key` is not of 32 bytes.
    """
    derived = bytearray(_DERIVED_BYTES)
    try:
        with memoryview(message) as source, out.view() as target:
            _derive_confirmed(key, source, context, derived)
            if len(source) != OVERHEAD_BYTES + len(target) or len(target) >= CHUNK_BYTES:
                raise OpenError
            cipher = AESGCM(memoryview(derived)[:KEY_BYTES])
            try:
                cipher.decrypt_into(_nonce(derived, 0), source[_HEAD_BYTES:], None, target)
                _overwrite_stack(len(target))
            except BaseException:
                # The library may have written what it had decrypted before it checked the tag.
                target[:] = bytes(len(target))
                raise
    except InvalidTag:
        raise OpenError from None
    finally:
        derived[:] = _ZEROS


def _overwrite_stack(size_bytes: int) -> None:
    """Make OpenSSL decrypt zeros where it has just decrypted a key.

    Its AES-GCM leaves the last 16-byte block of the plaintext on the stack (seen from outside with
    OpenSSL 4.0 on AVX-512), and calls that follow copy such garbage to other places. The same call
    at the same depth writes over it.
    """
    cipher, nonce = AESGCM(_ZEROS[:KEY_BYTES]), bytes(12)
    sealed = cipher.encrypt(nonce, bytes(size_bytes), None)
    cipher.decrypt_into(nonce, sealed, None, bytearray(size_bytes))


def _derive(key: KeyMemory, salt: Buffer, context: bytes, derived: bytearray) -> None:
    """Fill `derived` with key ‖ base nonce ‖ commitment of one message; the caller overwrites it.

    A bytearray, not key memory: this key opens one message alone and lives for microseconds, and a
    place in locked memory costs a third of the whole operation.
    """
    if key.size_bytes != KEY_BYTES:
        raise ValueError("a record key is 32 bytes")
    expand = HKDFExpand(SHA512(), _DERIVED_BYTES, b"".join((_LABEL, salt, context)))
    with key.view() as source:
        expand.derive_into(source, derived)
    # HKDF hands its two hash blocks through bytes objects and frees them without overwriting them;
    # new ones of the same size get the same memory.
    _blocks = (bytes(_HASH_BYTES), bytes(_HASH_BYTES))


def _derive_confirmed(
    key: KeyMemory, message: memoryview, context: bytes, derived: bytearray
) -> None:
    """As `_derive`, for the key whose commitment, compared in constant time, is in the message."""
    if len(message) < OVERHEAD_BYTES:
        raise OpenError
    _derive(key, message[:SALT_BYTES], context, derived)
    if not hmac.compare_digest(derived[_NONCE_END:], message[SALT_BYTES:_HEAD_BYTES]):
        raise OpenError


def _sealed_chunks(message: memoryview) -> list[memoryview]:
    """Return the chunks; the last is always shorter than a full one (else the end was cut off)."""
    body = message[_HEAD_BYTES:]
    full, rest = divmod(len(body), _SEALED_CHUNK_BYTES)
    if rest < TAG_BYTES:
        raise OpenError
    return [
        body[index * _SEALED_CHUNK_BYTES : (index + 1) * _SEALED_CHUNK_BYTES]
        for index in range(full + 1)
    ]


def _nonce(derived: bytearray, index: int) -> bytearray:
    nonce = derived[KEY_BYTES:_NONCE_END]
    if index:
        for position, byte in enumerate(index.to_bytes(8, "big"), start=4):
            nonce[position] ^= byte
    return nonce
