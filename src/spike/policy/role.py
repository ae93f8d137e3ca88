"""Roles: what a SPIFFE ID is by its name alone (wire contract, section 2).

An ID has a role when it equals `spiffe://R/<path of the role>` for one of the role's roots R, or starts
with that and a slash. A root is a trust domain, with or without path segments after it.

Whether an ID is really the peer's is decided before, by the TLS handshake: a role's root outside the
peer's verified trust domain cannot be claimed, because the ID itself names the trust domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NewType

from spike.error import SettingError, SpiffeIdError
from spike.spiffe.id import SpiffeId

Root = NewType("Root", str)

DEFAULT_ROOT: Final = Root("spike.ist")


class Role(Enum):
    """A role: the path of its base ID, and the variable that lists its roots."""

    SUPERUSER = ("spike/pilot/role/superuser", "SPIKE_TRUST_ROOT_PILOT")
    RECOVER = ("spike/pilot/role/recover", "SPIKE_TRUST_ROOT_PILOT")
    RESTORE = ("spike/pilot/role/restore", "SPIKE_TRUST_ROOT_PILOT")
    LITE_WORKLOAD = ("spike/workload/role/lite", "SPIKE_TRUST_ROOT_LITE_WORKLOAD")
    BOOTSTRAP = ("spike/bootstrap", "SPIKE_TRUST_ROOT_BOOTSTRAP")
    KEEPER = ("spike/keeper", "SPIKE_TRUST_ROOT_KEEPER")
    NEXUS = ("spike/nexus", "SPIKE_TRUST_ROOT_NEXUS")

    def __init__(self, base_path: str, variable: str) -> None:
        self.base_path = base_path
        self.variable = variable


# What stands in the place of a variable of its own that is not set.
_COMMON_VARIABLE: Final = "SPIKE_TRUST_ROOT"


@dataclass(frozen=True, slots=True)
class RoleMap:
    """The base IDs of each role, made once from the settings."""

    bases: tuple[tuple[Role, str], ...]

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> RoleMap:
        """Read the roots of every role; a variable that is absent means `spike.ist`.

        Raises:
            SettingError: a variable is set and has an empty element, or one that is no root.
        """
        return cls(
            tuple(
                (role, f"spiffe://{root}/{role.base_path}")
                for role in Role
                for root in roots_from(settings, role.variable)
            )
        )

    def roles_of(self, peer: SpiffeId) -> frozenset[Role]:
        """Return every role `peer` has; most IDs have none."""
        text = str(peer)
        return frozenset(
            role
            for role, base in self.bases
            if text.startswith(base) and text[len(base) : len(base) + 1] in {"", "/"}
        )


def roots_from(settings: Mapping[str, str], variable: str) -> tuple[Root, ...]:
    """Return the roots a variable lists, separated by commas; spaces around them do not count.

    Raises:
        SettingError: an element is empty, or is no trust domain with optional path segments.
    """
    name = variable if variable in settings else _COMMON_VARIABLE
    listed = settings.get(name, DEFAULT_ROOT)
    roots = tuple(Root(element.strip()) for element in listed.split(","))
    for root in roots:
        _check_root(root, name)
    return roots


def _check_root(root: Root, variable: str) -> None:
    step = f"set {variable} to one or more trust domains, such as spike.ist, separated by commas"
    if not root:
        raise SettingError(f"{variable} has an empty element", step)
    try:
        SpiffeId.parse_untrusted(f"spiffe://{root}")
    except SpiffeIdError as error:
        raise SettingError(f"{variable} has an element that is no root: {error}", step) from None
