"""JSON as Go's encoding/json reads and writes it, so that existing Go clients work unchanged.

Rules of reading (checked against Go 1.26):

* A field's name matches exactly or without regard to case, also `ſ` as `s` and `K` (Kelvin) as `k`.
* Unknown fields are ignored. A missing field has its zero value.
* `null` for a string, an integer or a boolean changes nothing; for a list, a map or bytes it is the
  empty one; the whole body may be `null`.
* Of several values for one field the last counts.
* Integers are written without fraction and exponent and fit 64 bits. No string is a number.
* `[]byte` is base64 with padding, an empty body and trailing text are errors.

Where we differ, each time by refusing what no Go client sends: text that is not UTF-8 and lone
surrogates (Go puts U+FFFD), line breaks in base64, `[]byte` as an array of numbers, more than 64
levels (Go: 10,000). A map given twice is the last one (Go merges them).

The usual body is read by msgspec straight into its type. Only one that has an unknown field, a
field in another case or a null is read a second time and brought into the usual form first, so that
there is one set of rules for what a value may be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeVar, cast

import msgspec
from msgspec import inspect

from spike.error import FormatError, InputError
from spike.wire.message import Message

M = TypeVar("M", bound=Message)

BODY_LIMIT_BYTES = 1 << 20
DEPTH_LIMIT = 64

_ENCODER = msgspec.json.Encoder()

# Strings are taken whole, so that brackets in them do not count. Up to the first malformed byte
# this tokenizes exactly as a JSON parser would.
_DEPTH_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)


def encode(message: Message) -> bytes:
    """Return the JSON text of `message`."""
    return _ENCODER.encode(message)


def decode_untrusted(
    message_type: type[M], body: bytes | bytearray | memoryview, limit_bytes: int = BODY_LIMIT_BYTES
) -> M:
    """Read a request of `message_type`.

    Raises:
        InputError: the body is too large, not JSON, or has a value of another type. The message
            repeats nothing of the body, which may hold a secret.
    """
    try:
        return _decode(message_type, body, limit_bytes)
    except _UnreadableError as error:
        raise InputError(f"the request body {error}") from None


def decode_answer_untrusted(
    message_type: type[M], body: bytes | bytearray | memoryview, limit_bytes: int = BODY_LIMIT_BYTES
) -> M:
    """Read an answer of `message_type` that a server gave.

    Raises:
        FormatError: as `decode_untrusted`, but the fault is the server's.
    """
    try:
        return _decode(message_type, body, limit_bytes)
    except _UnreadableError as error:
        raise FormatError(f"the server's answer {error}") from None


class _UnreadableError(Exception):
    """A body that is not the message wanted; says why in words that follow "the body"."""


def _decode(message_type: type[M], body: bytes | bytearray | memoryview, limit_bytes: int) -> M:
    if len(body) > limit_bytes:
        raise _UnreadableError(f"is larger than {limit_bytes} bytes")
    decoder = cast("msgspec.json.Decoder[M]", _decoder(message_type))
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        pass  # A null, an unknown field or another case; or really wrong.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _UnreadableError("is not one JSON value in UTF-8") from None
    try:
        return decoder.decode(_usual_form(message_type, bytes(body)))
    except (msgspec.MsgspecError, UnicodeError, OverflowError, RecursionError):
        raise _UnreadableError("has a value of another type than wanted") from None


@lru_cache(maxsize=256)
def _decoder(message_type: type[Message]) -> msgspec.json.Decoder[Message]:
    return msgspec.json.Decoder(message_type)


@lru_cache(maxsize=256)
def _type_info(message_type: type[Message]) -> inspect.Type:
    return inspect.type_info(message_type)


def _usual_form(message_type: type[Message], body: bytes) -> bytes:
    """Return `body` with exact field names, without unknown fields and nulls, else the same."""
    _check_depth(body)
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_Pairs,
            parse_int=_integer,
            parse_float=_NotInteger,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError):
        raise _UnreadableError("is not one JSON value in UTF-8") from None
    return _normal(value, _type_info(message_type))


class _Pairs(list[tuple[str, object]]):
    """A JSON object in the order it was written, duplicates and all."""


class _NotInteger:
    """A number with fraction or exponent. No message has one, so its value does not matter."""

    def __init__(self, text: str) -> None: ...


def _integer(text: str) -> int | _NotInteger:
    # 19 digits and a sign are enough for 64 bits; int() of a longer text takes quadratic time.
    return int(text) if len(text) <= 20 else _NotInteger(text)


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")  # NaN and Infinity, which Python's reader would take


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= DEPTH_LIMIT:
        return
    depth = 0
    for token in _DEPTH_TOKEN.finditer(body):
        match token[0]:
            case b"[" | b"{":
                depth += 1
            case b"]" | b"}":
                depth -= 1
        if depth > DEPTH_LIMIT:
            raise _UnreadableError(f"is nested deeper than {DEPTH_LIMIT} levels")


def _normal(value: object, wanted: inspect.Type) -> bytes:
    """Return the JSON text of one value in the usual form. What fits no rule is left to be refused.

    A field given several times stays so: the decoder then checks each value and takes the last.
    """
    match wanted, value:
        case inspect.UnionType(), None:
            return b"null"
        case inspect.UnionType(types=types), _:
            present = next(kind for kind in types if not isinstance(kind, inspect.NoneType))
            return _normal(value, present)
        case _, None:
            return _zero(wanted)
        case inspect.StructType(fields=fields), _Pairs():
            return _object(_known_fields(value, fields))
        case inspect.DictType(value_type=value_type), _Pairs():
            return _object((name, item, value_type) for name, item in value)
        case inspect.ListType(item_type=item_type), list() if not isinstance(value, _Pairs):
            return b"[%b]" % b",".join(_normal(item, item_type) for item in value)
        case _, _Pairs():
            return b"{}"  # an object where none is wanted, whatever it holds
        case _, list():
            return b"[]"  # likewise
        case _, _NotInteger():
            return b"0.5"  # a number that fits no field
        case _:
            return _ENCODER.encode(value)


def _object(fields: Iterable[tuple[str, object, inspect.Type]]) -> bytes:
    pairs = (
        _ENCODER.encode(name) + b":" + _normal(value, wanted) for name, value, wanted in fields
    )
    return b"{%b}" % b",".join(pairs)


def _known_fields(
    pairs: _Pairs, fields: tuple[inspect.Field, ...]
) -> Iterator[tuple[str, object, inspect.Type]]:
    exact = {field.encode_name: field for field in fields}
    folded = {_fold(field.encode_name): field for field in reversed(fields)}
    for name, value in pairs:
        field = exact.get(name) or folded.get(_fold(name))
        # A null where none can stand changes nothing: a value given before stays.
        if field is not None and (value is not None or _null_is_empty(field.type)):
            yield field.encode_name, value, field.type


def _null_is_empty(wanted: inspect.Type) -> bool:
    return isinstance(
        wanted, inspect.ListType | inspect.DictType | inspect.BytesType | inspect.UnionType
    )


def _zero(wanted: inspect.Type) -> bytes:
    match wanted:
        case inspect.StrType() | inspect.BytesType():
            return b'""'
        case inspect.IntType():
            return b"0"
        case inspect.BoolType():
            return b"false"
        case inspect.ListType():
            return b"[]"
        case _:
            return b"{}"


def _fold(name: str) -> str:
    # lower() makes ASCII of exactly one character that is not, the Kelvin sign, as Go does; Go's
    # folding also takes the long s.
    return name.lower().replace("ſ", "s")
