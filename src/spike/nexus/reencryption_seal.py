"""One record from the old key to the new one: opened, sealed, opened again and compared, before anything is written.

Done in this process for a small store, and for a large one in a child (reencryption_child), which uses another
processor and leaves the event loop to requests. Both call `resealed`, and both look after each batch whether the keys
they used are still what their check values say: what was sealed under a key that memory had damaged would open today
and never again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from spike.crypto.record import open_untrusted, seal
from spike.error import FormatError, NotReadyError, OpenError, RefusedError
from spike.lifecycle.keyring import KeyPurpose, Keyring
from spike.lifecycle.progress import Reason
from spike.lifecycle.ring import KeyName, KeyRing, check_of
from spike.memory.key_memory import KeyMemory
from spike.nexus.pace import Pace
from spike.nexus.sealed import record_context
from spike.storage.protocol import Kind, Record


@dataclass(frozen=True, slots=True)
class Passage:
    """From which key to which: generations, and the check values that confirm the keys. Public."""

    store_id: str
    before: int
    after: int
    check_before: str
    check_after: str


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The old key and the new one, which stay their owner's."""

    old: KeyMemory
    new: KeyMemory


class DamagedKeyError(RefusedError):
    """A key is not what it was: nothing that was sealed with it is written."""


class ResealerLostError(NotReadyError):
    """It has ended, or works with keys that are not in force any more: it has to be made anew."""


class Resealer(Protocol):
    """Takes records from one key to another."""

    @property
    def passage(self) -> Passage:
        """From which key to which."""
        ...

    async def reseal(self, kind: Kind, records: Sequence[Record]) -> Sequence[bytes | Reason]:
        """Return for each record what it is under the new key, or why it is not.

        Raises:
            DamagedKeyError: a key is not what it was; all of this batch is void.
            ResealerLostError: it has to be made anew.
        """
        ...

    async def close(self) -> None:
        """Let go of the keys. Idempotent."""
        ...


def passage_of(document: Keyring, before: int) -> Passage | None:
    """Return the way from generation `before` to the active one; None when there is none."""
    active = document.active_key(KeyPurpose.RECORD)
    old = next(
        (
            key
            for key in document.keys
            if key.purpose is KeyPurpose.RECORD and key.number == before and key.is_live
        ),
        None,
    )
    if old is None or old.number == active.number:
        return None
    return Passage(document.store_id, old.number, active.number, old.check, active.check)


def resealed(
    keys: KeyPair, after: int, store_id: bytes, name: tuple[str, str, str], blob: bytes
) -> bytes | Reason:
    """Return a record under the new key, or why not. `name`: kind, key and version; `after`: the new generation."""
    context = record_context(store_id, *name)
    try:
        plaintext = open_untrusted(keys.old, context, blob)
    except (OpenError, FormatError):
        return Reason.UNOPENABLE
    sealed = seal(keys.new, after, context, plaintext)
    try:
        same = open_untrusted(keys.new, context, sealed) == plaintext
    except (OpenError, FormatError):
        same = False
    return sealed if same else Reason.UNCONFIRMED


def damaged(passage: Passage, keys: KeyPair) -> str:
    """Return which of the keys is not what its check value says; empty when both are. Two derivations."""
    for number, key, check in (
        (passage.before, keys.old, passage.check_before),
        (passage.after, keys.new, passage.check_after),
    ):
        if check_of(passage.store_id, KeyName(KeyPurpose.RECORD, "", number), key) != check:
            return f"record {number}"
    return ""


class LocalResealer:
    """Works on the event loop, and gives way to requests after each slice.

    `ring` gives the ring in force: a key is taken from it for one record, since the ring may be replaced between two.
    """

    def __init__(self, passage: Passage, ring: Callable[[], KeyRing]) -> None:
        self._passage = passage
        self._ring = ring
        self._store_id = bytes.fromhex(passage.store_id)
        self._pace = Pace()

    @property
    def passage(self) -> Passage:
        """See Resealer."""
        return self._passage

    async def reseal(self, kind: Kind, records: Sequence[Record]) -> Sequence[bytes | Reason]:
        """See Resealer."""
        done: list[bytes | Reason] = []
        for record in records:
            await self._pace.give_way()
            name = (kind, record.id.key, record.id.version)
            found = resealed(self._keys(), self._passage.after, self._store_id, name, record.blob)
            done.append(found)
        if wrong := damaged(self._passage, self._keys()):
            raise DamagedKeyError(f"a key in memory is not what it was: {wrong}")
        return done

    def _keys(self) -> KeyPair:
        ring = self._ring()
        active = ring.active_record
        if active.generation != self._passage.after:
            raise ResealerLostError("another record key has become active")
        try:
            return KeyPair(ring.record(self._passage.before), active.key)
        except OpenError as error:
            raise ResealerLostError(error.message) from error

    async def close(self) -> None:
        """See Resealer. The keys are the ring's."""
