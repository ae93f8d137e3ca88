"""Factory reset: the store becomes empty, its Keepers forget it, and what was done stands outside of it.

    ask          what would be lost, and a phrase that is good once, for who asked, for PHRASE_LIFE_S
    carry out    1. each backup place notes that a reset has begun
                 2. no rotation goes on, and the keys in memory are wiped
                 3. the store is erased, at one moment: THE COMMIT LINE
                 4. the Keepers erase their shares of this store, and only of this one
                 5. each backup place notes that it has ended

Killed before 3 nothing has happened; behind it the same command, which names the store, does 4 and 5. Key backups in
backup places stay: to take them away is a person's decision, and the answer says where they lie.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Final

from spike.error import SpikeError, StoreError
from spike.lifecycle import restore as rules
from spike.lifecycle.operation import require_idle
from spike.lifecycle.password import word_list
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.opened import Phase
from spike.nexus.reset_note import ResetNote, write_note
from spike.nexus.rotation_loop import RotationLoop
from spike.nexus.vault import KEYRING_ID
from spike.storage.ability import CanErase, CanSetAside

PHRASE_LIFE_S: Final = 900.0
"""Long enough for a last system backup in between."""
_WORDS: Final = 3
_log: Final = logging.getLogger("spike.nexus.factory_reset")


@dataclass(frozen=True, slots=True)
class KeeperLoss:
    """What a Keeper holds of the store, or what became of it."""

    index: int
    url: str
    state: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Loss:
    """What would be lost, or was. Names come from a keyring that nobody need have authenticated; empty without one."""

    phase: Phase
    store_id: str
    lineage: str
    epoch: int
    records: dict[str, int]
    keepers: tuple[KeeperLoss, ...]
    asides: tuple[str, ...]
    place_faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Phrase:
    text: str
    actor: str
    store_id: str
    until_s: float

    def is_for(self, actor: str, store_id: str, now_s: float) -> bool:
        """Tell whether it is good now, for this actor and store."""
        return (self.actor, self.store_id) == (actor, store_id) and now_s <= self.until_s


class ResetDesk:
    """Factory resets of one vault; at most one phrase is awaited."""

    def __init__(self, keepers: KeeperDesk, rotations: RotationLoop) -> None:
        self._keepers = keepers
        self._rotations = rotations
        self._vault = keepers.vault
        self._phrase: _Phrase | None = None

    async def ask(self, actor: str, store_id: str) -> tuple[Loss, str]:
        """Say what would be lost, and give the phrase for it: the same as long as it is good.

        `store_id` names a store whose records are gone already.

        Raises:
            RefusalError: NOT_INITIALIZED, there is nothing to reset; UNSUPPORTED; BUSY.
            StoreError: the store does not answer.
        """
        async with self._vault.lock:
            loss = await self._loss(store_id)
            self._require_resettable(loss)
            held, now_s = self._phrase, time.monotonic()
            if held is not None and held.is_for(actor, loss.store_id, now_s):
                return loss, held.text
            name = loss.store_id[:8] or "without a name"
            words = " ".join(secrets.choice(word_list()) for _ in range(_WORDS))
            text = f"erase store {name} {words}"
            self._phrase = _Phrase(text, actor, loss.store_id, now_s + PHRASE_LIFE_S)
            return loss, text

    async def carry_out(self, actor: str, phrase: str, store_id: str) -> Loss:
        """Reset, if the phrase is the one that was given; a wrong one is good for nothing any more.

        Raises:
            RefusalError: EXPIRED, no such phrase is awaited; BUSY, a lifecycle operation is in progress.
            StoreError: the store could not be erased; nothing is lost, the root key has to be brought back.
        """
        async with self._vault.lock, self._rotations.halted(), self._keepers.lock:
            awaited, self._phrase = self._phrase, None
            loss = await self._loss(store_id)
            good = awaited is not None and awaited.is_for(actor, loss.store_id, time.monotonic())
            if awaited is None or not good or awaited.text != phrase:
                raise RefusalError(
                    Reason.EXPIRED,
                    "this is not the phrase that was given for this reset",
                    "ask for a new one: spike factory-reset",
                )
            self._require_resettable(loss)
            return await self._reset(loss, actor)

    async def _reset(self, loss: Loss, actor: str) -> Loss:
        vault = self._vault
        note = ResetNote(
            store_id=loss.store_id,
            lineage=loss.lineage,
            epoch=loss.epoch,
            records=sum(loss.records.values()),
            actor=actor,
            begun_at=vault.moment(),
        )
        await self._noted(note)
        _log.critical("%s resets store %s: all it holds is lost", actor, loss.store_id)
        self._rotations.wanted = None
        await vault.close()
        self._keepers.forget()
        store = vault.store
        assert isinstance(store, CanErase)  # `_require_resettable`
        if await store.census() or (await store.health()).fence:
            await store.erase()
        # Behind the commit line: what fails now is named, and done by the same command.
        keepers = await asyncio.gather(
            *(_erased(link, loss.store_id) for link in self._keepers.links)
        )
        faults = await self._noted(note.ended(vault.moment()))
        return Loss(
            phase=await vault.phase(),
            store_id=loss.store_id,
            lineage=loss.lineage,
            epoch=loss.epoch,
            records=loss.records,
            keepers=tuple(keepers),
            asides=loss.asides,
            place_faults=faults,
        )

    async def _noted(self, note: ResetNote) -> tuple[str, ...]:
        faults: list[str] = []
        for state in self._vault.places:
            if not note.store_id:
                break
            try:
                await write_note(state.place, note)
            except StoreError as error:
                _log.error("a reset is not noted: %s", error.message)
                faults.append(error.message)
        return tuple(faults)

    async def _loss(self, store_id: str) -> Loss:
        store = self._vault.store
        census = await store.census()
        records: dict[str, int] = {}
        for (kind, _), count in census.items():
            records[kind] = records.get(kind, 0) + count
        stored = await store.get(KEYRING_ID)
        lineage, epoch = "", 0
        if stored is not None:
            try:
                hint = rules.read_stored(stored.blob).hint
                store_id, lineage, epoch = hint.store_id, hint.lineage, hint.epoch
            except RefusalError as error:
                _log.error("the store that is to be reset has no name: %s", error.message)
        keepers = await asyncio.gather(*(_held(link, store_id) for link in self._keepers.links))
        asides = await store.asides() if isinstance(store, CanSetAside) else ()
        return Loss(
            await self._vault.phase(),
            store_id,
            lineage,
            epoch,
            dict(sorted(records.items())),
            tuple(keepers),
            tuple(asides),
        )

    def _require_resettable(self, loss: Loss) -> None:
        if not isinstance(self._vault.store, CanErase):
            raise RefusalError(
                Reason.UNSUPPORTED,
                "this storage engine does not erase itself",
                "stop Nexus and empty the store by the engine's own means",
            )
        if self._vault.is_open:
            require_idle(self._vault.opened.document)
        if not loss.records and not any(each.state == "holding" for each in loss.keepers):
            raise RefusalError(
                Reason.NOT_INITIALIZED,
                "there is nothing to reset: the store is empty",
                "initialize it: spike init",
            )


async def _held(link: KeeperLink, store_id: str) -> KeeperLoss:
    try:
        look = await link.look()
    except SpikeError as error:
        return KeeperLoss(link.index, link.peer.url, "unreachable", error.message)
    claims = [each.claim for each in (look.committed, look.staged) if each is not None]
    if not claims:
        return KeeperLoss(link.index, link.peer.url, "empty")
    others = sorted({claim.store_id for claim in claims} - {store_id})
    if others:
        return KeeperLoss(link.index, link.peer.url, "foreign", f"store {', '.join(others)}")
    return KeeperLoss(link.index, link.peer.url, "holding")


async def _erased(link: KeeperLink, store_id: str) -> KeeperLoss:
    """Let a Keeper erase what it holds of the store. Another store's share is never touched."""
    try:
        look = await link.look()
        for held in (look.staged, look.committed):
            if held is not None and held.claim.store_id == store_id:
                await link.erase(held.claim.set_id)
        after = await _held(link, store_id)
    except SpikeError as error:
        return KeeperLoss(link.index, link.peer.url, "unreachable", error.message)
    return KeeperLoss(link.index, link.peer.url, "erased") if after.state == "empty" else after
