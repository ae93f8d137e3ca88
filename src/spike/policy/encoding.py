"""The stored form of a policy, sealed when stored; the access list keeps its digest.

    [1, name, SPIFFE pattern, path pattern, [permission, …], created, updated]

Permissions stand in the order of the contract, each once. Times are nanoseconds since 1970-01-01 UTC.
"""

from __future__ import annotations

from typing import Final

from spike.error import FormatError, InputError
from spike.policy.rule import Permission, Policy, PolicyName, sorted_permissions
from spike.wire.canonical import Stored, decode_canonical_untrusted, encode_canonical
from spike.wire.go_time import StoredMoment
from spike.wire.validate import (
    check_name,
    check_path_pattern,
    check_permissions,
    check_spiffe_pattern,
)

POLICY_FORMAT: Final = 1
POLICY_LIMIT_BYTES: Final = 16 << 10


class _StoredPolicy(Stored, frozen=True):
    format: int
    name: str
    spiffe_id_pattern: str
    path_pattern: str
    permissions: list[str]
    created_at: StoredMoment
    updated_at: StoredMoment


def encode_policy(policy: Policy) -> bytes:
    """Return the stored form of a policy."""
    return encode_canonical(
        _StoredPolicy(
            POLICY_FORMAT,
            policy.name,
            policy.spiffe_id_pattern,
            policy.path_pattern,
            sorted_permissions(policy.permissions),
            policy.created_at,
            policy.updated_at,
        )
    )


def decode_policy_untrusted(raw: bytes) -> Policy:
    """Read a policy. Whether its patterns compile and reach reserved paths is seen at each check.

    Raises:
        NewerFormatError: it is in the format of a newer SPIKE.
        FormatError: it is damaged, or breaks a rule of form that every policy had to pass.
    """
    stored = decode_canonical_untrusted(
        raw, _StoredPolicy, "policy", POLICY_FORMAT, POLICY_LIMIT_BYTES
    )
    if stored.format != POLICY_FORMAT:
        raise FormatError(f"the policy is damaged: no format {stored.format} ever was")
    try:
        check_name(stored.name)
        check_spiffe_pattern(stored.spiffe_id_pattern)
        check_path_pattern(stored.path_pattern)
        check_permissions(stored.permissions)
    except InputError as error:
        raise FormatError(f"the policy is damaged: {error}") from None
    permissions = frozenset(Permission(permission) for permission in stored.permissions)
    if sorted_permissions(permissions) != stored.permissions:
        raise FormatError("the policy is damaged: its permissions are not in their one order")
    return Policy(
        PolicyName(stored.name),
        stored.spiffe_id_pattern,
        stored.path_pattern,
        permissions,
        stored.created_at,
        stored.updated_at,
    )
