"""Rotation: the keyrings that a change of root and data keys passes through. Pure.

    ─prepared─► PREPARED ─distributed─► DISTRIBUTED ─backed_up─► BACKED_UP ─flipped─► RE_ENCRYPTING
                    │                        │                       │                      │ verified
                    └───── dropped, or prepared again ───────────────┘                      ▼
                                                   (none) ◄─finalized─ FINALIZING ◄─finalizing─ VERIFIED

1. `prepared` reserves the numbers, and holds every key wrapped under the root key that is being brought in.
2. `distributed` names the share set that the Keepers hold staged, `backed_up` the sealed copies for the slots.
3. `flipped` is the one moment: new generations active, old ones suspended (compromised in an emergency), one epoch
   higher. Before it the old keys serve, after it the new ones. There is no between.
4. While records are sealed again both open. `verified` says that none is left under an old key.
5. `finalizing` ends the way back; `finalized` destroys what was replaced, one epoch higher.

What lies before the flip is worth nothing without the memory of the process that made it: after a kill it is prepared
again, with new keys and new numbers (`prepared` with `again`), in one write. So no key that nobody watched since its
birth ever comes into force.

A rollback is a rotation towards the suspended generations, and passes through the same keyrings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from spike.crypto.purpose import check_value
from spike.lifecycle.keyring import (
    KeyPurpose,
    Keyring,
    Phase,
    RootGeneration,
    Rotation,
    RotationKind,
    ShareSet,
    Slot,
    WrappedKey,
)
from spike.lifecycle.ring import KeyName, KeyRing, check_of, wrap
from spike.lifecycle.rotation_flip import root_of, sealed_of
from spike.lifecycle.rotation_plan import BEFORE_FLIP, Numbers, Plan, leaks
from spike.lifecycle.rotation_step import (
    ended,
    enter_key,
    enter_root,
    later,
    require_phase,
    require_rotation,
    step,
    worth_naming,
    wrong_phase,
)
from spike.lifecycle.slot import seal_root
from spike.lifecycle.state import State, Transition, enter
from spike.memory.key_memory import KeyMemory


@dataclass(frozen=True, slots=True)
class Incoming:
    """The keys that are being brought in: the root key (the present one where it stays) and those made new."""

    root: KeyMemory
    added: Mapping[KeyName, KeyMemory] = field(default_factory=dict)


def prepared(ring: KeyRing, plan: Plan, numbers: Numbers, incoming: Incoming, at: str) -> Keyring:
    """Return the keyring that reserves the numbers and holds the next keys. `ring` is the one in force.

    Where the same rotation was begun before and never came into force, that try is dropped in the same write.
    """
    document = ring.document
    attempt = 1
    if document.rotation is not None and document.rotation.phase in BEFORE_FLIP:
        attempt = document.rotation.attempt + 1
        document = _without_attempt(document, at, "it was interrupted before it came into force")
    rotation = Rotation(
        id=plan.id,
        kind=plan.kind,
        scope=plan.scope,
        phase=Phase.PREPARED,
        started_at=at,
        actor=plan.actor,
        reason=plan.reason,
        root=numbers.root,
        record=numbers.record,
        cipher=numbers.cipher,
        window_s=plan.window_s,
        max_rate=plan.max_rate,
        attempt=attempt,
        emergency=plan.emergency,
        left_out=plan.left_out,
        without_keepers=plan.without_keepers,
        forced=plan.forced,
        undone=document.rotation,
    )
    rotation = msgspec.structs.replace(
        rotation, next_keys=_next_keys(ring, rotation, numbers, incoming, at)
    )
    roots = document.roots
    if numbers.root.after not in {root.number for root in roots}:
        roots = (*roots, _new_root(document, rotation, incoming.root, at))
    detail = _started_detail(rotation)
    return later(document, at, rotation, "rotation-started", detail, roots=roots)


def _new_root(document: Keyring, rotation: Rotation, root: KeyMemory, at: str) -> RootGeneration:
    number = rotation.root.after
    return RootGeneration(
        number=number,
        check=check_value(root, bytes.fromhex(document.store_id), number).hex(),
        history=enter((), step(rotation, State.PRE_ACTIVATION, at)),
    )


def _next_keys(
    ring: KeyRing, rotation: Rotation, numbers: Numbers, incoming: Incoming, at: str
) -> tuple[WrappedKey, ...]:
    """Return every key that lives on, as wrapped under the root key that is being brought in."""
    store_id, under = ring.document.store_id, rotation.root.after
    made = enter((), step(rotation, State.PRE_ACTIVATION, at))

    def wrapped(name: KeyName, key: KeyMemory, history: tuple[Transition, ...]) -> WrappedKey:
        return WrappedKey(
            purpose=name.purpose,
            slot=name.slot,
            number=name.number,
            root=under,
            check=check_of(store_id, name, key),
            wrapped=wrap(incoming.root, under, store_id, name, key),
            history=history,
        )

    kept = [
        wrapped(name, ring.key(name), key.history)
        for key in ring.document.keys
        if key.is_live and not _is_left_behind(ring.document, key, rotation)
        for name in [KeyName(key.purpose, key.slot, key.number)]
    ]
    new = [wrapped(name, incoming.added[name], made) for name in numbers.new_names]
    if _keeps_old_root(rotation):
        name = KeyName(KeyPurpose.ROOT, "", rotation.root.before)
        kept.append(wrapped(name, ring.root, ring.document.active_root.history))
    return (*kept, *new)


def _keeps_old_root(rotation: Rotation) -> bool:
    """Tell whether the old root key is kept under the new one: not if it leaked, and not for a way back from a way
    back."""
    return (
        rotation.root.before != rotation.root.after
        and rotation.kind is RotationKind.ROTATION
        and rotation.emergency is None
    )


def _is_left_behind(document: Keyring, key: WrappedKey, rotation: Rotation) -> bool:
    """Tell which keys do not live on: a root key that was kept for a way back, and those of a slot that leaked."""
    if key.purpose is KeyPurpose.ROOT:
        return rotation.root.before != rotation.root.after
    if key.purpose is not KeyPurpose.BACKUP_AUTH:
        return False
    slot = next((slot for slot in document.slots if slot.id == key.slot), None)
    return slot is not None and leaks(rotation.emergency, slot)


def distributed(document: Keyring, incoming_set: ShareSet, at: str) -> Keyring:
    """Return the keyring that names the share set which the Keepers hold staged."""
    rotation = require_phase(document, Phase.PREPARED)
    detail = {
        "set": incoming_set.id,
        "threshold": str(incoming_set.threshold),
        "members": ", ".join(str(member.index) for member in incoming_set.members),
    }
    following = msgspec.structs.replace(rotation, phase=Phase.DISTRIBUTED)
    sets = (*document.share_sets, incoming_set)
    return later(document, at, following, "rotation-distributed", detail, share_sets=sets)


def sealed_slots(
    document: Keyring, incoming: KeyMemory, auth: Mapping[str, KeyMemory], at: str
) -> tuple[Slot, ...]:
    """Return the slots with the incoming root key sealed to each, but to those that leaked. Needs no password.

    `auth` holds each slot's `backup-auth` key by slot id. Where the root key stays the slots stay as they are.
    """
    rotation = require_rotation(document)
    number = rotation.root.after
    check = root_of(document, number).check
    return tuple(
        slot
        if leaks(rotation.emergency, slot) or number == document.active_root.number
        else msgspec.structs.replace(
            slot,
            roots=(
                *(each for each in slot.roots if each.generation != number),
                seal_root(
                    incoming,
                    store_id=document.store_id,
                    lineage=document.lineage,
                    slot=slot,
                    auth=auth[slot.id],
                    generation=number,
                    check=check,
                    sealed_at=at,
                    pending=True,
                ),
            ),
        )
        for slot in document.slots
    )


def backed_up(document: Keyring, slots: tuple[Slot, ...], places: int, at: str) -> Keyring:
    """Return the keyring whose slots hold the incoming root key, too; `places` hold a pending backup of it."""
    rotation = require_rotation(document)
    if rotation.phase not in (Phase.PREPARED, Phase.DISTRIBUTED):
        raise wrong_phase(rotation)
    following = msgspec.structs.replace(rotation, phase=Phase.BACKED_UP)
    detail = {
        "slots": ", ".join(slot.name for slot in slots if sealed_of(slot, rotation) is not None),
        "places": str(places),
    }
    return later(document, at, following, "rotation-backed-up", detail, slots=slots)


def verified(document: Keyring, at: str, detail: Mapping[str, str]) -> Keyring:
    """Return the keyring that says: no record is left under an old key, and each opens under the new one."""
    rotation = require_phase(document, Phase.RE_ENCRYPTING)
    following = msgspec.structs.replace(
        rotation, phase=Phase.VERIFIED, verified_at=at, paused=False, paused_why=""
    )
    return later(document, at, following, "rotation-verified", detail)


def finalizing(document: Keyring, at: str, actor: str) -> Keyring:
    """Return the keyring from which on there is no way back: the old keys are about to be destroyed."""
    rotation = require_phase(document, Phase.VERIFIED)
    following = msgspec.structs.replace(rotation, phase=Phase.FINALIZING)
    return later(document, at, following, "rotation-finalizing", {}, actor=actor)


def reopened(document: Keyring, at: str, why: str) -> Keyring:
    """Return the keyring that goes back to re-encrypting: a record under an old key was found when none could be."""
    rotation = require_phase(document, Phase.FINALIZING)
    following = msgspec.structs.replace(rotation, phase=Phase.RE_ENCRYPTING, verified_at="")
    return later(document, at, following, "rotation-reopened", {"why": why})


def finalized(document: Keyring, at: str, detail: Mapping[str, str]) -> Keyring:
    """Return the keyring in which what was replaced is destroyed, one epoch higher."""
    rotation = require_phase(document, Phase.FINALIZING)
    keys = tuple(
        _at_end(key, rotation, at) for key in document.keys if key.purpose is not KeyPurpose.ROOT
    )
    roots = tuple(_root_at_end(root, rotation, at) for root in document.roots)
    lived = {id(each) for each in (*document.roots, *document.keys)}
    gone = [f"root {r.number}" for r in roots if _is_new_end(r, lived)]
    gone += [f"{k.purpose} {k.number}" for k in keys if _is_new_end(k, lived)]
    told = {"destroyed": ", ".join(gone), **detail}
    return later(
        document,
        at,
        None,
        "rotation-finalized",
        {"id": rotation.id, **told},
        epoch=document.epoch + 1,
        keys=keys,
        roots=roots,
    )


def _at_end(key: WrappedKey, rotation: Rotation, at: str) -> WrappedKey:
    """Return a key after the end: record keys that were replaced are destroyed, cipher keys go on opening."""
    if key.purpose is KeyPurpose.RECORD and key.is_live and key.state is not State.ACTIVE:
        return ended(key, rotation, at)
    if key.purpose is KeyPurpose.CIPHER and key.state is State.SUSPENDED:
        return enter_key(key, rotation, at, State.DEACTIVATED)
    return key


def _root_at_end(root: RootGeneration, rotation: Rotation, at: str) -> RootGeneration:
    if root.state in (State.ACTIVE, State.DESTROYED):
        return root
    if root.state is State.SUSPENDED:
        root = enter_root(root, rotation, at, State.DEACTIVATED)
    return enter_root(root, rotation, at, State.DESTROYED)


def _is_new_end(part: RootGeneration | WrappedKey, before: set[int]) -> bool:
    return id(part) not in before and part.state is State.DESTROYED


def dropped(document: Keyring, at: str, why: str) -> Keyring:
    """Return the keyring in which a rotation that never came into force is over; its numbers stay used.

    Where it was a rollback or an emergency, the rotation whose place it should have taken goes on.
    """
    rotation = require_rotation(document)
    if rotation.phase not in BEFORE_FLIP:
        raise wrong_phase(rotation)
    return _without_attempt(document, at, why)


def _without_attempt(document: Keyring, at: str, why: str) -> Keyring:
    rotation = require_rotation(document)
    taken = {(key.purpose, key.slot, key.number) for key in document.keys}
    unborn = [
        msgspec.structs.replace(ended(key, rotation, at), root=document.active_root.number)
        for key in rotation.next_keys
        if key.state is State.PRE_ACTIVATION and (key.purpose, key.slot, key.number) not in taken
    ]
    roots = tuple(
        enter_root(root, rotation, at, State.DESTROYED)
        if root.state is State.PRE_ACTIVATION
        else root
        for root in document.roots
    )
    slots = tuple(
        msgspec.structs.replace(
            slot,
            roots=tuple(r for r in slot.roots if r.generation == document.active_root.number),
        )
        for slot in document.slots
    )
    detail = {"id": rotation.id, "phase": rotation.phase.value, "why": why}
    return later(
        document,
        at,
        rotation.undone,
        "rotation-dropped",
        detail,
        # Above the keyring in the pending backup of this try: where its root key is at hand, as when data keys alone
        # were to be replaced, that one is authentic, and whoever kept it could else bring it into force after all.
        epoch=document.epoch + 2,
        roots=worth_naming(roots, lambda _root: "root"),
        keys=worth_naming((*document.keys, *unborn), lambda key: (key.purpose, key.slot)),
        slots=slots,
        share_sets=tuple(each for each in document.share_sets if not each.staged),
    )


def held(document: Keyring, at: str, actor: str, *, paused: bool, why: str = "") -> Keyring | None:
    """Return the keyring whose re-encryption is paused, or goes on; None when it is so already."""
    rotation = require_phase(document, Phase.RE_ENCRYPTING)
    if rotation.paused is paused:
        return None
    following = msgspec.structs.replace(rotation, paused=paused, paused_why=why)
    kind = "rotation-paused" if paused else "rotation-resumed"
    return later(document, at, following, kind, {"why": why} if why else {}, actor=actor)


def paced(document: Keyring, at: str, max_rate: int, actor: str) -> Keyring | None:
    """Return the keyring whose re-encryption goes at most at `max_rate` records a second; None when it does so already.

    0: as fast as the pace allows.
    """
    rotation = require_rotation(document)
    if rotation.max_rate == max_rate:
        return None
    following = msgspec.structs.replace(rotation, max_rate=max_rate)
    detail = {"max_rate": str(max_rate)}
    return later(document, at, following, "rotation-paced", detail, actor=actor)


def noted(document: Keyring, at: str, kind: str, detail: Mapping[str, str]) -> Keyring:
    """Return the keyring with one more event of a rotation, whose id is in `detail`."""
    return later(document, at, document.rotation, kind, detail)


def _started_detail(rotation: Rotation) -> dict[str, str]:
    detail = {
        "kind": rotation.kind.value,
        "scope": rotation.scope.value,
        "root_from": str(rotation.root.before),
        "root_to": str(rotation.root.after),
        "record_from": str(rotation.record.before),
        "record_to": str(rotation.record.after),
        "cipher_from": str(rotation.cipher.before),
        "cipher_to": str(rotation.cipher.after),
        "reason": rotation.reason,
        "window_s": str(rotation.window_s),
        "attempt": str(rotation.attempt),
    }
    if rotation.emergency is not None:
        detail |= {"emergency": "yes", "leaked": ", ".join(rotation.emergency.leaked)}
    if rotation.undone is not None and rotation.kind is RotationKind.ROLLBACK:
        detail["of"] = rotation.undone.id
    return detail
