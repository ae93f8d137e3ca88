"""The real shell of Nexus on Keepers that are in this process: each effect is noted, and a test may come in between."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lifecycle_kit import copy_of
from nexus_kit import give_birth
from spike.client.setting import Address
from spike.error import StoreUnavailableError
from spike.keeper import holding as rules
from spike.keeper.anchor import HeldAnchor
from spike.keeper.holding import Holding, Label, Refusal
from spike.keeper.holding import Share as KeeperShare
from spike.lifecycle import keyring
from spike.lifecycle.refresh import is_in_progress
from spike.lifecycle.share import HeldSet, Share, ShareLabel
from spike.lifecycle.supply import Held
from spike.lifecycle.witness import Claim
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_link import KeeperLink, Look
from spike.nexus.keeper_roster import Roster
from spike.nexus.keeper_setting import KeeperSetting, Peer
from spike.nexus.place import Place
from spike.nexus.vault import KEYRING_ID, Vault
from spike.storage.memory import MemoryStore
from spike.storage.protocol import Change, Put, Revision
from spike.wire.go_time import UnixNs

Before = Callable[[str, int], Awaitable[None]]


async def nothing(_effect: str, _index: int) -> None:
    """Come in nowhere."""


class Effects:
    """What reached a Keeper, the store or the place, in order; `before` is awaited first (not before a place)."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.before: Before = nothing
        self.at_place: Callable[[], None] = lambda: None

    async def come(self, effect: str, index: int = 0) -> None:
        await self.before(effect, index)
        self.told.append(effect)


class NearKeeper(KeeperLink):
    """A Keeper under its real rules, without a network. `holding` is what it holds."""

    def __init__(self, index: int, effects: Effects) -> None:
        self.peer = Peer(index, f"https://localhost:{index}", Address("localhost", index), None)
        self.found = None
        self._pinned = None
        self._effects = effects
        self.holding: Holding[KeyMemory] = Holding()

    async def look(self, ours: Iterable[HeldSet] = (), anchor: bytes | None = None) -> Look:
        await self._effects.come("look", self.index)
        if anchor is not None:
            self.holding = rules.keep_anchor(self.holding, HeldAnchor.parse_untrusted(anchor))
        sets = {each.set_id: each for each in ours}
        held = self.holding
        kept = None if held.anchor is None else held.anchor.raw
        return Look(self._said(held.committed, sets), self._said(held.staged, sets), kept)

    def _said(self, share: KeeperShare[KeyMemory] | None, sets: dict[str, HeldSet]) -> Held | None:
        if share is None:
            return None
        label = share.label
        ours = sets.get(label.set_id)
        proven = ours is not None and ours.share(self.index).value.same_as(share.value)
        claim = Claim(label.store_id, label.lineage, share.epoch, label.generation, label.set_id)
        return Held(claim, label.index, proven)

    async def fetch(self, set_id: str) -> Share | None:
        await self._effects.come("get", self.index)
        found = self.holding.share(set_id)
        if found is None:
            return None
        label = found[1].label
        told = ShareLabel(
            label.store_id,
            label.lineage,
            label.set_id,
            label.generation,
            label.index,
            label.threshold,
        )
        return Share(told, copy_of(found[1].value), found[1].tag)

    async def stage(self, share: Share) -> None:
        await self._effects.come("stage", self.index)
        label = share.label
        own = Label(
            label.store_id,
            label.lineage,
            label.set_id,
            label.generation,
            label.index,
            label.threshold,
        )
        kept = KeeperShare(own, copy_of(share.value), share.tag)
        self._become(rules.stage(self.holding, kept))

    async def commit(self, store_id: str, lineage: str, set_id: str, epoch: int) -> None:
        await self._effects.come("commit", self.index)
        self._become(rules.commit(self.holding, (store_id, lineage), set_id, epoch))

    async def erase(self, set_id: str) -> None:
        await self._effects.come("erase", self.index)
        self.holding = rules.erase(self.holding, set_id)

    def _become(self, outcome: Holding[KeyMemory] | Refusal[KeyMemory]) -> None:
        if isinstance(outcome, Refusal):
            raise StoreUnavailableError(f"refused: {outcome.reason}")
        self.holding = outcome


class NotedStore(MemoryStore):
    """A store that notes each keyring."""

    effects: Effects

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        for change in changes:
            if isinstance(change, Put) and change.id == KEYRING_ID:
                document = keyring.decode_untrusted(change.blob).hint
                what = "begun" if is_in_progress(document) else "whole"
                events = " with events" if document.outbox else ""
                await self.effects.come(f"keyring {what}{events}")
        return await super().apply(changes, fence=fence)


@dataclass(frozen=True)
class NotedPlace(Place):
    """A place that notes each anchor, and fails when it is told to."""

    effects: Effects

    def write_anchor(self, store_id: str, raw: bytes) -> None:
        self.effects.at_place()
        self.effects.told.append("place")
        super().write_anchor(store_id, raw)


@dataclass
class Shell:
    """A Nexus that is open, its Keepers, and what they have seen."""

    effects: Effects
    desk: KeeperDesk
    keepers: tuple[NearKeeper, ...]

    @property
    def vault(self) -> Vault:
        return self.desk.vault

    def holders(self, set_id: str) -> int:
        """Return how many Keepers have a share of a set, in whichever place."""
        return sum(each.holding.share(set_id) is not None for each in self.keepers)


@contextlib.asynccontextmanager
async def shell(directory: Path | None) -> AsyncIterator[Shell]:
    """Give birth to a store with three Keepers, threshold 2; without a directory there is no backup place."""
    effects = Effects()
    store = NotedStore()
    store.effects = effects
    places = () if directory is None else (NotedPlace(directory / "place", effects),)
    for place in places:
        place.prepare()
    vault = Vault(store, places, lambda: UnixNs(time.time_ns()), 10)
    keepers = tuple(NearKeeper(index, effects) for index in (1, 2, 3))
    setting = KeeperSetting(tuple(each.peer for each in keepers), 3, 2, 5.0)
    desk = KeeperDesk(vault, Roster(setting, lambda peer: keepers[peer.index - 1]))
    try:
        await give_birth(vault, None, desk)
        effects.told.clear()
        yield Shell(effects, desk, keepers)
    finally:
        desk.close()
        await vault.close()
        for keeper in keepers:
            for value in keeper.holding.values():
                value.wipe()
