"""What a policy may be, and which ones count for the reserved paths."""

from __future__ import annotations

import pytest

from spike.error import InputError
from spike.policy.compiled import CompiledPolicies
from spike.policy.rule import (
    RESERVED_PATHS,
    Permission,
    Policy,
    PolicyName,
    is_exact,
    new_policy,
)
from spike.spiffe.id import SpiffeId
from spike.wire.go_time import UnixNs

EXACT = r"^spiffe://spike\.ist/admin$"
ADMIN = SpiffeId.parse_untrusted("spiffe://spike.ist/admin")


def written(
    ids: str = EXACT, paths: str = "^a$", permissions: tuple[str, ...] = ("read",)
) -> Policy:
    return new_policy("a policy", ids, paths, permissions, now=UnixNs(5), replaced=None)


def test_a_policy_that_replaces_another_keeps_its_time_of_creation() -> None:
    first = written()
    assert (first.created_at, first.updated_at) == (5, 5)
    second = new_policy("a policy", EXACT, "^b$", ["list"], now=UnixNs(9), replaced=first)
    assert (second.created_at, second.updated_at) == (5, 9)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("name", ("a/b", EXACT, "^a$", ["read"])),
        ("spiffeidPattern", ("a", "https://spike.ist", "^a$", ["read"])),
        ("pathPattern", ("a", EXACT, "a b", ["read"])),
        ("permission", ("a", EXACT, "^a$", ["Read"])),
        ("permissions", ("a", EXACT, "^a$", [])),
    ],
)
def test_each_value_of_a_new_policy_is_validated(
    field: str, values: tuple[str, str, str, list[str]]
) -> None:
    with pytest.raises(InputError, match=field):
        new_policy(*values, now=UnixNs(1), replaced=None)


@pytest.mark.parametrize(
    ("ids", "paths"),
    [
        pytest.param(EXACT, "(", id="open bracket"),
        pytest.param(EXACT, "a**", id="double repetition"),
        pytest.param(EXACT, r"(a)\1", id="back-reference"),
        pytest.param(EXACT, "(?=a)", id="look-ahead, forbidden by its characters"),
        pytest.param(EXACT, "a{1001}", id="too many repetitions"),
        pytest.param(EXACT, "[b-a]", id="backward range"),
        pytest.param(EXACT, "a\\", id="open escape"),
        pytest.param(r"^spiffe://spike\.ist/(a$", "^a$", id="open bracket in the SPIFFE pattern"),
        pytest.param(r"^spiffe://spike\.ist/[$", "^a$", id="open class in the SPIFFE pattern"),
    ],
)
def test_a_pattern_that_does_not_compile_is_bad_input(ids: str, paths: str) -> None:
    with pytest.raises(InputError):
        written(ids, paths)


def test_a_short_pattern_that_asks_for_a_huge_program_is_bad_input() -> None:
    with pytest.raises(InputError, match="too large"):
        written(paths="((.{30}){30}|(.{30}){30}){1}" * 17)


@pytest.mark.parametrize("path", RESERVED_PATHS)
@pytest.mark.parametrize(
    ("paths", "describes"),
    [
        ("^{}$", True),
        ("{}", True),
        ("^{}", True),
        (".*", True),
        ("^.*$", True),
        ("^spike/.*$", True),
        ("spike/system/.*", True),
        ("^(x|{})$", True),
        ("acl|secret|exec", False),
        ("spike", False),
        ("^spike/", False),
        ("system", False),
        (".", False),
        ("/", False),
        ("()", False),
        (r"\Qspike", False),
    ],
)
def test_a_policy_reaches_a_reserved_path_only_if_its_pattern_describes_all_of_it(
    path: str, paths: str, describes: bool
) -> None:
    pattern = paths.format(path)
    assert _accepted(EXACT, pattern) is describes
    assert _counts(EXACT, pattern, path) is describes


@pytest.mark.parametrize("path", RESERVED_PATHS)
@pytest.mark.parametrize(
    ("ids", "exact"),
    [
        (r"^spiffe://spike\.ist/admin$", True),
        (r"^spiffe://.*$", True),
        (r"spiffe://.*", True),
        (r"^spiffe://.*", True),
        (r"spiffe://.+", True),
        (r"spiffe://spike\.ist/admin", False),
        (r"^spiffe://spike\.ist/admin", False),
        (r"spiffe://spike\.ist/admin$", False),
        (r"spiffe://spike\.ist/.*", False),
        (r"^spiffe://spike\.ist/admin\Q", False),
        (r"spiffe://.*/admin", False),
        (r"spiffe://[a-z]*/.*", False),
    ],
)
def test_a_policy_counts_for_a_reserved_path_only_if_its_spiffe_pattern_is_exact(
    path: str, ids: str, exact: bool
) -> None:
    assert is_exact(ids) is exact
    assert _accepted(ids, f"^{path}$") is exact
    assert _counts(ids, f"^{path}$", path) is exact


@pytest.mark.parametrize(
    "paths", ["^tenants/.*$", "tenants", "spike/system/acl/x", "^acl$", "secret$x"]
)
def test_a_policy_that_reaches_no_reserved_path_may_be_as_loose_as_it_likes(paths: str) -> None:
    assert _accepted("spiffe://spike.ist", paths)


def test_the_refusal_names_the_path_and_says_what_to_do() -> None:
    with pytest.raises(InputError, match="spike/system/acl") as caught:
        written(paths="acl")
    assert "pathPattern" in caught.value.next_step


def test_paths_beside_the_reserved_ones_follow_the_ordinary_rule() -> None:
    policies = CompiledPolicies([_stored("spiffe://spike.ist/admin", "spike/system/acl")])
    assert policies.decide(ADMIN, "spike/system/acl/x", Permission.READ)
    assert not policies.decide(ADMIN, "spike/system/acl", Permission.READ)


def _accepted(ids: str, paths: str) -> bool:
    try:
        written(ids, paths)
    except InputError as error:
        if "reserved path" not in error.message:
            raise  # refused for something else than what this is about
        return False
    return True


def _counts(ids: str, paths: str, path: str) -> bool:
    """Whether it counts when it is in the store all the same, written under another rule."""
    return CompiledPolicies([_stored(ids, paths)]).decide(ADMIN, path, Permission.READ)


def _stored(ids: str, paths: str) -> Policy:
    permissions = frozenset({Permission.READ})
    return Policy(PolicyName("stored"), ids, paths, permissions, UnixNs(1), UnixNs(1))
