"""Recovery shards: pieces of the recovery secret of one slot, which people keep. Pure but for the memory it holds.

A recovery secret is 32 random bytes in the place of what Argon2id gives for a password. Any `threshold` of its shards
give it back; it opens the slot, and the slot the root key. Shards are not the Keepers' shares: they stay good when
the root key is replaced, and end when a new set takes the slot's place. The slot's id is the set's name.

What the keyring says of shards before it is authenticated is a hint, and can at worst lead to a refusal:

* A shard whose digest is another is refused when it arrives, so that a bad first one cannot keep the right one out.
* Whoever writes the store can make right shards be refused, by other digests, another threshold or another public
  key. He gains what he would gain by deleting the keyring: the key backup has to be used. A digest brings nobody in.
* Digests decide about single shards, the slot's public key about the set: a set that does not give it is dropped
  whole, whatever the digests say, and one that gives it still has to give a root key that authenticates everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from spike.crypto import shamir
from spike.lifecycle.keyring import (
    Event,
    KeyPurpose,
    Keyring,
    RecoveryShards,
    Slot,
    SlotKind,
)
from spike.lifecycle.operation import require_idle
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyName
from spike.lifecycle.slot_key import Act, ended, sealed_to, wrapped_new
from spike.lifecycle.slot_retired import retired_with
from spike.memory.key_memory import KeyMemory

SHARD_BYTES: Final = 32
SLOT_NAME: Final = "shards"
_FIRST: Final = 1
_DIGEST_LABEL: Final = b"spike/shard/v1/digest"


class NewShardSlot(NamedTuple):
    """A slot of recovery shards as it was just made: `auth` is its `backup-auth` key."""

    id: str
    public: bytes
    auth: KeyMemory
    threshold: int
    digests: tuple[str, ...]


def digest_of(store_id: str, slot_id: str, index: int, value: KeyMemory) -> str:
    """Return what tells the shard with this index from every other one, and shows nothing of it."""
    digest = hashlib.sha256(_DIGEST_LABEL)
    digest.update(bytes.fromhex(store_id) + bytes.fromhex(slot_id) + index.to_bytes(1, "big"))
    with value.view() as view:
        digest.update(view)
    return digest.hexdigest()


def give_secret(shards: Mapping[int, KeyMemory], threshold: int, secret: KeyMemory) -> bool:
    """Return whether shards 1 to n give the secret back, each of them as one of `threshold` neighbours."""
    indexes = sorted(shards)
    ring = indexes + indexes[: threshold - 1]
    for start in range(len(indexes)):
        points = {index: shards[index] for index in ring[start : start + threshold]}
        with shamir.interpolate(points) as rebuilt:
            if not rebuilt.same_as(secret):
                return False
    return True


def with_shards(
    document: Keyring, root: KeyMemory, new: NewShardSlot, at: str, actor: str
) -> Keyring:
    """Return the keyring whose one slot of shards is the new one, an epoch higher.

    Raises:
        RefusalError: BUSY, another lifecycle operation is in progress.
    """
    require_idle(document)
    replaced = document.shard_slot
    kept = tuple(slot for slot in document.slots if slot is not replaced)
    slot = _sealed_slot(document, root, new, _free_name(kept), at)
    replacing = Act(at, actor, "new recovery shards took this slot's place")
    keys = [
        ended(key, replacing) if replaced is not None and key.slot == replaced.id else key
        for key in document.keys
    ]
    made = wrapped_new(
        document,
        root,
        key_name(new.id),
        new.auth,
        Act(at, actor, "recovery shards were handed out"),
    )
    detail = {"set": new.id, "shards": str(len(new.digests)), "threshold": str(new.threshold)}
    if replaced is not None:
        detail["replaced"] = replaced.id
    event = Event(sequence=document.next_event, at=at, kind="recover", actor=actor, detail=detail)
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        epoch=document.epoch + 1,
        replaced_at=at,
        keys=(*keys, made),
        slots=(*kept, slot),
        retired=retired_with(document, replaced, at),
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )


def key_name(slot_id: str) -> KeyName:
    """Return the name of the slot's `backup-auth` key."""
    return KeyName(KeyPurpose.BACKUP_AUTH, slot_id, _FIRST)


def _sealed_slot(document: Keyring, root: KeyMemory, new: NewShardSlot, name: str, at: str) -> Slot:
    unsealed = Slot(
        id=new.id,
        name=name,
        kind=SlotKind.SHARDS,
        argon2="",
        salt=b"",
        public=new.public,
        created_at=at,
        verified_at=at,
        renew=False,
        roots=(),
        shards=RecoveryShards(threshold=new.threshold, digests=new.digests),
    )
    return sealed_to(document, root, unsealed, new.auth, at)


def _free_name(slots: tuple[Slot, ...]) -> str:
    taken = {slot.name for slot in slots}
    names = (SLOT_NAME, *(f"{SLOT_NAME}-{number}" for number in range(2, len(slots) + 3)))
    return next(name for name in names if name not in taken)


class Collection:
    """The recovery shards of one slot that have arrived. Owns them; `wipe` ends it."""

    def __init__(self, store_id: str, slot: Slot, shards: RecoveryShards) -> None:
        self._store_id = store_id
        self._slot = slot
        self._shards = shards
        self._held: dict[int, KeyMemory] = {}

    def is_for(self, store_id: str, slot: Slot) -> bool:
        """Return whether these are the shards of this slot, as it is described now."""
        ours = (self._store_id, self._slot.id, self._slot.public, self._slot.shards)
        return ours == (store_id, slot.id, slot.public, slot.shards)

    @property
    def collected(self) -> int:
        """How many shards are there."""
        return len(self._held)

    @property
    def remaining(self) -> int:
        """How many more are needed."""
        return max(0, self._shards.threshold - len(self._held))

    def add(self, index: int, value: KeyMemory) -> None:
        """Take a copy of a shard. One that is there already changes nothing.

        Raises:
            RefusalError: WRONG_SHARD, it is none of this set.
        """
        digests = self._shards.digests
        if not 1 <= index <= len(digests) or (
            digest_of(self._store_id, self._slot.id, index, value) != digests[index - 1]
        ):
            raise RefusalError(
                Reason.WRONG_SHARD,
                f"this is not shard {index} of set {self._slot.id}, made {self._slot.created_at}: "
                "it was changed, or is of an older set or another store",
                "compare it with what was written down; keep it until the root key is back",
            )
        if index not in self._held:
            self._held[index] = value.duplicate()

    def secret(self) -> KeyMemory:
        """Return what the shards give together, for the caller to wipe. Nothing in it says whether it is right."""
        points = dict(sorted(self._held.items())[: self._shards.threshold])
        return shamir.interpolate(points)

    def wipe(self) -> None:
        """Forget every shard. Idempotent."""
        for value in self._held.values():
            value.wipe()
        self._held.clear()
