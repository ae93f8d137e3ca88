"""The throw-away instance of a drill: keys from a key backup alone, records from one moment of the store.

It has no Keepers, no backup place and nobody to serve, writes nothing but a copy in memory, and is wiped when the
drill ends. What it reads, it reads as a Nexus that was just restored would: access list, policies, secrets.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Final

from spike.error import FormatError, NotFoundError, OpenError
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.slot import header_of, is_authentic
from spike.nexus.pace import Pace
from spike.nexus.policy_book import PolicyBook
from spike.nexus.record_check import SEALED_KINDS
from spike.nexus.sealed import SealedStore
from spike.nexus.secret_book import Clock, SecretBook
from spike.storage.ability import Snapshot
from spike.storage.memory import MemoryStore
from spike.storage.protocol import (
    ACCESS_LIST,
    MUST_NOT_EXIST,
    POLICY,
    SECRET,
    SECRET_META,
    Put,
    Record,
)

PART_BYTES: Final = 1 << 20
SAMPLE: Final = 500
"""About how many secrets are copied and read in a drill, and how many of other records are opened unless it is full."""
_NAMED: Final = 20
_SHARE: Final = 1 << 32


@dataclass(slots=True)
class Tally:
    """What a drill has read so far: `opened` of `scanned` records, and `secrets` as a client would."""

    expected: int = 0
    scanned: int = 0
    opened: int = 0
    secrets: int = 0
    size_bytes: int = 0
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    def fail(self, why: str) -> None:
        """Note something that would not have come back."""
        self.wrong += 1
        if len(self.problems) < _NAMED:
            self.problems.append(why)


class DrillInstance:
    """Opens what a snapshot gives with a ring of its own. Owns the ring."""

    def __init__(self, ring: KeyRing, clock: Clock, tally: Tally, *, full: bool) -> None:
        self._ring = ring
        self._tally = tally
        self._full = full
        self._copy = MemoryStore()
        self._sealed = SealedStore(self._copy, ring)
        self._secrets = SecretBook(self._sealed, clock, 1)
        self._paths: list[str] = []

    def check_slots(self) -> int:
        """Look at each slot's sealed root key: made by an owner of the slot's key? Return how many there are."""
        document = self._ring.document
        for slot in document.slots:
            auth = self._ring.auth(slot.id)
            for sealed in slot.roots:
                if not is_authentic(auth, header_of(document, slot, sealed), sealed):
                    self._tally.fail(f"the sealed root key of slot {slot.name} is not authentic")
        return len(document.slots)

    async def take(self, snapshot: Snapshot, salt: int, secrets: int) -> None:
        """Read a snapshot to its end; copy what is to be served, open what is to be looked at.

        `salt` makes another sample each time; `secrets` is about how many there are.

        Raises:
            StoreError: it cannot be read on.
        """
        portion = _SHARE if secrets <= SAMPLE else _SHARE * SAMPLE // secrets
        pace = Pace()
        while records := await snapshot.read(PART_BYTES):
            for record in records:
                if record.id.kind in SEALED_KINDS:
                    chosen = zlib.crc32(record.id.key.encode(), salt) < portion
                    await self._take(record, chosen)
                await pace.give_way()

    async def _take(self, record: Record, chosen: bool) -> None:
        self._tally.scanned += 1
        self._tally.size_bytes += len(record.blob)
        kind = record.id.kind
        served = kind in (ACCESS_LIST, POLICY) or (chosen and kind in (SECRET, SECRET_META))
        if self._full or chosen or served:
            try:
                self._sealed.open(record)
                self._tally.opened += 1
            except (OpenError, FormatError) as error:
                self._tally.fail(f"{kind} {record.id.key}: {error.message}")
                return
        if served:
            put = Put(record.id, record.blob, record.generation, MUST_NOT_EXIST)
            await self._copy.apply((put,), fence=None)
            if kind == SECRET_META:
                self._paths.append(record.id.key)

    async def load_rights(self) -> int:
        """Load access list and policies. Return how many policies count."""
        try:
            return len((await PolicyBook.load(self._sealed)).all())
        except (OpenError, FormatError) as error:
            self._tally.fail(f"the access list: {error.message}")
            return 0

    async def read_secrets(self) -> None:
        """Read the current version of each secret that was copied, as a client's request would."""
        pace = Pace()
        for path in self._paths:
            try:
                await self._secrets.get(path, 0)
                self._tally.secrets += 1
            except NotFoundError:
                continue  # its current version is deleted: nobody could read it before, either
            except (OpenError, FormatError) as error:
                self._tally.fail(f"secret {path}: {error.message}")
            await pace.give_way()

    async def wipe(self) -> None:
        """Forget everything."""
        self._ring.wipe()
        await self._copy.close()
