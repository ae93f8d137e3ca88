"""The one text form of everything the root key authenticates: keyring, anchor, key backup.

Three lines, each ended by a line feed:

    spike-<thing> <format>
    <body: one line of canonical JSON>
    mac <64 hexadecimal digits>

The MAC covers every byte before its own line. The format number stands first, so that a newer document is named as
such before anything else of it is read. The body is canonical: what is accepted re-encodes to the same bytes.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple, TypeVar

import msgspec

from spike.crypto.mac import mac, mac_matches
from spike.error import FormatError, NewerFormatError
from spike.memory.key_memory import KeyMemory

_HEAD: Final = re.compile(rb"spike-([a-z]{1,16}) ([1-9][0-9]{0,8})\Z")
_TAIL: Final = re.compile(rb"mac ([0-9a-f]{64})\n\Z")
_TAIL_SIZE_BYTES: Final = 4 + 64 + 1

Body = TypeVar("Body", bound=msgspec.Struct)


class Document(NamedTuple):
    """A document split into its parts; nothing in it is authenticated yet."""

    format: int
    body: bytes
    covered: bytes
    tag: bytes

    def confirmed_by(self, key: KeyMemory) -> bool:
        """Return whether the MAC fits, in constant time. `key` is 32 bytes."""
        return mac_matches(key, self.covered, self.tag)


def compose(thing: str, format_number: int, body: msgspec.Struct, key: KeyMemory) -> bytes:
    """Return the document of a body, authenticated with `key`."""
    covered = b"spike-%b %d\n%b\n" % (thing.encode(), format_number, msgspec.json.encode(body))
    return covered + b"mac %b\n" % mac(key, covered).hex().encode()


def split_untrusted(raw: bytes, thing: str, known_format: int, limit_bytes: int) -> Document:
    """Take a document from outside apart.

    Raises:
        NewerFormatError: it has a format this version does not know yet.
        FormatError: it is too large or no document of this thing.
    """
    if len(raw) > limit_bytes:
        raise FormatError(f"the {thing} is larger than {limit_bytes} bytes")
    head, _, rest = raw.partition(b"\n")
    match = _HEAD.match(head)
    if match is None or match[1] != thing.encode():
        raise FormatError(f"this is no {thing}")
    number = int(match[2])
    if number > known_format:
        raise NewerFormatError(thing, number, known_format)
    tail = _TAIL.match(rest[-_TAIL_SIZE_BYTES:])
    body = rest[: -_TAIL_SIZE_BYTES - 1]
    if tail is None or b"\n" in body or rest[-_TAIL_SIZE_BYTES - 1 : -_TAIL_SIZE_BYTES] != b"\n":
        raise FormatError(f"the {thing} is damaged: it is cut short or has been changed")
    covered = raw[:-_TAIL_SIZE_BYTES]
    return Document(number, body, covered, bytes.fromhex(tail[1].decode()))


def read_untrusted(body: bytes, shape: type[Body], thing: str) -> Body:
    """Return the body as `shape`.

    Raises:
        FormatError: it is not of that shape, or not in its one canonical encoding.
    """
    try:
        value = msgspec.json.decode(body, type=shape)
        canonical = msgspec.json.encode(value) == body
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # The text of a decoding error can quote its input: only the kind of failure is told.
        raise FormatError(f"the {thing} is damaged: its body is malformed") from error
    if not canonical:
        raise FormatError(f"the {thing} is damaged: its body is not in canonical form")
    return value
