"""Fuzz targets of spike.secret: each takes any bytes and raises nothing but what its docstring says."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from spike.error import FormatError, OpenError
from spike.memory import KeyMemory
from spike.secret.cipher_blob import (
    CipherTriple,
    join_untrusted,
    open_blob_untrusted,
    seal_blob,
    split,
)
from spike.secret.encoding import (
    decode_meta_untrusted,
    decode_values_untrusted,
    encode_meta,
    encode_values,
)


def meta(data: bytes) -> None:
    """What is accepted re-encodes to the same bytes."""
    try:
        decoded = decode_meta_untrusted(data)
    except FormatError:
        return
    assert encode_meta(decoded) == data


def values(data: bytes) -> None:
    """What is accepted re-encodes to the same bytes."""
    try:
        decoded = decode_values_untrusted(data)
    except FormatError:
        return
    assert encode_values(decoded) == data


@cache
def _key() -> KeyMemory:
    return KeyMemory.generate()


def blob(data: bytes) -> None:
    """FormatError or OpenError, never a plaintext: nobody sealed it."""
    try:
        open_blob_untrusted(lambda _: _key(), bytes(16), data)
    except (FormatError, OpenError):
        return
    raise AssertionError("a blob that nobody sealed was opened")


def triple(data: bytes) -> None:
    """FormatError, or the blob of which this is the triple; the first byte is the version."""
    given = CipherTriple(data[0] if data else 0, data[1:13], data[13:])
    try:
        joined = join_untrusted(given)
    except FormatError:
        return
    assert split(joined) == given


def sealed(data: bytes) -> None:
    """Any plaintext comes back, and not when a bit of its blob is turned; the first byte says which."""
    made = seal_blob(_key(), 1, bytes(16), data)
    assert open_blob_untrusted(lambda _: _key(), bytes(16), made) == data
    changed = bytearray(made)
    changed[(data[0] if data else 0) % len(made)] ^= 1 << (len(data) % 8)
    blob(bytes(changed))


TARGETS: dict[str, Callable[[bytes], None]] = {
    "secret-meta": meta,
    "secret-values": values,
    "cipher-blob": blob,
    "cipher-triple": triple,
    "cipher-round-trip": sealed,
}
SEEDS: dict[str, bytes] = {"cipher-blob": b"\1\1\1\0\0\0\1" + bytes(80)}
