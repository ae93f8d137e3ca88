"""What the status tells of proofs, recovery shards and the operation in progress, as the keyring has it."""

from __future__ import annotations

from spike.lifecycle import proof
from spike.lifecycle.keyring import Keyring, Proof, ProofMark
from spike.lifecycle.proof import Due
from spike.wire.message import GoTime
from spike.wire.own import DrillDue, StatusOperation, StatusShard, StatusShards


def due_dates(document: Keyring, now: str) -> tuple[DrillDue, DrillDue]:
    """Return when the next drill by itself is due, and the next with a password."""
    marks = document.proof or Proof()
    return (
        _due_of(proof.drill_due(document, now), marks.drill),
        _due_of(proof.person_due(document, now), marks.person),
    )


def _due_of(due: Due, mark: ProofMark | None) -> DrillDue:
    """Return when a drill is due, as it is told on the wire."""
    return DrillDue(
        at=GoTime(due.at),
        overdue=due.overdue,
        last_at=None if mark is None else GoTime(mark.at),
        last_outcome="" if mark is None else mark.outcome,
    )


def shards_of(document: Keyring) -> StatusShards | None:
    """Return the roster of the recovery shards in force, or None where there are none."""
    slot = document.shard_slot
    if slot is None or slot.shards is None:
        return None
    shards = slot.shards
    checked = shards.checked or ("",) * len(shards.digests)
    return StatusShards(
        set_id=slot.id,
        made_at=GoTime(slot.created_at),
        threshold=shards.threshold,
        shards=[
            StatusShard(index, GoTime(at) if at else None) for index, at in enumerate(checked, 1)
        ],
    )


def operation_of(document: Keyring) -> StatusOperation | None:
    """Return the lifecycle operation in progress, or None; a rotation in its rollback window is none."""
    operation, rotation = document.operation, document.rotation
    if operation is not None:
        return StatusOperation(
            operation.kind,
            operation.id,
            operation.phase,
            GoTime(operation.started_at),
            operation.actor,
        )
    if rotation is not None and rotation.is_blocking:
        phase = f"{rotation.phase.value}{', paused' if rotation.paused else ''}"
        return StatusOperation(
            rotation.kind.value, rotation.id, phase, GoTime(rotation.started_at), rotation.actor
        )
    return None
