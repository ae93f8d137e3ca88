"""Recovery shards: a slot that people open together. Hand them out while the vault is open, collect them while not.

Handing out is one lifecycle step: everything that can fail is done first, the new slot has been opened from its shards
in the child before it is written, and `Vault.advance` is the commit line. Whoever does not get the answer hands out
again; the shards before are useless then.

What arrives is kept in locked memory for COLLECTION_LIFE_S after the newest shard. The rules are those of
spike.lifecycle.recovery_shard; what is brought back is examined like every other restore.

Whose slot it is cannot be authenticated before the root key is back. So shards for the store's slot and shards for a
key backup's slot wait apart: a backup that somebody made up does not drop what others have brought for the store.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from spike.crypto import shamir
from spike.error import StoreCorruptError
from spike.lifecycle import keyring, recovery_shard
from spike.lifecycle import restore as rules
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.recovery_shard import Collection, NewShardSlot
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.shard_check import ShownShard, checked_in
from spike.lifecycle.slot import header_of
from spike.memory.key_memory import KeyMemory
from spike.nexus.examination import Asked, Tried, slots_in_places
from spike.nexus.opened import Opened
from spike.nexus.password_desk import PasswordDesk, PasswordSession
from spike.nexus.place_search import with_newest
from spike.nexus.restore_flow import Preview, RestoreDesk
from spike.nexus.ring_commit import commit
from spike.nexus.vault import Vault

COLLECTION_LIFE_S: Final = 600
_log = logging.getLogger("spike.nexus.shard")


@dataclass(frozen=True, slots=True)
class HandedOut:
    """A set of recovery shards, by index. Whoever gets it wipes it."""

    set_id: str
    threshold: int
    shards: Mapping[int, KeyMemory]

    def wipe(self) -> None:
        """Forget the shards. Idempotent."""
        for shard in self.shards.values():
            shard.wipe()


@dataclass(frozen=True, slots=True)
class Arrived:
    """One recovery shard, which stays the caller's to wipe; `set_id` is empty where its text names none."""

    index: int
    value: KeyMemory
    set_id: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: `preview` waits for its confirmation, `opened` is the open vault."""

    collected: int
    remaining: int
    preview: Preview | None = None
    opened: Opened | None = None


class ShardDesk:
    """Recovery shards of one vault: `shares` are handed out, `threshold` of them are needed."""

    def __init__(
        self,
        vault: Vault,
        passwords: PasswordDesk,
        restores: RestoreDesk,
        *,
        shares: int,
        threshold: int,
    ) -> None:
        self._vault = vault
        self._passwords = passwords
        self.restores = restores
        self._shares = shares
        self._threshold = threshold
        # By the origin of the slot, so at most two.
        self._waiting: dict[str, _Waiting] = {}
        vault.on_new_state.append(self.forget)

    async def recover(self, actor: str) -> HandedOut:
        """Hand out a new set; the one before is useless from then on.

        Raises:
            NotReadyError: the vault is not open, or writes are stopped.
            RefusalError: BUSY, another lifecycle operation is in progress.
            StoreError: the store failed. Should the shards before no longer be good, the next try tells.
        """
        async with self._vault.lock:
            present = self._vault.require_writable()
            handed_out, ring = await self._made(present, actor)
            try:
                await commit(self._vault, present, ring)
            except BaseException:
                handed_out.wipe()
                raise
            _log.warning(
                "recovery shards of set %s were handed out to %s", handed_out.set_id, actor
            )
            return handed_out

    def document(self) -> Keyring:
        """Return the keyring in force.

        Raises:
            NotReadyError: the vault is locked.
        """
        return self._vault.opened.document

    async def check_in(self, shown: ShownShard, actor: str) -> None:
        """Note that the holder of a shard has shown it.

        Raises:
            RefusalError: UNKNOWN_SLOT or WRONG_SHARD; nothing was noted.
            StoreError: it could not be noted.
        """
        vault = self._vault
        at = vault.moment()
        async with vault.lock:
            await vault.change(
                lambda ring: ring.replaced(checked_in(ring.document, shown, at, actor))
            )

    def set_in_force(self) -> str | None:
        """Return the set whose shards a new one would make useless, or None."""
        slot = self._vault.opened.document.shard_slot
        return None if slot is None else slot.id

    async def _made(self, present: Opened, actor: str) -> tuple[HandedOut, KeyRing]:
        session = await self._passwords.begin_without_password(actor)
        try:
            with KeyMemory.generate() as secret:
                handed_out = HandedOut(
                    secrets.token_hex(16),
                    self._threshold,
                    shamir.split(secret, self._threshold, range(1, self._shares + 1)),
                )
                try:
                    ring = await self._proven(present, session, handed_out, secret, actor)
                except BaseException:
                    handed_out.wipe()
                    raise
            return handed_out, ring
        finally:
            await session.close()

    async def _proven(
        self,
        present: Opened,
        session: PasswordSession,
        handed_out: HandedOut,
        secret: KeyMemory,
        actor: str,
    ) -> KeyRing:
        """Return the ring with the new slot, which has been opened with what the shards give."""
        document, set_id = present.document, handed_out.set_id
        with_secret = recovery_shard.give_secret(handed_out.shards, handed_out.threshold, secret)
        public = await session.unlock(
            secret, bytes.fromhex(document.store_id), bytes.fromhex(set_id)
        )
        new = NewShardSlot(
            id=set_id,
            public=public,
            auth=session.take_auth(),
            threshold=handed_out.threshold,
            digests=tuple(
                recovery_shard.digest_of(document.store_id, set_id, index, shard)
                for index, shard in sorted(handed_out.shards.items())
            ),
        )
        try:
            following = recovery_shard.with_shards(
                document, present.ring.root, new, self._vault.moment(), actor
            )
            ring = present.ring.changed(following, {recovery_shard.key_name(set_id): new.auth})
            if not with_secret or not await _opens(session, following, present.ring.root):
                raise RefusalError(  # noqa: TRY301  (the new key has to be wiped)
                    Reason.DAMAGED, "the shards that were made do not give the root key back"
                )
        except BaseException:
            new.auth.wipe()
            raise
        return ring

    async def restore(
        self, arrived: Arrived, asked: Asked, *, preview_only: bool = False
    ) -> Progress:
        """Take one shard; with the last one needed, bring the root key back, or show what would be.

        Raises:
            RefusalError: with the reason; see spike.lifecycle.refusal. The shards that are there stay, unless the
                whole set does not open the slot.
            StoreError: the store failed; nothing was restored.
        """
        async with self._vault.lock:
            self.restores.require_locked()
            try:
                return await self._restore(arrived, asked, preview_only)
            except StoreCorruptError as error:
                raise RefusalError(Reason.DAMAGED, error.message, error.next_step) from error

    async def _restore(self, arrived: Arrived, asked: Asked, preview_only: bool) -> Progress:
        stored = await self.restores.stored_for(asked)
        asked = await with_newest(self._vault, stored, asked)
        candidate = rules.choose(None if stored is None else stored.blob, asked.backup)
        tried = Tried(candidate, rules.choose_shard_slot(candidate.held), stored)
        _require_set(arrived, tried)
        await self._require_same_slot(tried)
        collection = self._collected(arrived, tried)
        if collection.remaining:
            return Progress(collection.collected, collection.remaining)
        root = await self._open_slot(collection, tried, asked.actor)
        found = await self.restores.examined(root, tried, asked)
        collected = collection.collected
        if preview_only or asked.system is not None:
            return Progress(collected, 0, preview=self.restores.hold(found))
        return Progress(collected, 0, opened=await self.restores.finish(found))

    def _collected(self, arrived: Arrived, tried: Tried) -> Collection:
        """Add a shard to what is collected for this slot, kept for a while from now.

        One that does not fit changes nothing. The first for another slot of the same origin drops those before.

        Raises:
            RefusalError: WRONG_SHARD.
        """
        origin, collection = self._collection_of(tried)
        collection.add(arrived.index, arrived.value)
        before = self._waiting.get(origin)
        if before is not None and before.collection is collection:
            before.timer.cancel()
        elif before is not None:
            self._drop(before.collection)
        timer = asyncio.get_running_loop().call_later(COLLECTION_LIFE_S, self._drop, collection)
        self._waiting[origin] = _Waiting(collection, timer)
        return collection

    def _collection_of(self, tried: Tried) -> tuple[str, Collection]:
        """Return what is collected for this slot, also under the other origin; else a new one, under its own."""
        store_id, slot = tried.candidate.held.hint.store_id, tried.chosen.slot
        for origin, waiting in self._waiting.items():
            if waiting.collection.is_for(store_id, slot):
                return origin, waiting.collection
        assert slot.shards is not None  # a keyring without them is refused when it is read
        return tried.candidate.origin, Collection(store_id, slot, slot.shards)

    async def _require_same_slot(self, tried: Tried) -> None:
        """Refuse a slot that a backup place remembers otherwise, before right shards are called wrong."""
        hint, slot = tried.candidate.held.hint, tried.chosen.slot
        if tried.candidate.backup is not None:
            return
        for copy, path in await slots_in_places(self._vault, hint.store_id):
            if copy.id == slot.id and (copy.public, copy.shards) != (slot.public, slot.shards):
                raise RefusalError(
                    Reason.PLANTED,
                    f"slot {slot.name!r} in the store differs from the one in the backup place: somebody changed it",
                    f"restore from the backup place: spike operator restore --backup {path}",
                )

    async def _open_slot(self, collection: Collection, tried: Tried, actor: str) -> KeyMemory:
        hint, slot, sealed = tried.candidate.held.hint, tried.chosen.slot, tried.chosen.sealed
        self.restores.require_no_delay(slot.id, slot.name)
        session = await self._passwords.begin_without_password(actor)
        try:
            with collection.secret() as secret:
                public = await session.unlock(
                    secret, bytes.fromhex(hint.store_id), bytes.fromhex(slot.id)
                )
            if public != slot.public:
                self.restores.note_wrong(slot.id)
                self._drop(collection)
                raise RefusalError(
                    Reason.PLANTED,
                    f"each shard fits {tried.candidate.origin}, and together they do not open it: somebody changed it",
                    "keep the shards; restore from another copy: spike operator restore --backup FILE",
                )
            header = header_of(hint, slot, sealed)
            root = await session.open(header, sealed.sealed, bytes.fromhex(sealed.tag))
        finally:
            await session.close()
        self.restores.note_right(slot.id)
        return root

    def forget(self) -> None:
        """Drop and wipe all that was collected. Idempotent."""
        for waiting in tuple(self._waiting.values()):
            self._drop(waiting.collection)

    def _drop(self, collection: Collection) -> None:
        for origin, waiting in tuple(self._waiting.items()):
            if waiting.collection is collection:
                waiting.timer.cancel()
                del self._waiting[origin]
        collection.wipe()


class _Waiting(NamedTuple):
    """What was collected, and what drops it."""

    collection: Collection
    timer: asyncio.TimerHandle


def _require_set(arrived: Arrived, tried: Tried) -> None:
    slot = tried.chosen.slot
    if arrived.set_id and arrived.set_id != slot.id:
        raise RefusalError(
            Reason.WRONG_SHARD,
            f"this shard is of set {arrived.set_id}; the present set of this store is {slot.id}, made "
            f"{slot.created_at}: the shard is of an older set or another store",
            "use shards of the present set",
        )


async def _opens(session: PasswordSession, following: Keyring, root: KeyMemory) -> bool:
    """Open the new slot from the very bytes that will be written, which the commit line reads back and compares."""
    held = keyring.decode_untrusted(keyring.encode(following, root))
    chosen = rules.choose_shard_slot(held)
    header = header_of(held.hint, chosen.slot, chosen.sealed)
    reopened = await session.open(header, chosen.sealed.sealed, bytes.fromhex(chosen.sealed.tag))
    with reopened:
        return reopened.same_as(root) and held.confirmed_by(reopened) is not None
