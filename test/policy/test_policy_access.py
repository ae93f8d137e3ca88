"""The authorization table, walked: every call, every role, with and without a policy.

What is expected is written out below from the wire contract, sections 2 and 7, and not derived from the table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

import pytest

from spike.policy.access import (
    TABLE,
    DenialReason,
    Denied,
    Extent,
    Grant,
    NeedsPath,
    authorize,
)
from spike.policy.compiled import CompiledPolicies
from spike.policy.role import Role, RoleMap
from spike.policy.rule import Permission, Policy, PolicyName
from spike.spiffe.id import SpiffeId
from spike.wire.call import CALLS, CIPHER_ENCRYPT, SECRET_GET, AnyCall, CallName, call_at
from spike.wire.go_time import UnixNs

ROLES: Final = RoleMap.from_settings({})

PEERS: Final[Mapping[str, SpiffeId]] = {
    "superuser": SpiffeId.parse_untrusted("spiffe://spike.ist/spike/pilot/role/superuser"),
    "superuser below its base": SpiffeId.parse_untrusted(
        "spiffe://spike.ist/spike/pilot/role/superuser/eu"
    ),
    "recover": SpiffeId.parse_untrusted("spiffe://spike.ist/spike/pilot/role/recover"),
    "restore": SpiffeId.parse_untrusted("spiffe://spike.ist/spike/pilot/role/restore"),
    "lite": SpiffeId.parse_untrusted("spiffe://spike.ist/spike/workload/role/lite/1"),
    "bootstrap": SpiffeId.parse_untrusted("spiffe://spike.ist/spike/bootstrap"),
    "keeper": SpiffeId.parse_untrusted("spiffe://spike.ist/spike/keeper/1"),
    "nexus": SpiffeId.parse_untrusted("spiffe://spike.ist/spike/nexus"),
    "workload": SpiffeId.parse_untrusted("spiffe://spike.ist/workload/1"),
    "federated superuser": SpiffeId.parse_untrusted(
        "spiffe://other.org/spike/pilot/role/superuser"
    ),
}

SUPERUSERS: Final = {"superuser", "superuser below its base"}
# Those a policy can let in.
ORDINARY: Final = {"recover", "restore", "workload", "federated superuser"}

ACL: Final = "spike/system/acl"
CIPHER: Final = "spike/system/cipher/exec"
BODY: Final = "path of the body"

# Call at path and action → the permission a policy must hold, and on which path. Section 2.
BY_POLICY: Final[Mapping[tuple[str, str], tuple[Permission, str]]] = {
    ("/v1/store/secrets", ""): (Permission.WRITE, BODY),
    ("/v1/store/secrets", "delete"): (Permission.WRITE, BODY),
    ("/v1/store/secrets", "undelete"): (Permission.WRITE, BODY),
    ("/v1/store/secrets", "get"): (Permission.READ, BODY),
    ("/v1/store/secrets", "get-many"): (Permission.READ, BODY),
    ("/v1/store/secrets/metadata", "get"): (Permission.READ, BODY),
    ("/v1/store/secrets", "list"): (Permission.LIST, "spike/system/secret"),
    ("/v1/acl/policy", ""): (Permission.WRITE, ACL),
    ("/v1/acl/policy", "delete"): (Permission.WRITE, ACL),
    ("/v1/acl/policy", "get"): (Permission.READ, ACL),
    ("/v1/acl/policy", "list"): (Permission.LIST, ACL),
    ("/v1/cipher/encrypt", ""): (Permission.EXECUTE, CIPHER),
    ("/v1/cipher/decrypt", ""): (Permission.EXECUTE, CIPHER),
    ("/v1/cipher/rewrap", ""): (Permission.EXECUTE, CIPHER),
}
# Who else needs no policy for a call of the table above. Section 2.
ALSO_BY_ROLE: Final[Mapping[tuple[str, str], set[str]]] = {
    ("/v1/cipher/encrypt", ""): {"lite"},
    ("/v1/cipher/decrypt", ""): {"lite"},
    ("/v1/cipher/rewrap", ""): {"lite"},
}
# Call → who may make it, never by policy. Sections 2 and 7.
BY_ROLE: Final[Mapping[tuple[str, str], set[str]]] = {
    ("/v1/bootstrap/verify", ""): {"bootstrap"},
    ("/v1/system-backup", "create"): SUPERUSERS,
    ("/v1/system-backup", "read"): SUPERUSERS,
    ("/v1/system-backup", "receive"): {"restore"},
    ("/v1/operator/restore", "system-backup"): {"restore"},
    ("/v1/operator/restore", "undo"): {"restore"},
    ("/v1/operator/factory-reset", ""): SUPERUSERS,
    ("/v1/operator/recover", ""): {"recover"},
    ("/v1/operator/restore", ""): {"restore"},
    ("/v1/operator/restore", "password"): {"restore"},
    ("/v1/operator/restore", "file"): {"restore"},
    ("/v1/operator/password", "begin"): SUPERUSERS | {"restore", "recover"},
    ("/v1/operator/init", ""): SUPERUSERS,
    ("/v1/keeper", "refresh"): SUPERUSERS,
    ("/v1/keeper", "reshape"): SUPERUSERS,
    ("/v1/keeper", "rehearse"): SUPERUSERS,
    ("/v1/operator/shard", "check"): SUPERUSERS | {"recover"},
    ("/v1/backup/slot", "list"): SUPERUSERS | {"recover"},
    ("/v1/backup/slot", "add"): SUPERUSERS | {"recover"},
    ("/v1/backup/slot", "change"): SUPERUSERS | {"recover"},
    ("/v1/backup/slot", "remove"): SUPERUSERS | {"recover"},
    ("/v1/backup", "verify"): SUPERUSERS,
    ("/v1/backup", "export"): SUPERUSERS,
    ("/v1/drill", ""): SUPERUSERS,
    ("/v1/drill", "report"): SUPERUSERS,
    ("/v1/drill", "record"): SUPERUSERS,
    ("/v1/key", "list"): SUPERUSERS,
    ("/v1/key", "history"): SUPERUSERS,
    ("/v1/key", "verify"): SUPERUSERS,
    ("/v1/key", "status"): SUPERUSERS,
    ("/v1/key", "schedule-get"): SUPERUSERS,
    ("/v1/key", "note"): SUPERUSERS,
    ("/v1/key", "report"): SUPERUSERS,
    ("/v1/key", "schedule-set"): SUPERUSERS,
    ("/v1/key", "cipher-oldest"): SUPERUSERS,
    ("/v1/key", "rotate"): SUPERUSERS,
    ("/v1/key", "pause"): SUPERUSERS,
    ("/v1/key", "resume"): SUPERUSERS,
    ("/v1/key", "pace"): SUPERUSERS,
    ("/v1/key", "abort"): SUPERUSERS,
    ("/v1/key", "rollback"): SUPERUSERS,
    ("/v1/key", "finalize"): SUPERUSERS,
}
# Calls that the role alone does not carry: what else it takes is an existing slot's password. Section 7.
WITH_PASSWORD: Final = SUPERUSERS
BY_PASSWORD_TOO: Final = [
    ("/v1/backup/slot", action) for action in ("list", "add", "change", "remove")
]
# Call → who gets all of the answer; everybody else gets readiness alone. Section 7.
FOR_ANYONE: Final[Mapping[tuple[str, str], set[str]]] = {("/v1/operator/status", ""): SUPERUSERS}

SECRET: Final = "tenants/acme/db"


def policies_for(
    *permissions: Permission, paths: str = "^.*$", ids: str = "^spiffe://.*$"
) -> CompiledPolicies:
    policy = Policy(PolicyName("p"), ids, paths, frozenset(permissions), UnixNs(1), UnixNs(1))
    return CompiledPolicies([policy])


NOTHING: Final = CompiledPolicies([])
EVERYTHING: Final = policies_for(Permission.SUPER)


def outcome(
    wanted: AnyCall, who: str, policies: CompiledPolicies, path: str = SECRET
) -> Grant | Denied:
    """Both stages."""
    peer = PEERS[who]
    decision = authorize(wanted, peer, ROLES.roles_of(peer), policies)
    return decision.decide(path) if isinstance(decision, NeedsPath) else decision


def test_the_table_has_a_row_for_each_call_and_no_other() -> None:
    assert set(TABLE) == {wanted.name for wanted in CALLS}
    assert len({wanted.name for wanted in CALLS}) == len(CALLS)
    assert len({(wanted.path, wanted.action) for wanted in CALLS}) == len(CALLS)


def test_every_call_is_spelled_out_here() -> None:
    spelled = [*BY_POLICY, *BY_ROLE, *FOR_ANYONE]
    assert sorted(spelled) == sorted((wanted.path, wanted.action) for wanted in CALLS)


def test_every_row_is_spelled_out_for_every_role() -> None:
    covered = set().union(*(ROLES.roles_of(peer) for peer in PEERS.values()))
    assert covered == set(Role)


@pytest.mark.parametrize("who", PEERS)
@pytest.mark.parametrize("where", BY_POLICY, ids=str)
def test_a_call_on_a_path_without_a_policy_is_for_the_superuser_and_whom_the_contract_names(
    where: tuple[str, str], who: str
) -> None:
    wanted = call_at(*where)
    assert wanted is not None
    allowed = who in SUPERUSERS | ALSO_BY_ROLE.get(where, set())
    assert isinstance(outcome(wanted, who, NOTHING), Grant) is allowed


@pytest.mark.parametrize("who", PEERS)
@pytest.mark.parametrize("where", BY_POLICY, ids=str)
def test_a_call_on_a_path_with_a_policy_for_everybody_is_for_everybody_but_parts_of_spike(
    where: tuple[str, str], who: str
) -> None:
    wanted = call_at(*where)
    assert wanted is not None
    allowed = who in SUPERUSERS | ORDINARY | ALSO_BY_ROLE.get(where, set())
    assert isinstance(outcome(wanted, who, EVERYTHING), Grant) is allowed
    permission, _ = BY_POLICY[where]
    assert isinstance(outcome(wanted, who, policies_for(permission)), Grant) is allowed


@pytest.mark.parametrize("where", BY_POLICY, ids=str)
def test_only_the_permission_of_the_row_lets_a_workload_in(where: tuple[str, str]) -> None:
    wanted = call_at(*where)
    assert wanted is not None
    needed, _ = BY_POLICY[where]
    for held in Permission:
        result = outcome(wanted, "workload", policies_for(held))
        assert isinstance(result, Grant) is (held in {needed, Permission.SUPER})


@pytest.mark.parametrize("where", BY_POLICY, ids=str)
def test_only_the_path_of_the_row_lets_a_workload_in(where: tuple[str, str]) -> None:
    wanted = call_at(*where)
    assert wanted is not None
    _, resource = BY_POLICY[where]
    for described in (
        "spike/system/acl",
        "spike/system/secret",
        "spike/system/cipher/exec",
        SECRET,
    ):
        policies = policies_for(Permission.SUPER, paths=f"^{described}$")
        result = outcome(wanted, "workload", policies)
        assert isinstance(result, Grant) is (
            described == (SECRET if resource == BODY else resource)
        )


@pytest.mark.parametrize("policies", [NOTHING, EVERYTHING], ids=["no policy", "a policy for all"])
@pytest.mark.parametrize("who", PEERS)
@pytest.mark.parametrize("where", BY_ROLE, ids=str)
def test_a_call_for_a_role_is_for_that_role_alone_whatever_the_policies_say(
    where: tuple[str, str], who: str, policies: CompiledPolicies
) -> None:
    wanted = call_at(*where)
    assert wanted is not None
    result = outcome(wanted, who, policies)
    if who in BY_ROLE[where]:
        assert isinstance(result, Grant)
        proven = where in BY_PASSWORD_TOO and who in WITH_PASSWORD
        assert result.extent is (Extent.WITH_PASSWORD if proven else Extent.ALL)
    else:
        assert result == Denied(DenialReason.WRONG_ROLE)


@pytest.mark.parametrize("policies", [NOTHING, EVERYTHING], ids=["no policy", "a policy for all"])
@pytest.mark.parametrize("who", PEERS)
@pytest.mark.parametrize("where", FOR_ANYONE, ids=str)
def test_status_is_for_anyone_and_all_of_it_for_the_superuser(
    where: tuple[str, str], who: str, policies: CompiledPolicies
) -> None:
    wanted = call_at(*where)
    assert wanted is not None
    result = outcome(wanted, who, policies)
    assert isinstance(result, Grant)
    assert (result.extent is Extent.ALL) is (who in FOR_ANYONE[where])


@pytest.mark.parametrize(
    "where", [where for where, row in BY_POLICY.items() if row[1] == BODY], ids=str
)
@pytest.mark.parametrize("who", PEERS)
def test_who_has_no_right_on_any_path_is_denied_before_the_body_is_parsed(
    where: tuple[str, str], who: str
) -> None:
    wanted = call_at(*where)
    assert wanted is not None
    peer = PEERS[who]
    permission, _ = BY_POLICY[where]
    other = next(held for held in Permission if held not in {permission, Permission.SUPER})
    for policies in (
        NOTHING,
        policies_for(Permission.SUPER, ids="^spiffe://nobody$"),
        policies_for(other),
    ):
        decision = authorize(wanted, peer, ROLES.roles_of(peer), policies)
        assert isinstance(decision, NeedsPath if who in SUPERUSERS else Denied)


def test_a_path_is_decided_whatever_text_it_is() -> None:
    policies = policies_for(Permission.READ, paths="^tenants/.*$")
    for path in ("", "other", "\n", "tenants", "é", "x" * 10_000, "tenants/\n/x"):
        assert outcome(SECRET_GET, "workload", policies, path) == Denied(
            DenialReason.PATH_NOT_ALLOWED
        )
    assert isinstance(outcome(SECRET_GET, "workload", policies, "tenants/x"), Grant)


def test_a_denial_wins_over_every_right_of_an_id_with_several_roles() -> None:
    roles = RoleMap.from_settings(
        {"SPIKE_TRUST_ROOT_LITE_WORKLOAD": "spike.ist/spike/pilot/role/superuser"}
    )
    peer = SpiffeId.parse_untrusted(
        "spiffe://spike.ist/spike/pilot/role/superuser/spike/workload/role/lite"
    )
    assert roles.roles_of(peer) == {Role.SUPERUSER, Role.LITE_WORKLOAD}
    decision = authorize(SECRET_GET, peer, roles.roles_of(peer), EVERYTHING)
    assert decision == Denied(DenialReason.EXCLUDED_ROLE)
    assert isinstance(authorize(CIPHER_ENCRYPT, peer, roles.roles_of(peer), NOTHING), Grant)
    keeper_too = {*roles.roles_of(peer), Role.KEEPER}
    decision = authorize(CIPHER_ENCRYPT, peer, frozenset(keeper_too), EVERYTHING)
    assert decision == Denied(DenialReason.EXCLUDED_ROLE)


def test_a_call_without_a_row_is_denied() -> None:
    unknown = dataclasses.replace(SECRET_GET, name=CallName("something new"))
    peer = PEERS["superuser"]
    decision = authorize(unknown, peer, ROLES.roles_of(peer), EVERYTHING)
    assert decision == Denied(DenialReason.UNKNOWN_CALL)


def test_a_grant_says_who_may_do_what_where() -> None:
    grant = outcome(SECRET_GET, "workload", EVERYTHING, "a/b")
    assert isinstance(grant, Grant)
    assert (grant.peer, grant.call, grant.resource) == (PEERS["workload"], "secret get", "a/b")


def test_nobody_else_can_make_a_grant_or_change_one() -> None:
    grant = outcome(SECRET_GET, "workload", EVERYTHING)
    assert isinstance(grant, Grant)
    with pytest.raises(TypeError):
        Grant(grant.peer, grant.call, "other", Extent.ALL, object())
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(grant, resource="other")  # type: ignore[call-arg]  # no seal
    with pytest.raises(dataclasses.FrozenInstanceError):
        grant.resource = "other"  # type: ignore[misc]  # that is the point
    with pytest.raises(TypeError):
        NeedsPath(grant.peer, grant.call, object(), EVERYTHING, None)
