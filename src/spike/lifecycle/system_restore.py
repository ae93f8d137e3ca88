"""Bringing a store up from a system backup: the keyring that follows, of a new lineage. Pure.

The file says what a store was; where that store may still live, nobody can tell from here. So what is brought up is
another life of it: a lineage of its own, an epoch above all that the first can have reached, no share set, no
lifecycle operation of the machine that is gone. Anchors, Keepers and backups of either lineage do not count for the
other, and whoever meets the foreign one stops and names it.

A rotation is no other machine's matter: its field stays, and goes on here from where the moment found it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from spike.lifecycle import staleness
from spike.lifecycle.keyring import Event, Keyring, Slot
from spike.lifecycle.manifest import Manifest
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.slot import seal_root
from spike.lifecycle.staleness import Objection

LINEAGE_LEAP: Final = 1 << 20
"""How many epochs a new lineage begins above the old one: more than a store goes through between two backups, and so
few that a store can be brought up again and again."""

ROTATION_REASON: Final = "the store was brought up from a system backup"
"""Why a rotation follows: until it has ended, whoever has the file and a password opens what is written now."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Who brings a store up, when, by which slot, as which lineage (32 hexadecimal digits, never used before)."""

    at: str
    actor: str
    slot: Slot
    lineage: str


def require_moment(manifest: Manifest | None) -> Manifest:
    """Return a manifest that a root key has confirmed.

    Raises:
        RefusalError: PLANTED, it has not.
    """
    if manifest is None:
        raise RefusalError(
            Reason.PLANTED,
            "the manifest of the system backup is not authentic: somebody changed it, or put two files together",
            "restore from another copy",
        )
    return manifest


def brought_up(
    ring: KeyRing, manifest: Manifest, arrival: Arrival, accepted: Sequence[Objection]
) -> Keyring:
    """Return the keyring that the store begins its new life with. `ring` holds the keys of the file.

    Raises:
        RefusalError: DAMAGED, the store's fence is beyond all that can be followed.
    """
    confirmed = ring.document
    highest = staleness.above(confirmed, accepted)
    detail = {
        "by": arrival.slot.kind.value,
        "slot": arrival.slot.id,
        "lineage": arrival.lineage,
        "lineage_before": confirmed.lineage,
        "written_at": manifest.written_at,
        "digest": manifest.digest,
    }
    if confirmed.operation is not None:
        detail["dropped"] = f"{confirmed.operation.kind} {confirmed.operation.id}"
    if accepted:
        detail["accepted_older_store"] = "; ".join(each.message for each in accepted)[:4000]
    event = Event(
        sequence=confirmed.next_event,
        at=arrival.at,
        kind="system restore",
        actor=arrival.actor,
        detail=detail,
    )
    return msgspec.structs.replace(
        confirmed,
        lineage=arrival.lineage,
        revision=highest.revision + 1,
        epoch=highest.epoch + LINEAGE_LEAP,
        replaced_at=arrival.at,
        slots=tuple(_sealed_anew(ring, slot, arrival) for slot in confirmed.slots),
        share_sets=(),
        operation=None,
        next_event=confirmed.next_event + 1,
        outbox=(*confirmed.outbox, event),
        rotation_due="the store was brought up from a system backup, in a new lineage",
    )


def _sealed_anew(ring: KeyRing, slot: Slot, arrival: Arrival) -> Slot:
    """Return a slot with the active root key alone, sealed for the new lineage; copies of the old one do not open."""
    active = ring.document.active_root
    sealed = seal_root(
        ring.root,
        store_id=ring.document.store_id,
        lineage=arrival.lineage,
        slot=slot,
        auth=ring.auth(slot.id),
        generation=active.number,
        check=active.check,
        sealed_at=arrival.at,
    )
    anew = msgspec.structs.replace(slot, roots=(sealed,))
    if slot.id != arrival.slot.id:
        return anew
    return msgspec.structs.replace(anew, verified_at=arrival.at, verified_by=arrival.actor)
