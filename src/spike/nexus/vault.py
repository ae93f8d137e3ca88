"""The vault: which state the root key is in, in this process, and everything that exists only while it is there.

    uninitialized ──init──► open ──(the process ends)──► locked ──restore──► open

`Opened` is immutable and swapped whole: a request works with the one it began with. What changes it goes through
`replace_keyring`, the one commit line of every change of keys in Nexus.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from spike.error import (
    NotReadyError,
    RefusedError,
    StoreError,
    StoreUnavailableError,
)
from spike.lifecycle import backup, history, keyring
from spike.lifecycle.keyring import KeyPurpose
from spike.lifecycle.ring import KeyRing, confirms_root
from spike.nexus.anchor_guard import AnchorGuard
from spike.nexus.history_book import appended
from spike.nexus.in_use import InUse
from spike.nexus.key_life import KeyLife, SealCount
from spike.nexus.opened import Opened, Phase, Stop
from spike.nexus.place import Place
from spike.nexus.place_desk import PlaceDesk, PlaceState
from spike.nexus.policy_book import PolicyBook
from spike.nexus.sealed import SealedStore
from spike.nexus.secret_book import Clock, SecretBook
from spike.nexus.unbroken import unbroken
from spike.nexus.write_stop import WriteStops
from spike.storage.protocol import (
    KEYRING,
    Change,
    Expected,
    Put,
    Record,
    RecordId,
    Revision,
    SetFence,
    Store,
)
from spike.wire.go_time import UnixNs, go_time

KEYRING_ID: Final = RecordId(KEYRING, "current")
_NS_PER_S: Final = 1_000_000_000
_log = logging.getLogger("spike.nexus.vault")


class Vault:
    """Holds the store, the backup places and, while it is open, the keys."""

    def __init__(
        self, store: Store, places: Sequence[Place], clock: Clock, max_versions: int
    ) -> None:
        self.store = store
        self.clock = clock
        self.lock = asyncio.Lock()
        """Held by whatever changes keys: one of them at a time."""
        self.changed = asyncio.Event()
        """Set when keys or rights have changed: whoever keeps anchors should be told."""
        self._max_versions = max_versions
        self._places = PlaceDesk(places)
        # Held while one keyring takes another's place.
        self._swap_lock = asyncio.Lock()
        self.served = 0
        """Requests answered since the start: long work beside them looks here whether there are any."""
        self.on_new_state: list[Callable[[], None]] = []
        """Done as soon as the root key is back, whoever brought it, and when the vault is closed: what waited to bring
        it back is wiped, and what was seen of the store before is forgotten."""
        self.in_use = InUse()
        """Counts the requests that work with what is open."""
        self.life, self.seal_count = KeyLife(clock), SealCount()
        # A keyring of which nobody knows whether it was written.
        self._uncertain: KeyRing | None = None
        self._opened: Opened | None = None
        self._stops = WriteStops()
        self.guard = AnchorGuard(self._places, self._stops)
        """Knows whether the anchor of the last change is held outside of the store."""

    @property
    def is_open(self) -> bool:
        """Whether the root key is there."""
        return self._opened is not None

    @property
    def opened(self) -> Opened:
        """What exists while the root key is there.

        Raises:
            NotReadyError: it is not.
        """
        if self._opened is None:
            raise NotReadyError("there is no root key in memory", "restore it: spike restore")
        return self._opened

    @property
    def places(self) -> tuple[PlaceState, ...]:
        """The backup places and how they are."""
        return self._places.states

    @property
    def place_desk(self) -> PlaceDesk:
        """Who writes to the backup places."""
        return self._places

    @property
    def stops(self) -> frozenset[Stop]:
        """Why nothing is written; empty when writes are served."""
        return self._stops.reasons

    def require_writable(self, purpose: KeyPurpose = KeyPurpose.RECORD) -> Opened:
        """Return what is open if its key of a purpose may seal what a caller gives.

        Raises:
            NotReadyError: there is no root key, writes have been stopped, or the key has been in use for too long.
        """
        if self.stops:
            raise NotReadyError(f"writes are stopped: {', '.join(sorted(self.stops))}")
        self.life.require_sealing(self.opened.document, purpose)
        return self.opened

    def stop_writes(self, reason: Stop) -> None:
        """Refuse every write from now on; reads go on."""
        self._stops.add(reason)

    async def phase(self) -> Phase:
        """Return the vault's phase."""
        if self.is_open:
            return Phase.OPEN
        record = await self.store.get(KEYRING_ID)
        return Phase.UNINITIALIZED if record is None else Phase.LOCKED

    def moment(self) -> str:
        """Return the present moment as documents write it: RFC 3339, UTC, whole seconds."""
        now = self.clock()
        return str(go_time(UnixNs(now - now % _NS_PER_S)))

    async def replace_keyring(
        self, ring: KeyRing, expected: Expected, beside: Sequence[Change] = ()
    ) -> tuple[Revision, bytes]:
        """Write the ring's document in the place of the revision expected, and read it back. THE COMMIT LINE.

        `beside` are changes that become true in the same moment. Nothing in memory changes here.

        Raises:
            StoreConflictError: the store's keyring is another one than expected; nothing was written.
            StoreUnavailableError: it could not be read back as written.
        """
        if not confirms_root(ring.document, ring.root):
            # It would be read back as written, and nothing could ever confirm it again.
            self.stop_writes(Stop.WRONG_KEY)
            raise StoreUnavailableError(f"no keyring is written: {Stop.WRONG_KEY}")
        raw = keyring.encode(ring.document, ring.root)
        put = Put(KEYRING_ID, raw, ring.document.active_root.number, expected)
        revisions = await self.store.apply(
            (*beside, put, SetFence(ring.document.epoch)), fence=None
        )
        stored = await self.store.get(KEYRING_ID)
        if stored is None or stored.blob != raw:
            raise StoreUnavailableError(
                "the store does not hold the keyring that was written to it"
            )
        return revisions[len(beside)], raw

    async def open_with(
        self, ring: KeyRing, revision: Revision, raw: bytes, policies: PolicyBook
    ) -> Opened:
        """Swap in what a committed keyring makes possible, note its events, renew the backup places.

        Raises:
            StoreError: the events could not be noted; nothing was swapped in, and it can be done again.
        """
        sealed = SealedStore(self.store, ring, self.seal_count)
        secrets = SecretBook(sealed, self.clock, self._max_versions)
        opened = Opened(ring, revision, raw, sealed, secrets, policies.through(sealed))
        self._opened = await self._drained(opened)
        for act in self.on_new_state:
            act()
        self.guard.change()
        self.changed.set()
        await self.renew_places()
        return self.opened

    async def advance(self, ring: KeyRing, beside: Sequence[Change] = ()) -> Opened:
        """Put the ring's keyring in the place of the present one while requests are served. Hold `lock`.

        A write that was sealed under the epoch before is refused by the store and done again (`settled`). Keys that
        the ring lacks are still there: who drops them wipes them, once nothing works with them any more.

        Raises:
            RefusedError: the keyring was replaced since the ring's was composed; nothing was written.
            StoreError: the keyring was not replaced; or, with writes stopped until `settle` knows, perhaps it was.
        """
        return await self.change(lambda _present: ring, beside)

    async def change(
        self, step: Callable[[KeyRing], KeyRing], beside: Sequence[Change] = ()
    ) -> Opened:
        """Replace the keyring by what `step` makes of the ring in force; see `advance`.

        What `step` raises ends it before anything is written. It is called at most once, when no other change of
        the keyring is under way, and nothing happens between its call and the write.
        """
        return await unbroken(self._changed(step, beside))

    async def _changed(
        self, step: Callable[[KeyRing], KeyRing], beside: Sequence[Change]
    ) -> Opened:
        async with self._swap_lock, self.opened.policies.unchanging():
            ring = step(self.opened.ring)
            if ring.document.revision <= self.opened.document.revision:
                raise RefusedError(
                    "the keyring was replaced meanwhile", "nothing was changed: run it again"
                )
            self.life.require_wrapping(self.opened.document, ring.document)
            await self._replace_present(ring, beside)
            changed = self.opened
        await self.drain()
        await self.renew_places()
        # Where the vault was closed behind it the change is made all the same, in the store that was open.
        return self._opened or changed

    async def _replace_present(self, ring: KeyRing, beside: Sequence[Change]) -> None:
        """Replace the keyring in force, in the store and then in memory, also when the store's answer was lost.

        While that is not known of an earlier one, no other is written.
        """
        if self._uncertain is not None:
            raise StoreUnavailableError(f"no keyring is written: {Stop.UNSURE}")
        try:
            revision, raw = await self.replace_keyring(ring, self.opened.keyring_revision, beside)
        except StoreError:
            committed = await self._committed(ring)
            if committed is None:
                raise
            revision, raw = committed.revision, committed.blob
        self._swap(ring, revision, raw)

    async def mend(self, ring: KeyRing) -> None:
        """Go on with a ring of the same keyring whose keys were fetched anew. Takes it over; writes are served again.

        Raises:
            RefusedError: the keyring has been replaced meanwhile, or one of these keys is wrong, too.
        """
        async with self._swap_lock, self.opened.policies.unchanging():
            opened = self.opened
            if ring.document != opened.document or ring.mismatches():
                raise RefusedError("these are not the keys of the keyring in force")
            self._swap(ring, opened.keyring_revision, opened.keyring_raw)
            self._stops.lift(Stop.WRONG_KEY)
            _log.warning("the keys in memory were fetched anew; writes are served again")

    async def settled(self) -> None:
        """Return once no keyring is taking another's place: what was refused for its epoch can be done again."""
        async with self._swap_lock:
            pass

    async def settle(self) -> None:
        """Find out which keyring the store holds after an answer was lost, and go on with that one.

        Raises:
            StoreError: the store still does not answer; writes stay stopped.
        """
        async with self._swap_lock:
            if self._uncertain is None or not self.is_open:
                return
            committed = await self._committed(self._uncertain)
            if committed is not None:
                self._swap(self._uncertain, committed.revision, committed.blob)
            self._uncertain = None
            self._stops.lift(Stop.UNSURE)
        await self.renew_places()

    async def _committed(self, ring: KeyRing) -> Record | None:
        """Tell whether a keyring was written though the answer was lost; stop writes where that cannot be known."""
        try:
            stored = await self.store.get(KEYRING_ID)
        except StoreError:
            self._uncertain = ring
            self.stop_writes(Stop.UNSURE)
            raise
        if stored is not None and stored.blob == keyring.encode(ring.document, ring.root):
            return stored
        if stored is None or stored.blob != self.opened.keyring_raw:
            self.stop_writes(Stop.OVERTAKEN)
        return None

    def _swap(self, ring: KeyRing, revision: Revision, raw: bytes) -> None:
        opened = self.opened
        if ring.document.epoch != opened.document.epoch:
            self.guard.change()
        self.changed.set()
        if ring.document.epoch == opened.document.epoch and ring.has_keys_of(opened.ring):
            self._opened = replace(opened, ring=ring, keyring_revision=revision, keyring_raw=raw)
            return
        sealed = SealedStore(self.store, ring, self.seal_count)
        secrets = SecretBook(sealed, self.clock, self._max_versions)
        policies = opened.policies.through(sealed)
        self._opened = Opened(ring, revision, raw, sealed, secrets, policies)

    async def drain(self) -> None:
        """Move events from the keyring to the history. What fails stays in the keyring for the next time."""
        async with self._swap_lock:
            opened = self._opened
            drained = None if opened is None else history.drain(opened.document, self.moment())
            if opened is None or drained is None:
                return
            try:
                entries = await appended(opened.sealed, drained)
                await self._replace_present(opened.ring.replaced(drained.keyring), entries)
            except StoreError as error:
                _log.error("events wait in the keyring: %s", error.message)

    async def _drained(self, opened: Opened) -> Opened:
        """Return what is to be opened, its events in the history. Entries stand before the keyring that lacks them:
        where an engine writes one by one, they are made again to the same bytes.
        """
        drained = history.drain(opened.document, self.moment())
        if drained is None:
            return opened
        ring = opened.ring.replaced(drained.keyring)
        entries = await appended(opened.sealed, drained)
        revision, raw = await self.replace_keyring(ring, opened.keyring_revision, beside=entries)
        return replace(opened, ring=ring, keyring_revision=revision, keyring_raw=raw)

    async def renew_places(self) -> None:
        """Give every backup place the present key backup and anchor; nothing while there is no root key."""
        async with self._places.lock:
            opened, turn = self._opened, self.guard.turn
            if opened is None:
                return
            # A backup made with a root key that is not the right one must not replace a good one.
            if not confirms_root(opened.document, opened.ring.root):
                self.stop_writes(Stop.WRONG_KEY)
                return
            anchor_raw = opened.anchor_raw()
            backup_raw = backup.encode(
                opened.keyring_raw, anchor_raw, self.moment(), opened.document, opened.ring.root
            )
            await self._places.renew(opened.document.store_id, backup_raw, anchor_raw)
            self.guard.note_places(turn)

    async def renew_anchor(self) -> None:
        """Take note that rights have changed, and give every place that holds the present backup the present anchor."""
        self.guard.change()
        self.changed.set()
        async with self._places.lock:
            opened, turn = self.opened, self.guard.turn
            if not confirms_root(opened.document, opened.ring.root):
                self.stop_writes(Stop.WRONG_KEY)
                return
            await self._places.renew_anchor(opened.document.store_id, opened.anchor_raw())
            self.guard.note_places(turn)

    async def close(self) -> None:
        """Wipe every key. The store is closed or replaced by the caller, and nothing of these keys goes to it any more.

        A change of the keyring that is under way is waited for, and what is being given to the backup places: none of
        it may reach another store or lineage. Hold `lock` while requests are served.
        """
        async with self._swap_lock:
            opened, self._opened, self._uncertain = self._opened, None, None
            self._stops.clear()
            self.seal_count.take()
            if opened is not None:
                opened.ring.wipe()
            for act in self.on_new_state:
                act()
        async with self._places.lock:
            pass
