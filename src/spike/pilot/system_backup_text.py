"""What a system backup is, as Pilot shows it: for people and as data. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from spike.pilot.progress import size

if TYPE_CHECKING:
    from spike.lifecycle.keyring import Keyring
    from spike.lifecycle.system_backup_reader import Summary


def data_of(summary: Summary) -> dict[str, object]:
    """Return what a system backup says of itself."""
    told, held = summary.manifest.hint, summary.backup.keyring.hint
    return {
        "writtenAt": told.written_at,
        "storeId": told.store_id,
        "lineage": told.lineage,
        "epoch": told.epoch,
        "revision": told.revision,
        "rootGeneration": told.generation,
        "generations": [
            {"purpose": "root", "generation": root.number, "state": root.state.value}
            for root in held.roots
        ]
        + [
            {"purpose": key.purpose.value, "generation": key.number, "state": key.state.value}
            for key in held.keys
            if not key.slot
        ],
        "rotation": _rotation(held),
        "operation": None if held.operation is None else held.operation.kind,
        "slots": [
            {
                "name": slot.name,
                "kind": slot.kind.value,
                "threshold": None if slot.shards is None else slot.shards.threshold,
            }
            for slot in held.slots
        ],
        "keepers": [
            {"index": each.index, "url": each.url}
            for shares in held.share_sets
            if not shares.staged
            for each in shares.members
        ],
        "records": told.records,
        "census": [
            {"kind": line.kind, "generation": line.generation, "records": line.records}
            for line in told.census
        ],
        "sizeBytes": summary.size_bytes,
        "digest": told.digest,
    }


def lines_of(summary: Summary) -> Iterator[str]:
    """Return the same for people."""
    told, held = summary.manifest.hint, summary.backup.keyring.hint
    yield f"  Written: {told.written_at}, {size(summary.size_bytes)}"
    yield f"  Store: {told.store_id}"
    yield f"  Lineage: {told.lineage}, epoch {told.epoch}, revision {told.revision}"
    yield f"  Root key: generation {told.generation}"
    record_keys = [k for k in held.keys if k.purpose.value == "record" and k.is_live]
    yield "  Record keys: " + ", ".join(f"{k.number} ({k.state.value})" for k in record_keys)
    rotation = held.rotation
    if rotation is not None:
        yield (
            f"  In the middle of a {rotation.kind.value}: phase {rotation.phase.value}, begun {rotation.started_at}; "
            "a restore goes on from there"
        )
    yield f"  Records: {told.records}"
    for line in told.census:
        yield f"    {line.kind}, generation {line.generation}: {line.records}"
    yield "  Opens with any of:"
    for slot in held.slots:
        shards = slot.shards
        how = (
            "the password"
            if shards is None
            else f"{shards.threshold} of {len(shards.digests)} recovery shards"
        )
        yield f"    slot {slot.name} ({slot.kind.value}): {how}"


def _rotation(held: Keyring) -> Mapping[str, object] | None:
    rotation = held.rotation
    if rotation is None:
        return None
    return {
        "id": rotation.id,
        "kind": rotation.kind.value,
        "scope": rotation.scope.value,
        "phase": rotation.phase.value,
        "startedAt": rotation.started_at,
    }
