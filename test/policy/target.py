"""Fuzz targets of spike.policy: each takes any bytes and raises nothing but what its docstring says."""

from __future__ import annotations

from collections.abc import Callable

from spike.error import FormatError, InputError
from spike.policy.access_list import decode_access_list_untrusted, encode_access_list
from spike.policy.compiled import CompiledPolicies
from spike.policy.encoding import decode_policy_untrusted, encode_policy
from spike.policy.rule import Permission, new_policy
from spike.spiffe.id import SpiffeId
from spike.wire.go_time import UnixNs

_PEER = SpiffeId.parse_untrusted("spiffe://spike.ist/workload/a")


def stored_policy(data: bytes) -> None:
    """Refused with FormatError, or it re-encodes to the same bytes."""
    try:
        decoded = decode_policy_untrusted(data)
    except FormatError:
        return
    assert encode_policy(decoded) == data


def access_list(data: bytes) -> None:
    """Refused with FormatError, or it re-encodes to the same bytes."""
    try:
        decoded = decode_access_list_untrusted(data)
    except FormatError:
        return
    assert encode_access_list(decoded) == data


def pattern(data: bytes) -> None:
    """Two patterns and a path, each up to a NUL: refused with InputError, or the policy decides."""
    ids, paths, path = [*data.decode("utf-8", "replace").split("\0", 2), "", ""][:3]
    try:
        policy = new_policy("fuzz", ids, paths, ["read"], now=UnixNs(1), replaced=None)
    except InputError:
        return
    decider = CompiledPolicies([policy])
    assert not decider.left_out, "what may be written compiles"
    decider.decide(_PEER, path, Permission.READ)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "stored-policy": stored_policy,
    "access-list": access_list,
    "policy-pattern": pattern,
}
