"""Messages of `/v1/acl/policy`."""

from __future__ import annotations

import msgspec

from spike.wire.message import GoTime, Message


class PolicyPutRequest(Message, frozen=True):
    """Create a policy, or replace the one of this name."""

    name: str = ""
    spiffeid_pattern: str = ""
    path_pattern: str = ""
    permissions: list[str] = msgspec.field(default_factory=list)


class PolicyNameRequest(Message, frozen=True):
    """Get or delete a policy. Go calls its name `id` here."""

    id: str = ""


class PolicyGetAnswer(Message, frozen=True):
    """A policy. Go spells the SPIFFE pattern `spiffiedPattern` in this answer and nowhere else."""

    name: str
    spiffied_pattern: str
    path_pattern: str
    permissions: list[str]
    created_at: GoTime
    updated_at: GoTime
    id: str = ""


class PolicyListRequest(Message, frozen=True):
    """List policies whose pattern equals the one given: the first non-empty; both empty = all."""

    spiffeid_pattern: str = ""
    path_pattern: str = ""


class PolicyListItem(Message, frozen=True):
    """One policy of a list."""

    name: str
    id: str = ""


class PolicyListAnswer(Message, frozen=True):
    """Policies by name."""

    policies: list[PolicyListItem]
