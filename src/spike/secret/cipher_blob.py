"""Cipher blobs: what encryption as a service hands out. SPIKE keeps none of them.

    blob   = version (1 byte: 1) ‖ record                         (spike.crypto.record)
    record = header (6) ‖ nonce (the salt's first 12 bytes) ‖ the rest
    triple = version, nonce, header ‖ the rest                     (the JSON form; the same bytes)

A record of kind `cipher`, bound to the store and to the generation of the cipher key, and to nothing else: whoever may
call decrypt opens every blob of the store.

Source: key hierarchy, section 3; wire contract, section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from cryptography.utils import Buffer

from spike.crypto.cobblestone import CHUNK_BYTES, TAG_BYTES
from spike.crypto.record import (
    HEADER_BYTES,
    OVERHEAD_BYTES,
    PLAINTEXT_LIMIT_BYTES,
    RecordContext,
    generation_of_untrusted,
    open_untrusted,
    seal,
)
from spike.error import FormatError
from spike.memory.key_memory import KeyMemory

BLOB_VERSION: Final = 1
NONCE_BYTES: Final = 12
SIZE_LIMIT_BYTES: Final = PLAINTEXT_LIMIT_BYTES
"""The most that one blob can hold, whatever the settings allow."""

_KIND: Final = "cipher"
_PREFIX: Final = bytes((BLOB_VERSION,))
_NONCE_AT: Final = len(_PREFIX) + HEADER_BYTES
_REST_AT: Final = _NONCE_AT + NONCE_BYTES


class CipherTriple(NamedTuple):
    """A blob as its JSON form shows it."""

    version: int
    nonce: bytes
    ciphertext: bytes


def blob_size_bytes(plaintext_bytes: int) -> int:
    """Return how large the blob of so much plaintext is."""
    return (
        len(_PREFIX) + OVERHEAD_BYTES + plaintext_bytes + plaintext_bytes // CHUNK_BYTES * TAG_BYTES
    )


def seal_blob(key: KeyMemory, generation: int, store_id: bytes, plaintext: Buffer) -> bytes:
    """Return the blob of `plaintext`, at most 16 MiB, under the cipher key of `generation`.

    Raises:
        WipedError: `key` is gone.
        ValueError: as for `spike.crypto.record.seal`.
    """
    return seal(key, generation, _context(store_id), plaintext, before=_PREFIX)


def open_blob_untrusted(key_of: Callable[[int], KeyMemory], store_id: bytes, blob: Buffer) -> bytes:
    """Return the plaintext of a blob; `key_of` gives the key of a generation, or raises OpenError.

    Raises:
        OpenError: another key or store, or not the bytes that were sealed.
        FormatError: not a blob, or one of another version.
    """
    with memoryview(blob) as view:
        if view[: len(_PREFIX)] != _PREFIX:
            raise FormatError("not a cipher blob of a known version")
        with view[len(_PREFIX) :] as record:
            return open_untrusted(
                key_of(generation_of_untrusted(record)), _context(store_id), record
            )


def blob_generation_untrusted(blob: Buffer) -> int:
    """Return the generation of the cipher key that a blob names.

    Raises:
        FormatError: not a blob, or one of another version.
    """
    with memoryview(blob) as view:
        if view[: len(_PREFIX)] != _PREFIX:
            raise FormatError("not a cipher blob of a known version")
        with view[len(_PREFIX) :] as record:
            return generation_of_untrusted(record)


def split(blob: bytes) -> CipherTriple:
    """Return the triple of a blob that `seal_blob` made."""
    view = memoryview(blob)
    ciphertext = b"".join((view[len(_PREFIX) : _NONCE_AT], view[_REST_AT:]))
    return CipherTriple(blob[0], blob[_NONCE_AT:_REST_AT], ciphertext)


def join_untrusted(triple: CipherTriple) -> bytes:
    """Return the blob of a triple.

    Raises:
        FormatError: a version that no blob has, a nonce not of 12 bytes, or a ciphertext that is too short.
    """
    version, nonce, ciphertext = triple
    if version != BLOB_VERSION:
        raise FormatError("not a cipher blob of a known version")
    if len(nonce) != NONCE_BYTES or len(ciphertext) < OVERHEAD_BYTES - NONCE_BYTES:
        raise FormatError("a nonce or ciphertext has an impossible size")
    view = memoryview(ciphertext)
    return b"".join((_PREFIX, view[:HEADER_BYTES], nonce, view[HEADER_BYTES:]))


def _context(store_id: bytes) -> RecordContext:
    return RecordContext(store_id, _KIND, "", "", "")
