"""What a drill does: a full recovery into a throw-away instance, from only what would survive a disaster.

1. `backup`: the key backup is read from a backup place, as a restore reads it.
2. `open`: the root key is opened in a child process. With a person: by the password, from the backup itself. Without:
   from a throw-away slot. A key pair is made of 32 random bytes that are in locked memory and in the child alone, the
   root key is sealed to it exactly as to the slots of the backup, and the child opens that.
3. `authenticate`: the root key confirms the whole backup, which must be the newest.
4. `key`: every wrapped key is opened, and each slot's sealed root key is held against its MAC.
5. `record`: one moment of the store is read to its end; a sample, or everything, is opened.
6. `serve`: access list and policies are loaded, and the sampled secrets are read as clients read them.

The instance (`drill_instance`) has no Keepers and no place, changes nothing, and is wiped. Where the keyring was
replaced meanwhile it starts again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Final

from spike.error import NotReadyError, StoreUnavailableError
from spike.lifecycle import restore as rules
from spike.lifecycle.keyring import Keyring, Slot, SlotKind
from spike.lifecycle.proof import DrillKind, Outcome
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.restore import Candidate
from spike.lifecycle.slot import header_of, seal_root
from spike.memory.key_memory import KEY_BYTES, KeyMemory
from spike.nexus.drill_instance import DrillInstance, Tally
from spike.nexus.examination import open_ring
from spike.nexus.opened import Opened
from spike.nexus.password_child import Derive
from spike.nexus.password_desk import PasswordDesk, PasswordSession
from spike.nexus.restore_flow import RestoreDesk
from spike.nexus.vault import Vault
from spike.storage.ability import CanSnapshot
from spike.storage.protocol import KEYRING, SECRET_META

ACTOR: Final = "nexus"
_log: Final = logging.getLogger("spike.nexus.drill")


class ChangedError(Exception):
    """The keyring was replaced while a drill looked at it; or, where it stays so, `otherwise`."""

    def __init__(self, otherwise: RefusalError | None = None) -> None:
        super().__init__("the keyring was replaced")
        self.otherwise = otherwise


@dataclass(frozen=True, slots=True)
class Password:
    """A person's password, sealed to a session, and the slot it is for; an empty name is the first."""

    session: PasswordSession
    sealed: bytes
    slot_name: str


@dataclass(slots=True)
class Drill:
    """One drill, while it runs and when it has ended. `key_s` is how long it took until every key was there."""

    kind: DrillKind
    actor: str
    full: bool
    at: str
    began_s: float
    tally: Tally = field(default_factory=Tally)
    steps: list[tuple[str, float]] = field(default_factory=list)
    source: str = ""
    slot: str = ""
    generation: int = 0
    epoch: int = 0
    keys: int = 0
    slots: int = 0
    policies: int = 0
    key_s: float = 0.0
    duration_s: float = 0.0
    outcome: Outcome | None = None

    @contextlib.asynccontextmanager
    async def step(self, name: str) -> AsyncIterator[None]:
        """Time a step."""
        began = time.monotonic()
        yield
        self.steps.append((name, time.monotonic() - began))

    def begin_again(self) -> None:
        """Forget what an attempt has found that the keys have overtaken."""
        self.tally = Tally()
        self.steps = []


