"""Fuzz targets: what a Keeper may be sent, and what a Keeper may answer to Nexus.

Each takes any bytes and raises nothing but what the decoder documents. A request goes all the way through its
handler into one Keeper's memory, so that the rules meet every order of calls that the fuzzer thinks of.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Final

from spike.client.exchange import ReplyFraming
from spike.error import FormatError, InputError
from spike.keeper.access import Grant, authorize
from spike.keeper.anchor import HeldAnchor
from spike.keeper.call import HANDLERS
from spike.keeper.safe import Safe
from spike.policy.role import RoleMap
from spike.spiffe.id import SpiffeId
from spike.wire import keeper
from spike.wire.call import AnyCall
from spike.wire.go_json import decode_answer_untrusted, decode_untrusted, encode
from spike.wire.message import Message

_NEXUS: Final = SpiffeId.parse_untrusted("spiffe://spike.ist/spike/nexus")
_ANSWERS: Final[tuple[type[Message], ...]] = (
    keeper.ShardAnswer,
    keeper.ShareAnswer,
    keeper.KeeperStatusAnswer,
    keeper.KeeperRefusalAnswer,
)
_LABEL: Final = {
    "storeId": "a" * 32,
    "lineage": "b" * 32,
    "setId": "c" * 32,
    "generation": 1,
    "index": 1,
    "threshold": 2,
}
_SHARD: Final = list(range(1, 33))


@cache
def _safe() -> Safe:
    return Safe()


@cache
def _grant(call: AnyCall) -> Grant:
    grant = authorize(call, _NEXUS, RoleMap.from_settings({}))
    assert grant is not None
    return grant


def request(data: bytes) -> None:
    """Refused with InputError, or handled; the first byte chooses the call."""
    call = keeper.KEEPER_CALLS[data[0] % len(keeper.KEEPER_CALLS) if data else 0]
    try:
        message = decode_untrusted(call.request, data[1:], keeper.BODY_LIMIT_BYTES)
        answer = HANDLERS[call.name](_grant(call), _safe(), message)
    except InputError:
        return
    assert answer.status in (200, 400, 404)
    raw = encode(answer.message)
    if answer.status == 200:
        assert decode_answer_untrusted(call.answer, raw) == answer.message
    held = _safe().holding.values()
    assert len(held) <= 3
    assert not any(value.wiped for value in held)


def answer(data: bytes) -> None:
    """Refused with FormatError, or read; the first byte chooses the type."""
    message_type = _ANSWERS[data[0] % len(_ANSWERS) if data else 0]
    try:
        message = decode_answer_untrusted(message_type, data[1:], keeper.BODY_LIMIT_BYTES)
    except FormatError:
        return
    assert decode_answer_untrusted(message_type, encode(message)) == message


def reply(data: bytes) -> None:
    """No HTTP, which is FormatError, or an answer within its limit, or not yet whole."""
    framing = ReplyFraming(1024)
    middle = len(data) // 2
    try:
        framing.feed_untrusted(data[:middle])
        framing.feed_untrusted(data[middle:])
    except FormatError:
        return
    assert framing.reply is None or len(framing.reply.body) <= 1024


def anchor(data: bytes) -> None:
    """Refused with InputError, or an anchor that follows itself."""
    try:
        held = HeldAnchor.parse_untrusted(data)
    except InputError:
        return
    assert held.raw == data
    assert held.follows(held)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "request": request,
    "answer": answer,
    "reply": reply,
    "anchor": anchor,
}
SEEDS: dict[str, bytes] = {
    "request": b"\2" + json.dumps(_LABEL | {"shard": _SHARD, "tag": "d" * 64}).encode(),
    "answer": b"\1"
    + json.dumps(
        _LABEL | {"place": "staged", "epoch": 0, "shard": _SHARD, "tag": "d" * 64}
    ).encode(),
    "reply": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "anchor": b"spike-anchor 1\n"
    + json.dumps(
        {
            "store_id": "a" * 32,
            "lineage": "b" * 32,
            "epoch": 1,
            "revision": 2,
            "access_generation": 3,
        }
    ).encode()
    + b"\nmac x\n",
}
