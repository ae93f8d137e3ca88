"""Steps 1 to 4 of a rotation, up to its flip. Owns the keys that are being brought in until they are in force.

Nothing of it survives the process but numbers: after a kill before the flip the rotation is prepared again with new
keys. Order and reasons are those of spike.lifecycle.rotation.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from spike.error import SpikeError, StoreError
from spike.lifecycle import anchor as anchors
from spike.lifecycle import backup, keyring
from spike.lifecycle import rotation as rules
from spike.lifecycle.keyring import KeyPurpose as Purpose
from spike.lifecycle.keyring import Keyring, RotationKind, Slot, SlotKind
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyName, KeyRing
from spike.lifecycle.rotation import Incoming
from spike.lifecycle.rotation_flip import flipped
from spike.lifecycle.rotation_plan import Numbers, Plan, numbers_of
from spike.lifecycle.slot import header_of, seal_root
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_link import KeeperLink
from spike.nexus.keeper_refresh import NewSet, able_among, deliver, new_set, withdraw
from spike.nexus.opened import Opened
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.performer import Performer, Point

_log: Final = logging.getLogger("spike.nexus.rotation")


class Preparation:
    """One try to bring a rotation to its flip. `close` ends it, whatever has become of it."""

    def __init__(
        self,
        keepers: KeeperDesk,
        passwords: PasswordDesk,
        performer: Performer,
        plan: Plan,
        *,
        former: Callable[[KeyRing], None],
    ) -> None:
        """`former` is given the ring that the flip takes the place of: what does not live on in it is to be wiped."""
        self.plan = plan
        self._keepers = keepers
        self._vault = keepers.vault
        self._passwords = passwords
        self._performer = performer
        self._former = former
        self._numbers: Numbers | None = None
        self._incoming: Incoming | None = None
        self._new: NewSet | None = None

    async def reserve(self, noted: Mapping[str, Mapping[str, str]]) -> None:
        """Step 1: make the keys, and reserve their numbers. `noted` are events told with it, by kind.

        Raises:
            RefusalError: it cannot begin on the keyring in force.
            StoreError: the store failed.
        """

        def step(ring: KeyRing) -> KeyRing:
            self._make(ring)
            assert self._numbers is not None
            assert self._incoming is not None
            at = self._vault.moment()
            document = rules.prepared(ring, self.plan, self._numbers, self._incoming, at)
            for kind, detail in noted.items():
                document = rules.noted(document, at, kind, {"id": self.plan.id, **detail})
            return ring.replaced(document)

        await self._performer.do(Point.PREPARED, lambda: self._vault.change(step))

    def _make(self, ring: KeyRing) -> None:
        self._numbers = numbers = numbers_of(ring.document, self.plan)
        if numbers.root.after == numbers.root.before:
            root = ring.root
        elif self.plan.kind is RotationKind.ROLLBACK:
            root = ring.key(KeyName(Purpose.ROOT, "", numbers.root.after))
        else:
            root = KeyMemory.generate()
        self._incoming = Incoming(root, {name: KeyMemory.generate() for name in numbers.new_names})

    @property
    def _replaces_root(self) -> bool:
        numbers = self._numbers
        return numbers is not None and numbers.root.after != numbers.root.before

    async def carry_to_flip(self) -> Opened:
        """Steps 2 to 4. Returns what is open behind the flip.

        Raises:
            RefusalError: a Keeper, a place or a slot does not take the incoming key; nothing has come into force.
            StoreError: the store failed; whether the flip was written is known once the vault has settled.
        """
        async with self._keepers.lock:
            if self._replaces_root:
                await self._distribute()
            await self._back_up()
            return await self._flip()

    async def _distribute(self) -> None:
        """Step 2: the Keepers get their shares beside the ones in force, give them back, and these give the key."""
        links = self._members()
        if not links:
            return
        assert self._incoming is not None
        assert self._numbers is not None
        document, number = self._vault.opened.document, self._numbers.root.after
        check = next(root.check for root in document.roots if root.number == number)
        self._new = new = new_set(
            links,
            self._keepers.threshold,
            self._incoming.root,
            store_id=document.store_id,
            lineage=document.lineage,
            generation=number,
        )
        root, anchor_raw = self._incoming.root, self._vault.opened.anchor_raw()
        least = self._least(len(links))

        async def stage() -> None:
            # Who has the set in force staged only commits it first: it would be staged over.
            able = await able_among(links, document)
            if len(able) < least:
                raise RefusalError(
                    Reason.KEEPER,
                    f"{len(able)} of {len(links)} Keepers can take a new share, and {least} have to",
                    "see that each of them runs and is the right one: spike keeper status",
                )
            await deliver(able, new, root, check, least=least, anchor_raw=anchor_raw)

        def step(ring: KeyRing) -> KeyRing:
            at = self._vault.moment()
            return ring.replaced(rules.distributed(ring.document, new.share_set, at))

        await self._performer.do(Point.STAGE, stage)
        await self._performer.do(Point.DISTRIBUTED, lambda: self._vault.change(step))

    def _members(self) -> list[KeeperLink]:
        """Return the Keepers that get a share of the incoming key: not one that leaked."""
        if self.plan.without_keepers:
            return []
        leaked = () if self.plan.emergency is None else self.plan.emergency.leaked
        return [link for link in self._keepers.links if f"keeper:{link.index}" not in leaked]

    def _least(self, members: int) -> int:
        """Return how many Keepers must hold their new share before the flip."""
        if self.plan.emergency is None:
            return members - len(self.plan.left_out)
        return (
            self._keepers.threshold
            if self.plan.forced
            else min(members, self._keepers.threshold + 1)
        )

    async def _back_up(self) -> None:
        """Step 3: the incoming root key is sealed to every slot, and each place gets a backup of what will be."""
        assert self._incoming is not None
        opened, at = self._vault.opened, self._vault.moment()
        ring, document = opened.ring, opened.document
        auth = {slot.id: ring.auth(slot.id) for slot in document.slots}
        slots = rules.sealed_slots(document, self._incoming.root, auth, at)
        states = self._vault.places
        following = rules.backed_up(document, slots, len(states), at)
        if self._replaces_root and document.slots:
            await self._prove_sealing(document)
        raw = self._pending(opened, following)

        async def write() -> None:
            await self._write_pending(document, raw)

        def step(present: KeyRing) -> KeyRing:
            held = rules.backed_up(present.document, slots, len(states), self._vault.moment())
            return present.replaced(held)

        await self._performer.do(Point.PENDING, write)
        await self._performer.do(Point.BACKED_UP, lambda: self._vault.change(step))

    async def _write_pending(self, document: Keyring, raw: bytes) -> None:
        """Give every place the pending backup. In an emergency one that fails is named and left out."""
        for state in self._vault.places:
            try:
                await state.place.reach.call(state.place.write_pending, document.store_id, raw)
            except StoreError as error:
                if self.plan.emergency is None:
                    raise RefusalError(
                        Reason.ROTATION,
                        f"a backup place does not take the backup of the incoming key: {error.message}",
                        "mend the place and rotate again",
                    ) from error
                _log.error("left out of the rotation: %s", error.message)

    def _pending(self, opened: Opened, backed_up: Keyring) -> bytes:
        """Return the key backup of the keyring behind the flip, proven to open with the incoming root key alone."""
        assert self._incoming is not None
        root = self._incoming.root
        following = flipped(backed_up, self._vault.moment(), has_keepers=self._needs_keepers)
        raw = keyring.encode(following, root)
        confirmed = keyring.decode_untrusted(raw).confirmed_by(root)
        if confirmed is None:
            raise RefusalError(
                Reason.DAMAGED, "the next keyring is not confirmed by its own root key"
            )
        KeyRing.open(confirmed, root.duplicate()).wipe()
        statement = anchors.anchor_of(following, opened.policies.access_generation)
        return backup.encode(
            raw,
            anchors.encode(statement, root),
            self._vault.moment(),
            following,
            root,
            pending=True,
        )

    @property
    def _needs_keepers(self) -> bool:
        return bool(self._members())

    async def _prove_sealing(self, document: Keyring) -> None:
        """Seal the incoming root key to a slot made for this alone, and open it again, in the child.

        Nobody can open the real copies without a password: this one shows that what was sealed just now comes back.
        """
        assert self._incoming is not None
        root, number = self._incoming.root, document.rotation
        assert number is not None
        session = await self._passwords.begin_without_password("nexus")
        slot_id, at = secrets.token_hex(16), self._vault.moment()
        try:
            with KeyMemory.generate() as secret:
                public = await session.unlock(
                    secret, bytes.fromhex(document.store_id), bytes.fromhex(slot_id)
                )
            with session.take_auth() as auth:
                slot = Slot(
                    id=slot_id,
                    name="throw-away",
                    kind=SlotKind.DRILL,
                    argon2="",
                    salt=b"",
                    public=public,
                    created_at=at,
                    verified_at=at,
                    renew=False,
                    roots=(),
                )
                sealed = seal_root(
                    root,
                    store_id=document.store_id,
                    lineage=document.lineage,
                    slot=slot,
                    auth=auth,
                    generation=number.root.after,
                    check="0" * 64,
                    sealed_at=at,
                    pending=True,
                )
            header = header_of(document, slot, sealed)
            with await session.open(header, sealed.sealed, bytes.fromhex(sealed.tag)) as opened:
                if not opened.same_as(root):
                    raise RefusalError(
                        Reason.DAMAGED, "a root key that was sealed does not come back the same"
                    )
        finally:
            await session.close()

    async def _flip(self) -> Opened:
        """Step 4: one compare-and-swap. Its precondition is checked on the very keyring that it replaces."""
        assert self._incoming is not None
        incoming = self._incoming

        def step(ring: KeyRing) -> KeyRing:
            at = self._vault.moment()
            following = flipped(ring.document, at, has_keepers=self._needs_keepers)
            self._former(ring)
            return ring.succeeded(following, incoming.root, incoming.added)

        return await self._performer.do(Point.FLIP, lambda: self._vault.change(step))

    def is_in_force(self) -> bool:
        """Return whether the keys brought in are those in force, as far as is known."""
        if self._incoming is None or not self._vault.is_open:
            return False
        rotation = self._vault.opened.document.rotation
        return rotation is not None and rotation.id == self.plan.id and bool(rotation.flipped_at)

    async def drop(self, why: str) -> None:
        """End a rotation that has not come into force; its numbers stay used.

        Raises:
            StoreError: the store failed; it can be tried again.
        """

        def step(ring: KeyRing) -> KeyRing:
            return ring.replaced(rules.dropped(ring.document, self._vault.moment(), why[:400]))

        await self._performer.do(Point.DROPPED, lambda: self._vault.change(step))
        await self.clear()

    async def clear(self) -> None:
        """Take back what lies outside of the keyring: staged shares and pending backups."""
        if self._new is not None:
            links, set_id = self._members(), self._new.share_set.id
            await self._performer.do(Point.WITHDRAW, lambda: withdraw(links, set_id))
        await remove_pending(self._keepers, self._performer)

    def close(self) -> None:
        """Wipe what has not come into force, and hand over what has. Idempotent.

        Whoever waited for the flip may have been cancelled, or may not have had its answer, and it is in force.
        """
        ring = self._vault.opened.ring if self._vault.is_open else None
        if self._incoming is not None:
            for key in (self._incoming.root, *self._incoming.added.values()):
                if ring is None or not ring.holds(key):
                    key.wipe()
        if self._new is not None:
            in_force = self._keepers.set_in_force()
            if in_force is not None and in_force.id == self._new.share_set.id:
                self._keepers.adopt(self._new.held)
            else:
                self._new.held.wipe()
        self._incoming = self._new = None


async def remove_pending(keepers: KeeperDesk, performer: Performer) -> Sequence[str]:
    """Remove the pending backup from every place; return what stands in the way, which is tried again later.

    A place that does not hold the backup in force keeps it: behind a flip it is the one copy there of the new keys.
    """
    vault = keepers.vault
    store_id = vault.opened.document.store_id
    faults: list[str] = []

    async def remove() -> None:
        async with vault.place_desk.lock:  # behind a renewal that is under way
            for state in vault.places:
                if state.fault:
                    faults.append(state.fault)
                    continue
                try:
                    await state.place.reach.call(state.place.remove_pending, store_id)
                except SpikeError as error:
                    faults.append(error.message)
                    _log.error("%s", error.message)

    await performer.do(Point.CLEAR_PENDING, remove)
    return faults