class Recovery:
    """Recovers one vault's keys and records beside it. Changes nothing of the vault."""

    def __init__(self, vault: Vault, desk: PasswordDesk, attempts: RestoreDesk) -> None:
        self._vault = vault
        self._desk = desk
        self._attempts = attempts

    async def derive(self, drill: Drill, password: Password, ready: asyncio.Future[None]) -> None:
        """Derive the slot's keys of a password, once: the child keeps them."""
        try:
            candidate = await self._backup(drill)
            slot = rules.choose_slot(candidate.held, password.slot_name).slot
            self._attempts.require_no_delay(slot.id, slot.name)
            public = await password.session.derive(
                Derive(
                    sealed_password=password.sealed,
                    argon2=slot.argon2,
                    salt=slot.salt,
                    store_id=bytes.fromhex(candidate.held.hint.store_id),
                    slot_id=bytes.fromhex(slot.id),
                    judge=None,
                )
            )
            if public != slot.public:
                self._attempts.note_wrong(slot.id)
                raise _wrong_password(slot)
            self._attempts.note_right(slot.id)
        except RefusalError as refusal:
            ready.set_exception(refusal)
            raise
        drill.slot = slot.name
        ready.set_result(None)

    async def run(self, drill: Drill, password: Password | None, undo: AsyncExitStack) -> None:
        vault = self._vault
        await vault.settled()
        opened = vault.opened
        async with drill.step("backup"):
            candidate = await self._backup(drill)
        async with drill.step("open"):
            if password is None:
                root = await self._opened_by_itself(candidate, opened)
            else:
                chosen = rules.choose_slot(candidate.held, drill.slot)
                header = header_of(candidate.held.hint, chosen.slot, chosen.sealed)
                tag = bytes.fromhex(chosen.sealed.tag)
                root = await password.session.open(header, chosen.sealed.sealed, tag)
        undo.callback(root.wipe)
        async with drill.step("authenticate"):
            confirmed = rules.confirm(candidate, root)
            self._require_newest(confirmed, opened)
        drill.generation, drill.epoch = confirmed.active_root.number, confirmed.epoch
        async with drill.step("key"):
            instance = DrillInstance(
                open_ring(confirmed, root), vault.clock, drill.tally, full=drill.full
            )
            undo.push_async_callback(instance.wipe)
            drill.keys = sum(key.is_live for key in confirmed.keys)
            drill.slots = instance.check_slots()
        drill.key_s = time.monotonic() - drill.began_s
        async with drill.step("record"):
            await self._read_store(drill, instance, opened)
        async with drill.step("serve"):
            drill.policies = await instance.load_rights()
            await instance.read_secrets()

    async def _read_store(self, drill: Drill, instance: DrillInstance, opened: Opened) -> None:
        vault = self._vault
        store = vault.store
        if not isinstance(store, CanSnapshot):
            raise StoreUnavailableError("this storage engine does not show one moment of itself")
        census = await store.census()
        drill.tally.expected = sum(n for (kind, _), n in census.items() if kind != KEYRING)
        count = sum(n for (kind, _), n in census.items() if kind == SECRET_META)
        async with opened.policies.unchanging():
            snapshot = await store.snapshot()
        try:
            await vault.settled()
            if vault.opened.document.revision != opened.document.revision:
                raise ChangedError
            await instance.take(snapshot, secrets.randbits(32), count)
        finally:
            await snapshot.close()

    async def _backup(self, drill: Drill) -> Candidate:
        """Read the key backup from the first place that has one."""
        store_id = self._vault.opened.document.store_id
        for state in self._vault.places:
            place = state.place
            try:
                raw = await place.reach.call(place.read_backup, store_id)
            except StoreUnavailableError as error:
                _log.error("%s", error.message)
                continue
            if raw is not None:
                drill.source = str(place.backup_path(store_id))
                return rules.choose(None, raw)
        raise NotReadyError("no backup place holds a key backup of this store")

    def _require_newest(self, confirmed: Keyring, opened: Opened) -> None:
        present = self._vault.opened.document
        if confirmed.age == present.age:
            return
        if present.revision != opened.document.revision or confirmed.age > opened.document.age:
            raise ChangedError
        older = RefusalError(
            Reason.OLD,
            f"the key backup is of epoch {confirmed.epoch}, revision {confirmed.revision}; in force are epoch "
            f"{present.epoch}, revision {present.revision}",
        )
        raise ChangedError(older)  # it may just be being renewed

    async def _opened_by_itself(self, candidate: Candidate, opened: Opened) -> KeyMemory:
        """Seal the root key to a throw-away slot, and return what a child opens of it."""
        document = opened.document
        slot_id = secrets.token_hex(16)
        ids = bytes.fromhex(document.store_id), bytes.fromhex(slot_id)
        session = await self._desk.begin_without_password(ACTOR)
        try:
            with KeyMemory.generate(KEY_BYTES) as secret:
                public = await session.unlock(secret, *ids)
            slot = _throw_away(slot_id, public, self._vault.moment())
            with session.take_auth() as auth:
                if self._vault.opened.ring is not opened.ring:
                    raise ChangedError  # its root key may be wiped by now
                sealed = seal_root(
                    opened.ring.root,
                    store_id=document.store_id,
                    lineage=document.lineage,
                    slot=slot,
                    auth=auth,
                    generation=document.active_root.number,
                    check=document.active_root.check,
                    sealed_at=slot.created_at,
                )
            header = header_of(candidate.held.hint, slot, sealed)
            return await session.open(header, sealed.sealed, bytes.fromhex(sealed.tag))
        finally:
            await session.close()


def _throw_away(slot_id: str, public: bytes, at: str) -> Slot:
    """Return a slot that stands in no keyring."""
    return Slot(
        id=slot_id,
        name="drill",
        kind=SlotKind.DRILL,
        argon2="",
        salt=b"",
        public=public,
        created_at=at,
        verified_at=at,
        renew=False,
        roots=(),
    )


def _wrong_password(slot: Slot) -> RefusalError:
    return RefusalError(
        Reason.WRONG_PASSWORD,
        f"the password does not open slot {slot.name!r} of the key backup",
        "try again, or name another slot with --slot",
    )
