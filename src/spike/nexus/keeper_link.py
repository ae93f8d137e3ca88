"""What Nexus says to one Keeper, and what it takes from the answers.

Bytes of a share pass through here as the wire has them: a list of integers, for as long as the exchange lasts.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from spike.client.keeper import KeeperClient
from spike.error import NotFoundError
from spike.lifecycle.share import HeldSet, Share, ShareLabel
from spike.lifecycle.supply import Held
from spike.lifecycle.witness import Claim
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_setting import Peer
from spike.policy.role import Role, RoleMap
from spike.spiffe.id import SpiffeId
from spike.spiffe.source import MaterialSource
from spike.wire import keeper as wire
from spike.wire.keeper import Holding

DEADLINE_S: Final = 4.0
"""For one exchange, from the connection to the last byte."""

SHARE_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Look:
    """What a Keeper says it holds, and the anchor it keeps. `proven` was checked over a nonce of ours."""

    committed: Held | None
    staged: Held | None
    anchor: bytes | None


class KeeperLink:
    """One Keeper, as Nexus reaches it."""

    def __init__(self, peer: Peer, source: MaterialSource, roles: RoleMap) -> None:
        self.peer = peer
        self.found: SpiffeId | None = None
        """Who answered last."""
        self._roles = roles
        self._client = KeeperClient(peer.address, source, self._accepts, DEADLINE_S)

    @property
    def index(self) -> int:
        """The index of the share this Keeper holds."""
        return self.peer.index

    @property
    def name(self) -> str:
        """The name of this Keeper in messages."""
        return f"Keeper {self.peer.index}"

    async def look(self, ours: Iterable[HeldSet] = (), anchor: bytes | None = None) -> Look:
        """Ask what it holds, let it prove shares of these sets, and give it the present anchor.

        Raises:
            UnreachableError, IdentityError, DeniedError, AnswerError: it does not answer as a Keeper does.
        """
        nonce = secrets.token_bytes(wire.NONCE_BYTES)
        asked = wire.KeeperStatusRequest(nonce=nonce, anchor=anchor)
        told = await self._client.ask(wire.STATUS, asked)
        sets = {each.set_id: each for each in ours}
        return Look(
            self._held(told.committed, sets, nonce),
            self._held(told.staged, sets, nonce),
            told.anchor,
        )

    def _held(self, holding: Holding | None, sets: dict[str, HeldSet], nonce: bytes) -> Held | None:
        if holding is None:
            return None
        ours = sets.get(holding.set_id)
        proven = (
            ours is not None
            and holding.index == self.index
            and hmac.compare_digest(bytes.fromhex(holding.proof), ours.proof(self.index, nonce))
        )
        claim = Claim(
            holding.store_id, holding.lineage, holding.epoch, holding.generation, holding.set_id
        )
        return Held(claim, holding.index, proven)

    async def fetch(self, set_id: str) -> Share | None:
        """Return its share of a set, wherever it lies, or None when it has none. The caller wipes it.

        Raises:
            UnreachableError, IdentityError, DeniedError, AnswerError: it does not answer as a Keeper does.
        """
        try:
            told = await self._client.ask(wire.GET, wire.SetRequest(set_id=set_id))
        except NotFoundError:
            return None
        label = ShareLabel(
            store_id=told.store_id,
            lineage=told.lineage,
            set_id=told.set_id,
            generation=told.generation,
            index=told.index,
            threshold=told.threshold,
        )
        value = KeyMemory.allocate(SHARE_BYTES)
        with value.view() as view:
            for position, octet in enumerate(told.shard):
                view[position] = octet
        return Share(label, value, told.tag)

    async def stage(self, share: Share) -> None:
        """Bring it a share, beside the one it has committed.

        Raises:
            KeeperRefusedError: it holds what this share may not stand beside.
            UnreachableError, IdentityError, DeniedError, AnswerError: it does not answer as a Keeper does.
        """
        label = share.label
        with share.value.view() as view:
            octets = list(view)
        await self._client.ask(
            wire.STAGE,
            wire.StageRequest(
                store_id=label.store_id,
                lineage=label.lineage,
                set_id=label.set_id,
                generation=label.generation,
                index=label.index,
                threshold=label.threshold,
                shard=octets,
                tag=share.tag,
            ),
        )

    async def commit(self, store_id: str, lineage: str, set_id: str, epoch: int) -> None:
        """Let it put the staged share of a set in the place of the committed one.

        Raises:
            KeeperRefusedError: it holds what must not be replaced by this.
            UnreachableError, IdentityError, DeniedError, AnswerError: it does not answer as a Keeper does.
        """
        asked = wire.CommitRequest(store_id=store_id, lineage=lineage, set_id=set_id, epoch=epoch)
        await self._client.ask(wire.COMMIT, asked)

    async def erase(self, set_id: str) -> None:
        """Let it erase its share of a set. Idempotent.

        Raises:
            UnreachableError, IdentityError, DeniedError, AnswerError: it does not answer as a Keeper does.
        """
        await self._client.ask(wire.ERASE, wire.SetRequest(set_id=set_id))

    def _accepts(self, found: SpiffeId) -> bool:
        if Role.KEEPER not in self._roles.roles_of(found) or self.peer.identity not in (
            None,
            found,
        ):
            return False
        self.found = found
        return True
