"""Fuzz targets of spike.wire: each takes any bytes and raises nothing but what its docstring says."""

from __future__ import annotations

import json
from collections.abc import Callable

from spike.error import FormatError, InputError
from spike.wire import go_json, own, secret
from spike.wire.call import CALLS
from spike.wire.go_time import go_time, parse_go_time_untrusted
from spike.wire.message import Message
from spike.wire.operator import ShardRestoreRequest
from spike.wire.policy import PolicyPutRequest
from spike.wire.validate import check_path_pattern, check_spiffe_pattern

_REQUESTS: tuple[type[Message], ...] = (
    secret.SecretPutRequest,
    secret.SecretGetManyRequest,
    secret.SecretVersionsRequest,
    PolicyPutRequest,
    ShardRestoreRequest,
    own.FileRestoreRequest,
)


def request(data: bytes) -> None:
    """Refused with InputError, or JSON that comes back as the same message when written and read."""
    for message_type in _REQUESTS:
        try:
            message = go_json.decode_untrusted(message_type, data)
        except InputError:
            continue
        json.loads(data)  # never more liberal than a JSON parser
        again = go_json.decode_untrusted(message_type, go_json.encode(message), len(data) * 8 + 999)
        assert again == message


def answer(data: bytes) -> None:
    """Refused with FormatError, or read, by every type of answer."""
    for call in CALLS:
        try:
            message = go_json.decode_answer_untrusted(call.answer, data)
        except FormatError:
            continue
        assert go_json.decode_answer_untrusted(call.answer, go_json.encode(message)) == message


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
