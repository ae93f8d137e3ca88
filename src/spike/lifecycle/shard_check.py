"""Checking a recovery shard in: its holder shows that it is there and right, and nothing of it is revealed. Pure.

Pilot computes the shard's digest, which the keyring has already; the shard stays where it is.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

import msgspec

from spike.lifecycle.keyring import Event, KeyPurpose, Keyring, RecoveryShards, Slot
from spike.lifecycle.refusal import Reason, RefusalError


def slot_of(document: Keyring, set_id: str) -> tuple[Slot, RecoveryShards]:
    """Return the slot in force of recovery shards, and what it says of them.

    `set_id` is the set that a shard names, or empty.

    Raises:
        RefusalError: UNKNOWN_SLOT, there are no shards; WRONG_SHARD, it is of an older set, or of another store.
    """
    slot = document.shard_slot
    if slot is None or slot.shards is None:
        raise RefusalError(
            Reason.UNKNOWN_SLOT,
            "there are no recovery shards of this store",
            "hand some out: spike operator recover",
        )
    if set_id in ("", slot.id):
        return slot, slot.shards
    # A slot's key is never forgotten, also when the slot is no more.
    known = any(
        key.purpose is KeyPurpose.BACKUP_AUTH and key.slot == set_id for key in document.keys
    )
    whose = "an older set of this store, and opens nothing any more" if known else "another store"
    raise RefusalError(
        Reason.WRONG_SHARD,
        f"this shard is of set {set_id}: of {whose}; in force is set {slot.id}, made {slot.created_at}",
        "destroy it if it is of an older set; else find out whose it is",
    )


@dataclass(frozen=True, slots=True)
class ShownShard:
    """A shard as its holder shows it: its index, the set its text names or an empty name, its digest."""

    index: int
    set_id: str
    digest: str


def checked_in(document: Keyring, shown: ShownShard, at: str, actor: str) -> Keyring:
    """Return the keyring in which the shard with this index has been shown.

    Raises:
        RefusalError: as `slot_of`; or WRONG_SHARD, it is not the shard that was handed out.
    """
    slot, shards = slot_of(document, shown.set_id)
    index = shown.index
    known = 1 <= index <= len(shards.digests)
    if not known or not hmac.compare_digest(shards.digests[index - 1], shown.digest):
        raise RefusalError(
            Reason.WRONG_SHARD,
            f"this is not shard {index} of set {slot.id}, made {slot.created_at}: "
            "it was changed, or is of an older set or another store",
            "compare it with what was written down; if it is lost, hand out new ones: spike operator recover",
        )
    before = shards.checked or ("",) * len(shards.digests)
    after = tuple(at if n == index else when for n, when in enumerate(before, 1))
    marked = msgspec.structs.replace(slot, shards=msgspec.structs.replace(shards, checked=after))
    event = Event(
        sequence=document.next_event,
        at=at,
        kind="shard-checked",
        actor=actor,
        detail={"set": slot.id, "index": str(index)},
    )
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        replaced_at=at,
        slots=tuple(marked if each is slot else each for each in document.slots),
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )
