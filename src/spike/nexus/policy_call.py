"""The calls on policies."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from spike.nexus.handler import Handler, Reading, Writing
from spike.nexus.opened import Opened
from spike.nexus.vault import Vault
from spike.policy.access import Grant
from spike.policy.rule import Policy, new_policy, sorted_permissions
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.go_time import go_time
from spike.wire.message import Empty
from spike.wire.policy import (
    PolicyGetAnswer,
    PolicyListAnswer,
    PolicyListItem,
    PolicyListRequest,
    PolicyNameRequest,
    PolicyPutRequest,
)
from spike.wire.validate import check_name


async def get(_grant: Grant, opened: Opened, asked: PolicyNameRequest) -> PolicyGetAnswer:
    """Read a policy."""
    check_name(asked.id, "id")
    policy = opened.policies.get(asked.id)
    return PolicyGetAnswer(
        name=policy.name,
        spiffied_pattern=policy.spiffe_id_pattern,
        path_pattern=policy.path_pattern,
        permissions=sorted_permissions(policy.permissions),
        created_at=go_time(policy.created_at),
        updated_at=go_time(policy.updated_at),
    )


async def list_policies(
    _grant: Grant, opened: Opened, asked: PolicyListRequest
) -> PolicyListAnswer:
    """List policies: all, or those with exactly this pattern; the first non-empty one wins."""
    found = [policy for policy in opened.policies.all() if _is_asked_for(policy, asked)]
    return PolicyListAnswer([PolicyListItem(name=policy.name) for policy in found])


def _is_asked_for(policy: Policy, asked: PolicyListRequest) -> bool:
    if asked.spiffeid_pattern:
        return policy.spiffe_id_pattern == asked.spiffeid_pattern
    return not asked.path_pattern or policy.path_pattern == asked.path_pattern


class PolicyCalls:
    """Handlers bound to one vault: a change of a right is followed by a new anchor outside of the store."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call on policies."""
        return {
            call.POLICY_PUT.name: Writing(self.put),
            call.POLICY_DELETE.name: Writing(self.delete),
            call.POLICY_GET.name: Reading(get),
            call.POLICY_LIST.name: Reading(list_policies),
        }

    async def put(self, _grant: Grant, opened: Opened, asked: PolicyPutRequest) -> Empty:
        """Create a policy, or replace the one of this name."""
        policy = new_policy(
            asked.name,
            asked.spiffeid_pattern,
            asked.path_pattern,
            asked.permissions,
            now=self._vault.clock(),
            replaced=opened.policies.find(asked.name),
        )
        async with self._anchored(opened):
            await opened.policies.put(policy)
        return Empty()

    async def delete(self, _grant: Grant, opened: Opened, asked: PolicyNameRequest) -> Empty:
        """Delete a policy."""
        check_name(asked.id, "id")
        async with self._anchored(opened):
            await opened.policies.delete(asked.id)
        return Empty()

    @contextlib.asynccontextmanager
    async def _anchored(self, opened: Opened) -> AsyncIterator[None]:
        """Let a new anchor follow a change, also one of before whose answer was lost and that is found only now."""
        before = opened.policies.access_generation
        try:
            yield
        finally:
            if opened.policies.access_generation != before:
                await self._vault.renew_anchor()
