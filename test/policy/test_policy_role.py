"""Roles by the name of an ID, and the settings that say under which roots."""

from __future__ import annotations

import pytest

from spike.error import SettingError
from spike.policy.role import Role, RoleMap
from spike.spiffe.id import SpiffeId

DEFAULT = RoleMap.from_settings({})


@pytest.mark.parametrize(
    ("peer", "role"),
    [
        ("spiffe://spike.ist/spike/pilot/role/superuser", Role.SUPERUSER),
        ("spiffe://spike.ist/spike/pilot/role/recover", Role.RECOVER),
        ("spiffe://spike.ist/spike/pilot/role/restore", Role.RESTORE),
        ("spiffe://spike.ist/spike/workload/role/lite", Role.LITE_WORKLOAD),
        ("spiffe://spike.ist/spike/bootstrap", Role.BOOTSTRAP),
        ("spiffe://spike.ist/spike/keeper", Role.KEEPER),
        ("spiffe://spike.ist/spike/nexus", Role.NEXUS),
    ],
)
def test_an_id_has_the_role_of_its_base_and_of_everything_below_it(peer: str, role: Role) -> None:
    assert DEFAULT.roles_of(SpiffeId.parse_untrusted(peer)) == {role}
    assert DEFAULT.roles_of(SpiffeId.parse_untrusted(peer + "/eu/1")) == {role}


@pytest.mark.parametrize(
    "peer",
    [
        "spiffe://spike.ist",
        "spiffe://spike.ist/spike/pilot/role",
        "spiffe://spike.ist/spike/pilot/role/superuser2",
        "spiffe://spike.ist/spike/pilot/role/superuser-x/y",
        "spiffe://spike.ist/x/spike/pilot/role/superuser",
        "spiffe://spike.ist/Spike/pilot/role/superuser",
        "spiffe://spike.ist.evil/spike/pilot/role/superuser",
        "spiffe://evil/spike.ist/spike/pilot/role/superuser",
        "spiffe://evil/spike/nexus",
    ],
)
def test_an_id_that_only_looks_like_a_base_has_no_role(peer: str) -> None:
    assert DEFAULT.roles_of(SpiffeId.parse_untrusted(peer)) == frozenset()


def test_each_role_reads_its_own_variable() -> None:
    variables = {
        Role.SUPERUSER: "SPIKE_TRUST_ROOT_PILOT",
        Role.RECOVER: "SPIKE_TRUST_ROOT_PILOT",
        Role.RESTORE: "SPIKE_TRUST_ROOT_PILOT",
        Role.LITE_WORKLOAD: "SPIKE_TRUST_ROOT_LITE_WORKLOAD",
        Role.BOOTSTRAP: "SPIKE_TRUST_ROOT_BOOTSTRAP",
        Role.KEEPER: "SPIKE_TRUST_ROOT_KEEPER",
        Role.NEXUS: "SPIKE_TRUST_ROOT_NEXUS",
    }
    for role, variable in variables.items():
        roles = RoleMap.from_settings({variable: "example.org"})
        theirs = SpiffeId.parse_untrusted(f"spiffe://example.org/{role.base_path}")
        default = SpiffeId.parse_untrusted(f"spiffe://spike.ist/{role.base_path}")
        assert roles.roles_of(theirs) == {role}
        assert roles.roles_of(default) == frozenset()


def test_a_list_of_roots_may_have_path_segments_and_spaces() -> None:
    roles = RoleMap.from_settings({"SPIKE_TRUST_ROOT_PILOT": "a.org, b.org/tenant/a"})
    for root in ("a.org", "b.org/tenant/a"):
        peer = SpiffeId.parse_untrusted(f"spiffe://{root}/spike/pilot/role/superuser")
        assert roles.roles_of(peer) == {Role.SUPERUSER}
    other = SpiffeId.parse_untrusted("spiffe://b.org/tenant/b/spike/pilot/role/superuser")
    assert roles.roles_of(other) == frozenset()


def test_the_common_variable_stands_in_for_those_not_set() -> None:
    roles = RoleMap.from_settings(
        {"SPIKE_TRUST_ROOT": "example.org", "SPIKE_TRUST_ROOT_KEEPER": "keep.org"}
    )
    assert roles.roles_of(SpiffeId.parse_untrusted("spiffe://example.org/spike/nexus")) == {
        Role.NEXUS
    }
    assert roles.roles_of(SpiffeId.parse_untrusted("spiffe://keep.org/spike/keeper")) == {
        Role.KEEPER
    }
    assert not roles.roles_of(SpiffeId.parse_untrusted("spiffe://example.org/spike/keeper"))


@pytest.mark.parametrize("listed", ["", ",", "a.org,", ",a.org", "a.org,,b.org", " ", "a.org, "])
def test_an_empty_element_is_an_error_that_names_the_variable(listed: str) -> None:
    with pytest.raises(SettingError, match="SPIKE_TRUST_ROOT_NEXUS has an empty element") as caught:
        RoleMap.from_settings({"SPIKE_TRUST_ROOT_NEXUS": listed})
    assert "SPIKE_TRUST_ROOT_NEXUS" in caught.value.next_step


@pytest.mark.parametrize(
    "root", ["A.org", "a.org/", "spiffe://a.org", "a.org/../b", "a org", "a.org\n/x"]
)
def test_an_element_that_is_no_root_is_an_error_that_names_the_variable(root: str) -> None:
    with pytest.raises(SettingError, match="SPIKE_TRUST_ROOT_KEEPER"):
        RoleMap.from_settings({"SPIKE_TRUST_ROOT_KEEPER": root})
