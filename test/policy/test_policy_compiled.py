"""Decisions of the compiled set, against one search for each policy; and its bounds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from size import size
from spike.error import InputError
from spike.policy import compiled
from spike.policy.compiled import CompiledPolicies
from spike.policy.rule import (
    RESERVED_PATHS,
    Permission,
    Policy,
    PolicyName,
    counts_for_reserved,
)
from spike.spiffe.id import SpiffeId
from spike.wire.go_time import UnixNs

PERMISSIONS = tuple(Permission)


def policy(name: str, ids: str, paths: str, *permissions: Permission) -> Policy:
    moment = UnixNs(1)
    return Policy(PolicyName(name), ids, paths, frozenset(permissions), moment, moment)


def oracle(policies: Sequence[Policy], peer: SpiffeId, path: str, wanted: Permission) -> bool:
    """The rule as wire.md says it, policy by policy."""
    for one in policies:
        if wanted not in one.permissions and Permission.SUPER not in one.permissions:
            continue
        if not re2.search(one.spiffe_id_pattern, str(peer)) or not re2.search(
            one.path_pattern, path
        ):
            continue
        if path in RESERVED_PATHS and not counts_for_reserved(one, path):
            continue
        return True
    return False


ID_PATTERNS = (
    r"^spiffe://spike\.ist/a$",
    r"spiffe://spike.ist/a",
    r"^spiffe://.*$",
    r"spiffe://.*",
    r"spiffe://spike\.ist/a/b$",
    r"^spiffe://[a-z]+\.ist/(a|b)",
    r"(?i)^spiffe://SPIKE",
)
PATH_PATTERNS = (
    "^x/y$",
    "x",
    "y$",
    "^x",
    ".*",
    "^x/[a-z]*$",
    "x{2,3}",
    "spike",
    "^spike/system/acl$",
    "^spike/system/.*$",
    "acl|secret",
    "",
    r"\.",
    "^.$",
)
PEERS = tuple(
    SpiffeId.parse_untrusted(text)
    for text in (
        "spiffe://spike.ist",
        "spiffe://spike.ist/a",
        "spiffe://spike.ist/a/b",
        "spiffe://spike.ist/ab",
        "spiffe://spikexist/a",
        "spiffe://evil/spike.ist/a",
    )
)
POLICIES = st.lists(
    st.builds(
        lambda ids, paths, permissions: policy("p", ids, paths, *permissions),
        st.sampled_from(ID_PATTERNS),
        st.sampled_from(PATH_PATTERNS),
        st.sets(st.sampled_from(PERMISSIONS), min_size=1, max_size=3),
    ),
    max_size=8,
)
PATHS = st.sampled_from(
    ("x/y", "xx", "x", "y", "", "X/Y", "a.b", "é", "x\n", "\n", "x\x00y", *RESERVED_PATHS)
) | st.text("xy/.é\n", max_size=6)


@settings(max_examples=size(test=300, proof=50_000), deadline=None, derandomize=True)
@given(POLICIES, st.sampled_from(PEERS), PATHS, st.sampled_from(PERMISSIONS))
def test_the_set_decides_as_one_search_for_each_policy_would(
    policies: list[Policy], peer: SpiffeId, path: str, wanted: Permission
) -> None:
    expected = oracle(policies, peer, path, wanted)
    decider = CompiledPolicies(policies)
    assert decider.decide(peer, path, wanted) is expected
    assert decider.decide(peer, path, wanted) is expected, "also from what it remembers"


NAMED = st.dictionaries(
    st.integers(0, 39),
    st.tuples(
        st.sampled_from(ID_PATTERNS),
        st.sampled_from((*PATH_PATTERNS, "(")),
        st.sampled_from(PERMISSIONS),
    ),
)


@settings(max_examples=size(test=100, proof=20_000), deadline=None, derandomize=True)
@given(
    st.lists(NAMED, min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from(PEERS), PATHS), max_size=5),
)
def test_policies_changed_little_by_little_decide_as_if_compiled_afresh(
    changes: list[dict[int, tuple[str, str, Permission]]], asked: list[tuple[SpiffeId, str]]
) -> None:
    standing = {
        f"p{n}": policy(f"p{n}", "^spiffe://", f"^{n}/", Permission.READ) for n in range(40)
    }
    decider = CompiledPolicies(standing.values())
    for change in changes:
        for number, (ids, paths, permission) in change.items():
            if number % 3 == 0:
                standing.pop(f"p{number}", None)
            else:
                standing[f"p{number}"] = policy(f"p{number}", ids, paths, permission)
        decider = CompiledPolicies(standing.values(), decider)
        afresh = CompiledPolicies(standing.values())
        assert decider.left_out == afresh.left_out
        for peer, path in asked:
            for wanted in PERMISSIONS:
                expected = afresh.decide(peer, path, wanted)
                assert decider.decide(peer, path, wanted) is expected


def test_a_small_change_of_many_policies_compiles_only_what_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    many = [policy(f"p{n}", "^spiffe://", f"^{n}/", Permission.READ) for n in range(100)]
    first = CompiledPolicies(many)
    compiled_patterns: list[int] = []
    honest = compiled._automaton

    def counting(patterns: Sequence[str]) -> tuple[compiled._Automaton, int]:
        compiled_patterns.append(len(patterns))
        return honest(patterns)

    monkeypatch.setattr(compiled, "_automaton", counting)
    added = policy("new", "^spiffe://", "^new/", Permission.READ)
    second = CompiledPolicies([*many[1:], added], first)
    assert compiled_patterns == [1, 1]
    assert second.decide(PEERS[0], "new/x", Permission.READ)
    assert not second.decide(PEERS[0], "0/x", Permission.READ), "what was deleted allows nothing"
    assert second.decide(PEERS[0], "1/x", Permission.READ)
    replaced = policy("p1", "^spiffe://", "^one/", Permission.READ)
    third = CompiledPolicies([replaced, *many[2:], added], second)
    assert not third.decide(PEERS[0], "1/x", Permission.READ), "what was replaced allows nothing"
    assert third.decide(PEERS[0], "one/x", Permission.READ)
    CompiledPolicies(many[50:], third)
    assert compiled_patterns[-2:] == [50, 50]


def test_what_is_written_little_by_little_can_be_compiled_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Small sizes, so that the last is reached soon. A server that starts compiles all at once.
    monkeypatch.setattr(compiled, "_SET_MEMORY_BYTES", (1 << 16, 1 << 18, 1 << 20))
    standing: list[Policy] = []
    decider = CompiledPolicies(standing)
    refused_at = None
    for number in range(2000):
        following = [
            *standing,
            policy(f"p{number}", "^spiffe://", f"^{number}/x{{40}}", Permission.READ),
        ]
        try:
            decider = CompiledPolicies(following, decider)
        except InputError:
            refused_at = number
            break
        standing = following
        if number % 25 == 0:
            CompiledPolicies(standing)
    assert refused_at is not None, "the sizes are chosen so that the end is reached"
    CompiledPolicies(standing)
    with pytest.raises(InputError):
        CompiledPolicies(following)


def test_no_policy_allows_nothing() -> None:
    decider = CompiledPolicies([])
    assert not decider.candidates(PEERS[1], Permission.READ)
    assert not decider.decide(PEERS[1], "x", Permission.READ)


def test_patterns_are_found_anywhere_in_the_text() -> None:
    decider = CompiledPolicies([policy("p", "spike.ist/a", "db", Permission.READ)])
    assert decider.decide(PEERS[2], "tenants/db/creds", Permission.READ)


def test_one_single_policy_must_match_both_and_hold_the_permission() -> None:
    decider = CompiledPolicies(
        [
            policy("who", r"^spiffe://spike\.ist/a$", "^other$", Permission.READ),
            policy("where", r"^spiffe://nobody$", "^x$", Permission.READ),
            policy("what", r"^spiffe://spike\.ist/a$", "^x$", Permission.WRITE),
        ]
    )
    assert not decider.decide(PEERS[1], "x", Permission.READ)


@pytest.mark.parametrize("wanted", PERMISSIONS)
def test_super_satisfies_every_permission_and_nothing_else_does(wanted: Permission) -> None:
    for held in PERMISSIONS:
        decider = CompiledPolicies([policy("p", "spiffe", "x", held)])
        allowed = decider.decide(PEERS[1], "x", wanted)
        assert allowed is (held in {wanted, Permission.SUPER})


def test_a_policy_re2_refuses_is_left_out_and_named_and_the_others_count() -> None:
    decider = CompiledPolicies(
        [
            policy("bad path", "spiffe", "(", Permission.READ),
            policy("good", "spiffe", "^x$", Permission.READ),
            policy("bad id", "spiffe[", ".*", Permission.READ),
        ]
    )
    assert decider.left_out == ("bad id", "bad path")
    assert decider.decide(PEERS[1], "x", Permission.READ)
    assert not decider.decide(PEERS[1], "y", Permission.READ)


def test_policies_too_large_together_are_refused_when_they_are_compiled() -> None:
    # Each is below its own bound of memory, all together above that of a set.
    large = [
        policy(f"p{n}", "spiffe", f"(.{{30}}){{30}}{n}(.{{30}}){{20}}", Permission.READ)
        for n in range(1400)
    ]
    with pytest.raises(InputError, match="too large together"):
        CompiledPolicies(large)


def test_ten_thousand_policies_decide_for_each_its_own() -> None:
    count = 10_000
    decider = CompiledPolicies(
        policy(f"p{n}", rf"^spiffe://spike\.ist/w{n}$", f"^t{n}/.*$", Permission.READ)
        for n in range(count)
    )
    for n in (0, 1, 4_999, count - 1):
        peer = SpiffeId.parse_untrusted(f"spiffe://spike.ist/w{n}")
        assert decider.decide(peer, f"t{n}/db", Permission.READ)
        assert not decider.decide(peer, f"t{n + 1}/db", Permission.READ)
        assert not decider.decide(peer, f"t{n}/db", Permission.WRITE)
    outside = SpiffeId.parse_untrusted(f"spiffe://spike.ist/w{count}")
    assert not decider.decide(outside, "t0/db", Permission.READ)


def test_decisions_stay_right_when_the_automaton_runs_out_of_memory_for_its_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The smallest memory that holds the program at all: RE2 must forget states again and again.
    policies = [policy(f"p{n}", "spiffe", f"{n}.*x.*{n}", Permission.READ) for n in range(300)]
    for memory_bytes in range(1 << 16, 1 << 22, 1 << 14):
        monkeypatch.setattr(compiled, "_SET_MEMORY_BYTES", (memory_bytes,))
        try:
            decider = CompiledPolicies(policies)
            break
        except InputError:
            continue
    for n in range(300):
        path = f"{n * 7919}/x{n}" * 9
        expected = any(re2.search(one.path_pattern, path) for one in policies)
        assert decider.decide(PEERS[0], path, Permission.READ) is expected


def test_what_is_remembered_of_callers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_MEMORY_LIMIT", 50)
    decider = CompiledPolicies([policy("p", "/w1", "x", Permission.READ)])
    for n in range(200):
        peer = SpiffeId.parse_untrusted(f"spiffe://spike.ist/w{n}")
        assert decider.decide(peer, "x", Permission.READ) is str(n).startswith("1")
        assert len(decider._remembered) <= 50
