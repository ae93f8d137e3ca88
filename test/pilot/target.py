"""Fuzz targets of Pilot and the client: each takes any bytes and raises nothing but its one error."""

from __future__ import annotations

from collections.abc import Callable

from spike.client import anchor
from spike.client.answer import result_of
from spike.client.pool import Reply
from spike.error import FormatError, InputError, SpikeError
from spike.lifecycle.password import MAXIMUM_INPUT_BYTES, Accepted, normalize_untrusted, verdict
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
    """What is accepted has one normal form, which is accepted and stays as it is."""
    if not isinstance(verdict(data), Accepted):
        return
    assert len(data) <= MAXIMUM_INPUT_BYTES
    try:
        normal = normalize_untrusted(data)
    except InputError as error:
        raise AssertionError("accepted, and has no normal form") from error
    assert normalize_untrusted(normal) == normal


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
