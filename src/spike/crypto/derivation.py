"""Key derivation: HKDF-SHA512 from key memory into key memory (RFC 5869)."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.utils import Buffer

from spike.memory import KeyMemory

_OUTPUT_LIMIT_BYTES: Final = 255 * 64


def derive_into(key: KeyMemory, info: bytes, out: KeyMemory) -> None:
    """Fill `out` with HKDF-SHA512(salt empty, `key`, `info`); `info` says what the result is for.

    Extract and expand, so `key` need not be uniform. No copy of either is left outside of them.

    Raises:
        WipedError: `key` or `out` is gone.
        ValueError: `out` is larger than HKDF gives (16,320 bytes).
    """
    if out.size_bytes > _OUTPUT_LIMIT_BYTES:
        raise ValueError("HKDF-SHA512 gives at most 16,320 bytes")
    with key.view() as source, out.view() as target:
        _derive_into(source, info, target)
        # HKDF hands each hash block through a bytes object and the stack, and frees both without
        # overwriting them (seen from outside). The same call, right after it, with the same sizes
        # and nothing secret, gets the same memory and writes over it.
        _derive_into(bytes(len(source)), info, bytearray(len(target)))


def _derive_into(source: Buffer, info: bytes, target: Buffer) -> None:
    HKDF(SHA512(), memoryview(target).nbytes, None, info).derive_into(source, target)
