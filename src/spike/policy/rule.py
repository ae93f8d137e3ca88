"""One policy: who (a pattern over SPIFFE IDs) may do what (permissions) where (a pattern over paths).

Both patterns are RE2 regular expressions and match when they are found anywhere in the text, as Go's do.

Three paths are reserved: they stand for rights over SPIKE itself. There a pattern that merely occurs
in the text would give away too much, so a policy counts for a reserved path only if its path pattern
describes the whole path and its SPIFFE pattern is exact: anchored at both ends, or a catch-all. The
rule is enforced when a policy is written, and again at each check, because what is stored may have been
written under another rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, NewType, Protocol

import re2

from spike.error import InputError
from spike.wire.go_time import UnixNs
from spike.wire.validate import (
    check_name,
    check_path_pattern,
    check_permissions,
    check_spiffe_pattern,
)

PolicyName = NewType("PolicyName", str)

ACL_PATH: Final = "spike/system/acl"
SECRET_PATH: Final = "spike/system/secret"  # noqa: S105  (a path, no password)
CIPHER_PATH: Final = "spike/system/cipher/exec"
RESERVED_PATHS: Final = (ACL_PATH, SECRET_PATH, CIPHER_PATH)

# IDs that share nothing but the scheme. A SPIFFE pattern that describes each of them whole names no one
# in particular.
_ARBITRARY_IDS: Final = (
    "spiffe://catch-all.probe.invalid",
    "spiffe://7z.q/Some_path/of-4.segments/x",
    "spiffe://" + "k9-" * 60 + "e/" + "T_0." * 40,
)

# RE2 refuses a pattern whose program would not fit. 500 characters can ask for very many repetitions;
# this allows about 40,000 instructions, far above any honest pattern.
_PATTERN_MEMORY_BYTES: Final = 1 << 20


class Permission(Enum):
    """What a policy can allow. SUPER satisfies all."""

    READ = "read"
    WRITE = "write"
    LIST = "list"
    EXECUTE = "execute"
    SUPER = "super"


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy. Its name is its identity."""

    name: PolicyName
    spiffe_id_pattern: str
    path_pattern: str
    permissions: frozenset[Permission]
    created_at: UnixNs
    updated_at: UnixNs

    def holds(self, wanted: Permission) -> bool:
        """Return whether this policy alone has the permission."""
        return wanted in self.permissions or Permission.SUPER in self.permissions


def new_policy(
    name: str,
    spiffe_id_pattern: str,
    path_pattern: str,
    permissions: Sequence[str],
    *,
    now: UnixNs,
    replaced: Policy | None,
) -> Policy:
    """Make a policy from a request; one that replaces another keeps its time of creation.

    Raises:
        InputError: a value breaks a rule of the wire contract, sections 2 and 3.
    """
    check_name(name)
    check_spiffe_pattern(spiffe_id_pattern)
    check_path_pattern(path_pattern)
    check_permissions(permissions)
    policy = Policy(
        PolicyName(name),
        spiffe_id_pattern,
        path_pattern,
        frozenset(Permission(permission) for permission in permissions),
        replaced.created_at if replaced else now,
        now,
    )
    check_policy(policy)
    return policy


def check_policy(policy: Policy) -> None:
    """Check what the form of its texts cannot show.

    Raises:
        InputError: a pattern does not compile, or the policy reaches a reserved path that it may not.
    """
    compile_pattern(policy.spiffe_id_pattern, "spiffeidPattern")
    path_pattern = compile_pattern(policy.path_pattern, "pathPattern")
    for path in RESERVED_PATHS:
        if path_pattern.search(path) and not counts_for_reserved(policy, path):
            raise InputError(
                f"the policy reaches the reserved path {path} without naming it",
                "describe the whole path in pathPattern and anchor spiffeidPattern with ^ and $,"
                " or choose a pathPattern that does not match reserved paths",
            )


def counts_for_reserved(policy: Policy, path: str) -> bool:
    """Return whether a policy counts for this reserved path, its permissions aside."""
    return _describes(policy.path_pattern, path) and is_exact(policy.spiffe_id_pattern)


def is_exact(spiffe_id_pattern: str) -> bool:
    """Return whether a SPIFFE pattern is anchored at both ends, or is a catch-all."""
    if spiffe_id_pattern.startswith("^") and spiffe_id_pattern.endswith("$"):
        return True
    return all(_describes(spiffe_id_pattern, arbitrary) for arbitrary in _ARBITRARY_IDS)


class Pattern(Protocol):
    """A compiled pattern."""

    def search(self, text: str) -> object | None:
        """Return something if the pattern is found anywhere in `text`."""


def compile_pattern(pattern: str, field: str) -> Pattern:
    """Compile one pattern.

    Raises:
        InputError: RE2 refuses it. The message gives RE2's reason, which quotes the pattern: patterns
            are no secrets.
    """
    try:
        compiled: Pattern = re2.compile(pattern, options=pattern_options())
    except re2.error as error:
        raise InputError(f"the {field} is no regular expression of RE2: {_reason(error)}") from None
    return compiled


def pattern_options(memory_bytes: int = _PATTERN_MEMORY_BYTES) -> re2.Options:
    """Return how SPIKE compiles patterns: RE2's defaults, which are Go's, within a bound of memory."""
    options = re2.Options()
    options.max_mem = memory_bytes
    options.never_capture = True
    options.log_errors = False
    return options


def sorted_permissions(permissions: Iterable[Permission]) -> list[str]:
    """Return permissions in the order the contract lists them."""
    present = set(permissions)
    return [permission.value for permission in Permission if permission in present]


def _describes(pattern: str, text: str) -> bool:
    try:
        whole = compile_pattern(f"^(?:{pattern})$", "pattern")
    except InputError:
        # A pattern can compile alone and not so: an open \Q takes the bracket for text. It describes
        # nothing, as in Go.
        return False
    return whole.search(text) is not None


def _reason(error: Exception) -> str:
    reason = error.args[0] if error.args else ""
    return reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
