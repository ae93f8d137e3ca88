"""How a rotation is told: what the keyring says of it, with how far the work has come."""

from __future__ import annotations

from datetime import timedelta

from spike.lifecycle.keyring import (
    Keyring,
    Phase,
    Rotation,
    RotationKind,
)
from spike.lifecycle.preflight import moment_of
from spike.lifecycle.progress import Progress
from spike.lifecycle.refresh import set_in_force
from spike.lifecycle.rotation_plan import BEFORE_FLIP
from spike.nexus.rotation_view import RotationView


def view_of(
    rotation: Rotation,
    document: Keyring,
    *,
    ended: str = "",
    fault: str = "",
    progress: Progress | None = None,
    verified: int = 0,
    to_verify: int = 0,
) -> RotationView:
    """Return how a rotation is told; `ended`: finalized, dropped or failed, once it is over."""
    return RotationView(
        id=rotation.id,
        kind=rotation.kind,
        scope=rotation.scope,
        phase=ended or rotation.phase.value,
        actor=rotation.actor,
        reason=rotation.reason,
        started_at=rotation.started_at,
        attempt=rotation.attempt,
        emergency=rotation.emergency,
        root=rotation.root,
        record=rotation.record,
        cipher=rotation.cipher,
        flipped_at=rotation.flipped_at,
        verified_at=rotation.verified_at,
        window_ends_at=window_end(rotation),
        paused=rotation.paused,
        max_rate=rotation.max_rate,
        fault=fault or rotation.paused_why,
        ways=ways(document),
        impact=impact(rotation, progress),
        progress=progress,
        verified=verified,
        to_verify=to_verify,
        replaces="" if rotation.undone is None else rotation.undone.id,
    )


def window_end(rotation: Rotation) -> str:
    """Return until when a rotation can be rolled back, or "" while that is not known."""
    if rotation.phase is not Phase.VERIFIED:
        return ""
    end = moment_of(rotation.verified_at) + timedelta(seconds=rotation.window_s)
    return end.strftime("%Y-%m-%dT%H:%M:%SZ")


def ways(document: Keyring) -> tuple[str, ...]:
    """Return by which ways the root key in force would come back, from what the keyring says."""
    active = document.active_root.number
    told = [
        f"slot {slot.name} ({slot.kind})"
        for slot in document.slots
        if any(sealed.generation == active for sealed in slot.roots)
    ]
    in_force = set_in_force(document)
    if in_force is not None:
        told.insert(0, f"any {in_force.threshold} of {len(in_force.members)} Keepers")
    return tuple(told)


def impact(rotation: Rotation, progress: Progress | None) -> tuple[str, ...]:
    """Return what a rollback of this rotation would mean."""
    if rotation.phase in BEFORE_FLIP or rotation.kind is RotationKind.ROLLBACK:
        return ()
    told = [f"since {rotation.flipped_at} everything is written under the new keys"]
    if progress is not None:
        told.append(f"{progress.re_encrypted} records were sealed again under the new record key")
    told.append(
        "a rollback seals all of it again under the old keys and destroys the new root and record key; "
        "what was encrypted for others meanwhile stays readable"
    )
    return tuple(told)
