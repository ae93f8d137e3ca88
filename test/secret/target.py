"""Fuzz targets of spike.secret: each takes any bytes and raises nothing but FormatError."""

from __future__ import annotations

from collections.abc import Callable

from spike.error import FormatError
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


TARGETS: dict[str, Callable[[bytes], None]] = {"secret-meta": meta, "secret-values": values}
