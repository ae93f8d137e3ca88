"""What a rotation is asked for as, whether it can begin, and which generations it brings in. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spike.lifecycle.keyring import (
    Emergency,
    KeyPurpose,
    Keyring,
    Phase,
    Rotation,
    RotationKind,
    Scope,
    Slot,
    Succession,
)
from spike.lifecycle.operation import require_idle
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyName
from spike.lifecycle.rotation_step import require_rotation

BEFORE_FLIP: Final = frozenset({Phase.PREPARED, Phase.DISTRIBUTED, Phase.BACKED_UP})


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. `id` is 32 random hexadecimal digits; `window_s` how long it can be rolled back."""

    id: str
    scope: Scope
    actor: str
    reason: str
    window_s: int
    max_rate: int = 0
    kind: RotationKind = RotationKind.ROTATION
    emergency: Emergency | None = None
    left_out: tuple[int, ...] = ()
    without_keepers: bool = False
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Numbers:
    """Which generation of each key comes after which; `audit` only where it is replaced."""

    root: Succession
    record: Succession
    cipher: Succession
    audit: Succession

    @property
    def new_names(self) -> tuple[KeyName, ...]:
        """The data keys that have to be made."""
        pairs = (
            (KeyPurpose.RECORD, self.record),
            (KeyPurpose.CIPHER, self.cipher),
            (KeyPurpose.AUDIT, self.audit),
        )
        return tuple(
            KeyName(purpose, "", pair.after) for purpose, pair in pairs if pair.after > pair.before
        )


def plan_of(rotation: Rotation) -> Plan:
    """Return what a rotation in the keyring was asked for as."""
    return Plan(
        id=rotation.id,
        scope=rotation.scope,
        actor=rotation.actor,
        reason=rotation.reason,
        window_s=rotation.window_s,
        max_rate=rotation.max_rate,
        kind=rotation.kind,
        emergency=rotation.emergency,
        left_out=rotation.left_out,
        without_keepers=rotation.without_keepers,
        forced=rotation.forced,
    )


def require_startable(document: Keyring, plan: Plan) -> None:
    """Return if a plan can begin on this keyring.

    An emergency begins also while another rotation re-encrypts: what that one replaced is replaced with it. What has
    not come into force yet is dropped first, by the caller.

    Raises:
        RefusalError: BUSY, or ROTATION: it contradicts itself or the state of the keys.
    """
    running = document.rotation
    if plan.kind is RotationKind.ROLLBACK:
        _require_rollback(document)
        return
    if plan.emergency is None:
        require_idle(document)
        if running is not None:
            raise RefusalError(
                Reason.ROTATION,
                f"rotation {running.id} can still be rolled back, and the next one would end that",
                "finalize it (spike key finalize) or roll it back (spike key rollback), then rotate again",
            )
        return
    if plan.scope is not Scope.FULL:
        raise RefusalError(
            Reason.ROTATION,
            "in an emergency every key that the root key wrapped counts as known",
            "leave --root-only and --data-only out",
        )
    if document.operation is not None or (running is not None and running.phase in BEFORE_FLIP):
        require_idle(document)


def _require_rollback(document: Keyring) -> None:
    running = document.rotation
    if running is None or running.phase in BEFORE_FLIP:
        raise RefusalError(
            Reason.ROTATION, "there is no rotation to roll back", "see spike key history"
        )
    if running.kind is RotationKind.ROLLBACK:
        raise RefusalError(Reason.ROTATION, "a rollback is not rolled back", "rotate again")
    if running.phase is Phase.FINALIZING:
        raise RefusalError(
            Reason.ROTATION, "the old keys are being destroyed", "rotate again instead"
        )
    if running.emergency is not None:
        raise RefusalError(
            Reason.ROTATION, "nothing goes back to a compromised key", "rotate again instead"
        )


def numbers_of(document: Keyring, plan: Plan) -> Numbers:
    """Return which generations the plan brings in. A number is never used twice, also after a drop."""
    active = {
        purpose: document.active_key(purpose).number
        for purpose in (KeyPurpose.RECORD, KeyPurpose.CIPHER, KeyPurpose.AUDIT)
    }
    root = document.active_root.number
    if plan.kind is RotationKind.ROLLBACK:
        running = require_rotation(document)
        undone = running.undone or running
        return Numbers(
            Succession(undone.root.after, undone.root.before),
            Succession(undone.record.after, undone.record.before),
            Succession(undone.cipher.after, undone.cipher.before),
            Succession(active[KeyPurpose.AUDIT], active[KeyPurpose.AUDIT]),
        )
    new_root = plan.scope is not Scope.DATA_ONLY
    new_data = plan.scope is not Scope.ROOT_ONLY
    return Numbers(
        Succession(root, 1 + max(r.number for r in document.roots) if new_root else root),
        _succession(document, KeyPurpose.RECORD, active[KeyPurpose.RECORD], new=new_data),
        _succession(document, KeyPurpose.CIPHER, active[KeyPurpose.CIPHER], new=new_data),
        _succession(
            document, KeyPurpose.AUDIT, active[KeyPurpose.AUDIT], new=plan.emergency is not None
        ),
    )


def _succession(document: Keyring, purpose: KeyPurpose, active: int, *, new: bool) -> Succession:
    unborn = () if document.rotation is None else document.rotation.next_keys
    known = (*document.keys, *unborn)
    highest = max(key.number for key in known if key.purpose is purpose)
    return Succession(active, highest + 1 if new else active)


def leaks(emergency: Emergency | None, slot: Slot) -> bool:
    """Return whether a slot is among what leaked: nothing is sealed to it any more."""
    if emergency is None:
        return False
    named = {f"slot:{slot.name}"} | ({"shards"} if slot.shards is not None else set())
    return bool(named & set(emergency.leaked))
