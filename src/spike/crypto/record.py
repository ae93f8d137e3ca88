"""The record format: how secrets, documents and wrapped keys are sealed (key hierarchy, section 3).

    record = format (1 byte) ‖ suite (1 byte) ‖ key generation (4 bytes, big-endian) ‖ message
    message = Cobblestone-256 (spike.crypto.cobblestone) with the context

The context says where the record belongs: store, kind, key, version and field, and with them
format, suite and generation. A record moved elsewhere, or with a changed header, does not open.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from cryptography.utils import Buffer

from spike.crypto import cobblestone
from spike.crypto.purpose import GENERATION_LIMIT, STORE_ID_BYTES
from spike.error import FormatError, NewerFormatError
from spike.memory import KeyMemory

RECORD_FORMAT: Final = 1
SUITE_COBBLESTONE_256: Final = 1
HEADER_BYTES: Final = 6
OVERHEAD_BYTES: Final = HEADER_BYTES + cobblestone.OVERHEAD_BYTES
PLAINTEXT_LIMIT_BYTES: Final = 16 * 1024 * 1024
WRAPPED_KEY: Final = "wrapped-key"
_BLOB_LIMIT_BYTES: Final = (
    OVERHEAD_BYTES
    + PLAINTEXT_LIMIT_BYTES
    + PLAINTEXT_LIMIT_BYTES // cobblestone.CHUNK_BYTES * cobblestone.TAG_BYTES
)
_PART_LIMIT_BYTES: Final = 0xFFFF
_LENGTH: Final = struct.Struct(">H").pack


@dataclass(frozen=True, slots=True)
class RecordContext:
    """Where a record belongs. `store_id`: 16 bytes; each text: at most 65,535 bytes of UTF-8."""

    store_id: bytes
    kind: str
    key: str
    version: str
    field: str


def seal(
    key: KeyMemory,
    generation: int,
    context: RecordContext,
    plaintext: Buffer,
    *,
    before: bytes = b"",
) -> bytes:
    """Return the record of `plaintext`: 78 bytes more than it, and 16 for each full 16 KiB.

    `generation` is that of `key`. The salt comes from the kernel. `before` is put in front of the record as it is,
    which saves who has to do that a copy of the whole.

    Raises:
        WipedError: `key` is gone.
        ValueError: a plaintext above 16 MiB, a generation outside 1 to 2^32 - 1, a key not of 32
            bytes, or a context outside its limits.
    """
    if memoryview(plaintext).nbytes > PLAINTEXT_LIMIT_BYTES:
        raise ValueError("a record holds at most 16 MiB")
    if not 1 <= generation <= GENERATION_LIMIT:
        raise ValueError("a generation is a number from 1 to 4294967295")
    header = bytes((RECORD_FORMAT, SUITE_COBBLESTONE_256)) + generation.to_bytes(4, "big")
    encoded = _encode_context(header, context)
    return cobblestone.seal(key, encoded, plaintext, before + header)


def open_untrusted(key: KeyMemory, context: RecordContext, blob: Buffer) -> bytes:
    """Return the plaintext of a record.

    Raises:
        OpenError: another key or context, or not the bytes that were sealed.
        FormatError: not a record of a known format (NewerFormatError: one of a newer SPIKE).
        WipedError: `key` is gone.
        ValueError: a key not of 32 bytes, or a context outside its limits.
    """
    with memoryview(blob) as view:
        header = _header_untrusted(view)
        encoded = _encode_context(header, context)
        return cobblestone.open_untrusted(key, encoded, view[HEADER_BYTES:])


def open_into(key: KeyMemory, context: RecordContext, blob: Buffer, out: KeyMemory) -> None:
    """Fill `out` with the plaintext of a record (a wrapped key), which never touches the heap.

    When it fails, `out` holds zeros or what it held.

    Raises:
        OpenError: as for `open_untrusted`, or the plaintext has not the size of `out`.
        FormatError, WipedError, ValueError: as for `open_untrusted`.
    """
    with memoryview(blob) as view:
        header = _header_untrusted(view)
        encoded = _encode_context(header, context)
        cobblestone.open_into(key, encoded, view[HEADER_BYTES:], out)


def generation_of_untrusted(blob: Buffer) -> int:
    """Return the generation of the key that a record says it is under: a hint until it has opened.

    Raises:
        FormatError: not a record of a known format (NewerFormatError: one of a newer SPIKE).
    """
    with memoryview(blob) as view:
        return int.from_bytes(_header_untrusted(view)[2:], "big")


def _header_untrusted(blob: memoryview) -> bytes:
    if not OVERHEAD_BYTES <= blob.nbytes <= _BLOB_LIMIT_BYTES:
        raise FormatError("a sealed record has an impossible size")
    header = blob[:HEADER_BYTES].tobytes()
    if header[0] > RECORD_FORMAT:
        raise NewerFormatError("record", header[0], RECORD_FORMAT)
    if header[0] != RECORD_FORMAT:
        raise FormatError(f"a sealed record has the unknown format {header[0]}")
    if header[1] != SUITE_COBBLESTONE_256:
        raise FormatError(f"a sealed record has the unknown suite {header[1]}")
    if header[2:] == bytes(4):
        raise FormatError("a sealed record has the generation 0, which no key has")
    return header


def _encode_context(header: bytes, context: RecordContext) -> bytes:
    """Return header (6) ‖ store id (16) ‖ for each text: length (2, big-endian) ‖ UTF-8.

    Injective: every part has a fixed size or says its own.
    """
    if len(context.store_id) != STORE_ID_BYTES:
        raise ValueError("a store id is 16 bytes")
    parts = [header, context.store_id]
    for text in (context.kind, context.key, context.version, context.field):
        encoded = text.encode()
        if len(encoded) > _PART_LIMIT_BYTES:
            raise ValueError("a part of a record's context is longer than 65,535 bytes")
        parts += (_LENGTH(len(encoded)), encoded)
    return b"".join(parts)
