"""Fuzz targets of spike.wire: each takes any bytes and raises nothing but what its docstring says."""

from __future__ import annotations

import json
from collections.abc import Callable

from spike.error import FormatError, InputError
from spike.wire import cipher, go_json, own, secret
from spike.wire.call import CALLS
from spike.wire.go_time import go_time, parse_go_time_untrusted
from spike.wire.message import Message
from spike.wire.operator import ShardRestoreRequest
from spike.wire.policy import PolicyPutRequest
from spike.wire.rotation import KeyRotateRequest
from spike.wire.validate import check_path_pattern, check_spiffe_pattern

_REQUESTS: tuple[type[Message], ...] = (
    secret.SecretPutRequest,
    secret.SecretGetManyRequest,
    secret.SecretVersionsRequest,
    PolicyPutRequest,
    ShardRestoreRequest,
    own.FileRestoreRequest,
    cipher.CipherEncryptRequest,
    cipher.CipherDecryptRequest,
    KeyRotateRequest,
)


_ANSWERS: tuple[type[Message], ...] = tuple(dict.fromkeys(call.answer for call in CALLS))


def _chosen(types: tuple[type[Message], ...], data: bytes) -> tuple[type[Message], bytes]:
    return types[data[0] % len(types) if data else 0], data[1:]


def request(data: bytes) -> None:
    """Refused with InputError, or JSON that comes back as the same message; the first byte chooses the type."""
    message_type, body = _chosen(_REQUESTS, data)
    try:
        message = go_json.decode_untrusted(message_type, body)
    except InputError:
        return
    json.loads(body)  # never more liberal than a JSON parser
    again = go_json.decode_untrusted(message_type, go_json.encode(message), len(body) * 8 + 999)
    assert again == message


def answer(data: bytes) -> None:
    """Refused with FormatError, or read; the first byte chooses the type."""
    message_type, body = _chosen(_ANSWERS, data)
    try:
        message = go_json.decode_answer_untrusted(message_type, body)
    except FormatError:
        return
    assert go_json.decode_answer_untrusted(message_type, go_json.encode(message)) == message


def time(data: bytes) -> None:
    """Refused with FormatError, or the moment comes back from its text."""
    try:
        moment = parse_go_time_untrusted(data.decode("utf-8", "replace"))
    except FormatError:
        return
    assert parse_go_time_untrusted(go_time(moment)) == moment


def validation(data: bytes) -> None:
    """Refused with InputError, or nothing; and soon, whatever the text."""
    text = data.decode("utf-8", "replace")
    for check in (check_spiffe_pattern, check_path_pattern):
        try:
            check(text)
        except InputError:
            continue


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": request,
    "answer": answer,
    "go-time": time,
    "validation": validation,
}
