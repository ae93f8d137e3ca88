"""Fuzz targets of Pilot and the client: each takes any bytes and raises nothing but its one error."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from spike.client import anchor
from spike.client.answer import result_of
from spike.client.pool import Reply
from spike.error import FormatError, InputError, SpikeError
from spike.lifecycle.anchor import Anchor
from spike.lifecycle.anchor import encode as encode_statement
from spike.lifecycle.password import MAXIMUM_INPUT_BYTES, normalize_untrusted
from spike.memory.key_memory import KeyMemory
from spike.pilot.policy_file import decode_untrusted
from spike.wire.call import OPERATOR_STATUS
from spike.wire.message import Message


def anchor_file(data: bytes) -> None:
    """What is accepted re-encodes to the same bytes."""
    try:
        seen = anchor.decode_untrusted(data)
    except FormatError:
        return
    assert anchor.encode(seen) == data


def policy_file(data: bytes) -> None:
    """What is accepted has its four fields."""
    try:
        policy = decode_untrusted(data)
    except FormatError:
        return
    assert isinstance(policy.name, str)
    assert all(isinstance(each, str) for each in policy.permissions)


def password(data: bytes) -> None:
    """What has a normal form has one only. (The verdict is too slow to fuzz: see test_password.)"""
    try:
        normal = normalize_untrusted(data)
    except InputError:
        return
    assert len(data) <= MAXIMUM_INPUT_BYTES
    again = unicodedata.normalize("NFKC", normal.decode()).encode()
    assert again == normal


def answer(data: bytes) -> None:
    """The first byte chooses the status; whatever follows is an answer or an error of ours."""
    statuses = (200, 400, 401, 404, 500, 503)
    reply = Reply(statuses[data[0] % len(statuses)] if data else 200, data[1:])
    try:
        assert isinstance(result_of(OPERATOR_STATUS, reply, "status"), Message)
    except SpikeError:
        return


TARGETS: dict[str, Callable[[bytes], None]] = {
    "anchor-file": anchor_file,
    "policy-file": policy_file,
    "password": password,
    "client-answer": answer,
}


def _anchor_seed() -> bytes:
    with KeyMemory.generate() as root:
        raw = encode_statement(Anchor("0" * 32, "1" * 32, 2, 3, 4, "", 1), root)
    moment = datetime(2026, 11, 23, tzinfo=UTC)
    return anchor.encode(anchor.SeenAnchor.of_untrusted(raw, moment, "https://localhost:8553"))


SEEDS: Mapping[str, bytes] = {
    "anchor-file": _anchor_seed(),
    "policy-file": (
        b"name: web\nspiffeidPattern: ^spiffe://a/b$\npathPattern: ^a/\npermissions: [read]\n"
    ),
    "password": "seven otters ﬁnd a café №1".encode(),
    "client-answer": b'\x01{"err":"refused_too_soon","message":"wait","nextStep":"again"}',
}
