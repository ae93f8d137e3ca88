"""The text of a recovery shard, as a person keeps it in a file or on paper. Two forms:

    spike-shard:1:<set id>:<threshold>:<index>:<value>:<checksum>     ours
    spike:<index>:<value>                                             Go's

`value` is 32 bytes and `set id` 16, in lower-case hexadecimal; numbers are 1 to 255 without leading zeros. The checksum
is the first four bytes of SHA-256("spike/shard-text/v1/checksum" ‖ the text before its last colon): it finds a mistyped
character, and proves nothing against somebody who makes up a shard. White space around a text is ignored; besides that
each shard has one text in each form.

The value goes from the text straight into key memory and back into a bytearray, digit by digit and without a table
that a secret digit would choose from. The text itself is the caller's: it should be read into a bytearray and
overwritten. What cannot be helped is what a terminal, a pipe or an editor keeps of it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.utils import Buffer

from spike.error import FormatError, NewerFormatError
from spike.memory.key_memory import KEY_BYTES, KeyMemory

FORMAT: Final = 1
LIMIT_BYTES: Final = 1024
THING: Final = "recovery shard"
INDEX_LIMIT: Final = 255
_OWN_HEAD: Final = b"spike-shard"
_THREE_PART_HEAD: Final = b"spike"
_OWN_FIELDS: Final = 7
_THREE_PART_FIELDS: Final = 3
_CHECKSUM_LABEL: Final = b"spike/shard-text/v1/checksum"
_CHECKSUM_DIGITS: Final = 8
_DIGITS: Final = 2 * KEY_BYTES
_SET_ID_DIGITS: Final = 32
_SET_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
_COLON: Final = ord(":")
_ZERO: Final = ord("0")
_WHITE: Final = b" \t\r\n"

_Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class ShardText:
    """What a text says; the caller wipes `value`. Go's form names neither set nor threshold."""

    index: int
    value: KeyMemory
    set_id: str | None
    threshold: int | None


def encode_shard_text(set_id: str, threshold: int, index: int, value: KeyMemory) -> bytearray:
    """Return our form, in ASCII without a line end; the caller overwrites it.

    Raises:
        ValueError: a set id not of 32 lower-case hexadecimal digits, a number outside 1 to 255, a value not of
            32 bytes.
        WipedError: `value` is gone.
    """
    if not _SET_ID.match(set_id) or not 1 <= threshold <= INDEX_LIMIT:
        raise ValueError("a recovery shard has a set id of 32 digits and a threshold of 1 to 255")
    head = f"spike-shard:{FORMAT}:{set_id}:{threshold}:"
    text = _compose(head, index, value, 1 + _CHECKSUM_DIGITS)
    covered = len(text) - 1 - _CHECKSUM_DIGITS
    text[covered:] = b":" + _checksum(memoryview(text)[:covered])
    return text


def encode_three_part(index: int, value: KeyMemory) -> bytearray:
    """Return Go's form, in ASCII without a line end; the caller overwrites it.

    Raises:
        ValueError: an index outside 1 to 255, a value not of 32 bytes.
        WipedError: `value` is gone.
    """
    return _compose("spike:", index, value, 0)


def decode_shard_text_untrusted(text: Buffer) -> ShardText:
    """Read either form, of at most 1 KiB with the white space around it.

    Raises:
        NewerFormatError: written by a newer SPIKE.
        FormatError: it is none, or mistyped; the message says where to look and repeats nothing of the text.
        SettingError: RLIMIT_MEMLOCK leaves no room.
    """
    with memoryview(text) as raw:
        if raw.nbytes > LIMIT_BYTES:
            raise FormatError(f"a recovery shard is one line, and this is over {LIMIT_BYTES} bytes")
        fields = _fields(raw)
        if _is(raw, fields[0], _OWN_HEAD):
            return _decode_own(raw, fields)
        if _is(raw, fields[0], _THREE_PART_HEAD):
            _require_count(fields, _THREE_PART_FIELDS)
            index = _number(raw, fields[1], "index")
            return ShardText(index, _value(raw, fields[2]), None, None)
    raise FormatError("a recovery shard begins with spike-shard: or with spike:")


def _decode_own(raw: memoryview, fields: Sequence[_Span]) -> ShardText:
    version = _number(raw, fields[1], "format") if len(fields) > 1 else FORMAT
    if version > FORMAT:
        raise NewerFormatError(THING, version, FORMAT)
    _require_count(fields, _OWN_FIELDS)
    set_id = _set_id(raw, fields[2])
    threshold = _number(raw, fields[3], "threshold")
    index = _number(raw, fields[4], "index")
    value = _value(raw, fields[5])
    if not _is(raw, fields[6], _checksum(raw[fields[0][0] : fields[5][1]])):
        value.wipe()
        raise FormatError("the checksum does not fit: a character of the recovery shard is wrong")
    return ShardText(index, value, set_id, threshold)


