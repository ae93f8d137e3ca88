"""Who may make which call of a Keeper, by role alone.

The handshake lets in only who may make at least one: everybody else never gets to send a request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import InitVar, dataclass
from typing import Final

from spike.policy.role import Role, RoleMap
from spike.spiffe.id import SpiffeId
from spike.wire import keeper
from spike.wire.call import AnyCall, CallName

_NEXUS: Final = frozenset({Role.NEXUS})

TABLE: Final[Mapping[CallName, frozenset[Role]]] = {
    # Go's bootstrap gives out the first shares.
    keeper.CONTRIBUTE.name: _NEXUS | {Role.BOOTSTRAP},
    keeper.SHARD.name: _NEXUS,
    keeper.STAGE.name: _NEXUS,
    keeper.COMMIT.name: _NEXUS,
    keeper.ERASE.name: _NEXUS,
    keeper.GET.name: _NEXUS,
    keeper.STATUS.name: _NEXUS,
}

# Whoever holds it can make grants. Nothing outside this module may.
_SEAL: Final = object()


@dataclass(frozen=True, slots=True)
class Grant:
    """Proof that `peer` may make this call: the first parameter of every handler. Only this module can make one."""

    peer: SpiffeId
    call: CallName
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a Grant is made by spike.keeper.access alone")


def authorize(call: AnyCall, peer: SpiffeId, roles: RoleMap) -> Grant | None:
    """Decide by the roles of `peer`; None is a denial."""
    allowed = TABLE.get(call.name, frozenset())
    return Grant(peer, call.name, _SEAL) if roles.roles_of(peer) & allowed else None


def accepting(roles: RoleMap) -> Callable[[SpiffeId], bool]:
    """Return whom the handshake lets in."""
    welcome = frozenset[Role]().union(*TABLE.values())
    return lambda peer: bool(roles.roles_of(peer) & welcome)
