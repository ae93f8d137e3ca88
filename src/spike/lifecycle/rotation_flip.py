"""The flip: the one keyring in which the incoming keys come into force. Pure.

Nothing of it is decided anywhere else: which state each key enters, what has to be there first, and what falls away.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from spike.lifecycle.keyring import (
    KeyPurpose,
    Keyring,
    LeavingKeeper,
    Phase,
    RootGeneration,
    Rotation,
    RotationKind,
    SealedRoot,
    Slot,
    WrappedKey,
)
from spike.lifecycle.refresh import LEAVING_LIMIT, leaving, set_in_force
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.rotation_plan import leaks
from spike.lifecycle.rotation_step import LOOK, ended, enter_key, enter_root, later, require_phase
from spike.lifecycle.state import State


def require_flip(document: Keyring, *, has_keepers: bool) -> Rotation:
    """Return the rotation if this very keyring can be followed by its flip.

    Raises:
        RefusalError: ROTATION, a usable slot has no copy of the incoming root key, or the Keepers no shares of it.
    """
    rotation = require_phase(document, Phase.BACKED_UP)
    check = root_of(document, rotation.root.after).check
    for slot in document.slots:
        sealed = sealed_of(slot, rotation)
        if not leaks(rotation.emergency, slot) and (sealed is None or sealed.check != check):
            raise RefusalError(
                Reason.ROTATION, f"slot {slot.name} holds no copy of the incoming root key", LOOK
            )
    needs_a_slot = bool(document.slots) or rotation.without_keepers
    if needs_a_slot and all(leaks(rotation.emergency, slot) for slot in document.slots):
        raise RefusalError(
            Reason.ROTATION,
            "no slot would be left that opens the backup",
            "add a slot with a new password first: spike backup slot add",
        )
    needs_shares = (
        has_keepers and not rotation.without_keepers and rotation.root.after != rotation.root.before
    )
    after = rotation.root.after
    staged = any(each.staged and each.generation == after for each in document.share_sets)
    if needs_shares and not staged:
        raise RefusalError(
            Reason.ROTATION, "the Keepers hold no shares of the incoming root key", LOOK
        )
    return rotation


def flipped(document: Keyring, at: str, *, has_keepers: bool) -> Keyring:
    """Return the keyring in which the incoming keys are in force. THE FLIP.

    Raises:
        RefusalError: ROTATION; see `require_flip`.
    """
    rotation = require_flip(document, has_keepers=has_keepers)
    replaces_root = rotation.root.after != rotation.root.before
    keys = [_at_flip(key, rotation, at) for key in rotation.next_keys]
    named = {(key.purpose, key.slot, key.number) for key in keys}
    over = [
        ended(key, rotation, at)
        for key in document.keys
        if (key.purpose, key.slot, key.number) not in named and key.purpose is not KeyPurpose.ROOT
    ]
    slots = tuple(
        _slot_at_flip(slot, rotation) if replaces_root else slot
        for slot in document.slots
        if not leaks(rotation.emergency, slot)
    )
    sets = document.share_sets
    if replaces_root:
        sets = tuple(
            msgspec.structs.replace(each, staged=False)
            for each in document.share_sets
            if each.generation == rotation.root.after
        )
    done = rotation.record.after == rotation.record.before
    following = msgspec.structs.replace(
        rotation,
        phase=Phase.VERIFIED if done else Phase.RE_ENCRYPTING,
        flipped_at=at,
        verified_at=at if done else "",
        next_keys=(),
        undone=_over(rotation),
    )
    flip = later(
        document,
        at,
        following,
        "rotation-flipped",
        {"epoch": str(document.epoch + 1)},
        epoch=document.epoch + 1,
        roots=_roots_at_flip(document, rotation, at),
        keys=(*keys, *over),
        slots=slots,
        share_sets=sets,
        leaving=(*document.leaving, *(_gone(document, rotation, at) if replaces_root else ()))[
            -LEAVING_LIMIT:
        ],
        rotation_due="" if _is_fresh(rotation) else document.rotation_due,
    )
    return flip if following.undone is None else _with_end(flip, following, following.undone, at)


def _over(rotation: Rotation) -> Rotation | None:
    """Return the rotation whose place this one takes, for its name alone: nothing goes back to what it was."""
    undone = rotation.undone
    return None if undone is None else msgspec.structs.replace(undone, undone=None)


def _with_end(document: Keyring, rotation: Rotation, over: Rotation, at: str) -> Keyring:
    """Return the keyring of a flip that also tells the end of the rotation whose place it took.

    No later write does: the keyring knows nothing more of that one.
    """
    kind, how = (
        ("rotation-superseded", f"superseded by emergency {rotation.id}")
        if rotation.emergency is not None
        else ("rotation-rolled-back", f"rolled back by {rotation.id}")
    )
    detail = {
        "id": over.id,
        "by": rotation.id,
        "phase": over.phase.value,
        "why": how,
        "old_keys": ", ".join(_old_keys(document, over)),
    }
    return later(document, at, rotation, kind, detail)


def _old_keys(document: Keyring, over: Rotation) -> Iterator[str]:
    """Give each key that a rotation had replaced, and the state it is in."""
    if over.root.before != over.root.after:
        yield f"root {over.root.before} {root_of(document, over.root.before).state}"
    pairs = {KeyPurpose.RECORD: over.record, KeyPurpose.CIPHER: over.cipher}
    for key in document.keys:
        pair = pairs.get(key.purpose)
        if pair is not None and pair.before != pair.after and key.number == pair.before:
            yield f"{key.purpose} {key.number} {key.state}"


def _gone(document: Keyring, rotation: Rotation, at: str) -> tuple[LeavingKeeper, ...]:
    """Return the Keepers that are no members any more; who had leaked is barred, also where no set follows."""
    before = set_in_force(document)
    if before is None:
        return ()
    leaked = () if rotation.emergency is None else rotation.emergency.leaked
    names = (each.removeprefix("keeper:") for each in leaked if each.startswith("keeper:"))
    barred = frozenset(int(name) for name in names if name.isdecimal())
    after = next(
        (each.members for each in document.share_sets if each.generation == rotation.root.after),
        tuple(member for member in before.members if member.index not in barred),
    )
    return leaving(before, msgspec.structs.replace(before, members=after), at, barred=barred)


def _is_fresh(rotation: Rotation) -> bool:
    """Return whether root and record key are ones that never were in force before."""
    replaced = all(pair.after > pair.before for pair in (rotation.root, rotation.record))
    return replaced and rotation.kind is RotationKind.ROTATION


def _slot_at_flip(slot: Slot, rotation: Rotation) -> Slot:
    """Keep the copy of the root key in force alone. After an emergency only a new password makes a slot good."""
    kept = tuple(each for each in slot.roots if each.generation == rotation.root.after)
    renew = slot.renew or rotation.emergency is not None
    return msgspec.structs.replace(slot, roots=kept, renew=renew)


def _roots_at_flip(document: Keyring, rotation: Rotation, at: str) -> tuple[RootGeneration, ...]:
    pair = rotation.root
    if pair.before == pair.after:
        return document.roots

    def moved(root: RootGeneration) -> RootGeneration:
        if root.number == pair.after:
            return enter_root(root, rotation, at, State.ACTIVE)
        if rotation.emergency is not None and root.state in (State.ACTIVE, State.SUSPENDED):
            return enter_root(root, rotation, at, State.COMPROMISED)
        if root.number == pair.before:
            return enter_root(root, rotation, at, State.SUSPENDED)
        return root

    return tuple(moved(root) for root in document.roots)


def _at_flip(key: WrappedKey, rotation: Rotation, at: str) -> WrappedKey:
    """Return a key as it is from the flip on."""
    if key.purpose is KeyPurpose.BACKUP_AUTH:
        return key
    if key.purpose is KeyPurpose.ROOT:
        if key.state is State.ACTIVE:
            return enter_key(key, rotation, at, State.SUSPENDED)
        return key
    if key.state is State.PRE_ACTIVATION:
        return enter_key(key, rotation, at, State.ACTIVE)
    pairs = {KeyPurpose.RECORD: rotation.record, KeyPurpose.CIPHER: rotation.cipher}
    pair = pairs.get(key.purpose)
    if rotation.emergency is not None:
        # Everything that the old root key wrapped counts as known.
        done = key.state is State.COMPROMISED
        return key if done else enter_key(key, rotation, at, State.COMPROMISED)
    if pair is None or pair.before == pair.after:
        return key
    if key.number == pair.after:
        return enter_key(key, rotation, at, State.ACTIVE)
    if key.number == pair.before:
        back = rotation.kind is RotationKind.ROLLBACK and key.purpose is KeyPurpose.CIPHER
        # What was encrypted for others since stays readable: decrypt-only, for good.
        return enter_key(key, rotation, at, State.DEACTIVATED if back else State.SUSPENDED)
    return key


def sealed_of(slot: Slot, rotation: Rotation) -> SealedRoot | None:
    return next((each for each in slot.roots if each.generation == rotation.root.after), None)


def root_of(document: Keyring, number: int) -> RootGeneration:
    return next(root for root in document.roots if root.number == number)