def _fields(raw: memoryview) -> list[_Span]:
    """Return where each part between colons begins and ends, without the white space around the text."""
    start, end = 0, len(raw)
    while start < end and raw[start] in _WHITE:
        start += 1
    while start < end and raw[end - 1] in _WHITE:
        end -= 1
    colons = [place for place in range(start, end) if raw[place] == _COLON]
    return list(zip([start, *(each + 1 for each in colons)], [*colons, end], strict=True))


def _require_count(fields: Sequence[_Span], count: int) -> None:
    if len(fields) != count:
        raise FormatError(
            f"a recovery shard of this form has {count} parts between colons; here are {len(fields)}"
        )


def _is(raw: memoryview, span: _Span, expected: bytes) -> bool:
    return hmac.compare_digest(raw[slice(*span)], expected)


def _number(raw: memoryview, span: _Span, name: str) -> int:
    start, end = span
    digits = [raw[place] - _ZERO for place in range(start, min(end, start + 4))]
    if not 1 <= len(digits) <= 3 or not all(0 <= digit <= 9 for digit in digits):
        raise FormatError(f"the {name} of a recovery shard is a number from 1 to 255")
    number = int("".join(map(str, digits)))
    if number == 0:
        raise FormatError(f"the {name} of a recovery shard is never 0")
    if digits[0] == 0:
        raise FormatError(f"the {name} of the recovery shard begins with a zero")
    if number > INDEX_LIMIT:
        raise FormatError(f"the {name} of a recovery shard is at most 255")
    return number


def _set_id(raw: memoryview, span: _Span) -> str:
    start, end = span
    # Looked at before it is copied: in a mistyped text anything may stand here.
    if end - start == _SET_ID_DIGITS:
        text = raw[start:end].tobytes().decode("latin-1")
        if _SET_ID.match(text):
            return text
    raise FormatError(
        f"the set id of a recovery shard is {_SET_ID_DIGITS} lower-case hexadecimal digits"
    )


def _value(raw: memoryview, span: _Span) -> KeyMemory:
    start, end = span
    if end - start != _DIGITS:
        raise FormatError(
            f"the value of a recovery shard has {_DIGITS} hexadecimal digits; here are {end - start}"
        )
    value = KeyMemory.allocate(KEY_BYTES)
    try:
        with value.view() as target:
            for place in range(_DIGITS):
                nibble = _nibble(raw[start + place])
                if nibble < 0:
                    raise FormatError(  # noqa: TRY301  (what was read so far has to be wiped)
                        f"character {place + 1} of the value is no lower-case hexadecimal digit"
                    )
                target[place // 2] |= nibble << (0 if place % 2 else 4)
    except BaseException:
        value.wipe()
        raise
    return value


def _nibble(code: int) -> int:
    """Return the value of a lower-case hexadecimal digit, or -1; which digit it is decides no branch."""
    digit = ~(((code - 48) | (57 - code)) >> 8)  # -1 from "0" to "9", else 0
    letter = ~(((code - 97) | (102 - code)) >> 8)  # -1 from "a" to "f", else 0
    return ((code - 48) & digit) | ((code - 87) & letter) | ~(digit | letter)


def _compose(head: str, index: int, value: KeyMemory, room: int) -> bytearray:
    """Return head, index and value in one bytearray with `room` more bytes, so that none is copied as it grows."""
    if not 1 <= index <= INDEX_LIMIT or value.size_bytes != KEY_BYTES:
        raise ValueError("a recovery shard has an index of 1 to 255 and a value of 32 bytes")
    front = f"{head}{index}:".encode()
    text = bytearray(len(front) + _DIGITS + room)
    text[: len(front)] = front
    with value.view() as source:
        for place in range(_DIGITS):
            nibble = source[place // 2] >> (0 if place % 2 else 4) & 0x0F
            text[len(front) + place] = nibble + 48 + (((9 - nibble) >> 4) & 39)
    return text


def _checksum(covered: memoryview) -> bytes:
    with covered:  # released before the buffer below it is
        hashed = hashlib.sha256(_CHECKSUM_LABEL)
        hashed.update(covered)
    return hashed.hexdigest()[:_CHECKSUM_DIGITS].encode()
