"""The one stored form of small documents: a JSON array whose first element is the format number.

It has exactly one text for each value: fields by position, maps sorted by key, no spaces. What is
accepted re-encodes to the same bytes, so that a digest or a MAC over the text speaks of the value.
The format number stands first, so that a newer document is named as such before anything else is
read.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from spike.error import FormatError, NewerFormatError

_ENCODER = msgspec.json.Encoder(order="deterministic")
_HEAD = re.compile(rb"\[(0|[1-9][0-9]{0,8})[,\]]")


class Stored(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every stored document; its first field is `format`."""


class ConfidentialStored(Stored, frozen=True):
    """A stored document that holds something secret. What prints it sees its type and no more."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return []


D = TypeVar("D", bound=Stored)


def encode_canonical(document: Stored) -> bytes:
    """Return the one text of `document`."""
    return _ENCODER.encode(document)


def decode_canonical_untrusted(
    raw: bytes, shape: type[D], thing: str, known_format: int, limit_bytes: int
) -> D:
    """Read a stored document of `shape`; `thing` names it in errors.

    Raises:
        NewerFormatError: it has a format this version does not know yet.
        FormatError: it is larger than `limit_bytes`, not of this shape, or not in its one text.
    """
    if len(raw) > limit_bytes:
        raise FormatError(f"the {thing} is larger than {limit_bytes} bytes")
    head = _HEAD.match(raw)
    if head is None:
        raise FormatError(f"this is no {thing}")
    found = int(head[1])
    if found > known_format:
        raise NewerFormatError(thing, found, known_format)
    try:
        document = msgspec.json.decode(raw, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The error's own text can quote what it read, so it is not kept.
        raise FormatError(f"the {thing} is damaged: it has another form") from None
    if _ENCODER.encode(document) != raw:
        raise FormatError(f"the {thing} is damaged: it is not in its one form")
    return document
