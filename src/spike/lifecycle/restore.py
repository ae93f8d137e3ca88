"""Restore: which copy of the keyring is tried, what must hold before its root key is believed, what follows.

Steps, in this order; a failed one ends the restore with a name and changes nothing:

1. `choose`: the copy in the store, or the key backup that was handed in.
2. The slot is opened with its password (in the child process); the sealed copy's MAC comes before its content.
3. `confirm`: the root key gives the check value and authenticates the whole keyring.
4. `compare_copies`: with a backup handed in, which of backup and store is the newer one; `require_in_force`: one that
   says it is pending must have come into force since.
5. `require_current`: no valid anchor says that the store had been further.
6. The caller opens the access list and one record of each kind (`lifecycle` knows no storage). Only this tells
   whose store it is, where its keyring cannot be authenticated.
7. `recovered`: the keyring that follows, one epoch higher, written by one compare-and-swap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from spike.crypto.slot import PUBLIC_KEY_BYTES, SALT_BYTES, Argon2Setting
from spike.error import FormatError, NewerFormatError
from spike.lifecycle import backup, keyring, staleness
from spike.lifecycle.anchor import Anchor, anchor_of, could_follow
from spike.lifecycle.backup import KeyBackup
from spike.lifecycle.keyring import Event, Keyring, SealedRoot, Slot, SlotKind, UnconfirmedKeyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.staleness import Objection
from spike.memory.key_memory import KeyMemory

_OTHER_COPY = "restore from another copy: spike restore --backup FILE"


@dataclass(frozen=True, slots=True)
class Candidate:
    """The copy a restore is tried with. `backup` is None when it is the store's own."""

    held: UnconfirmedKeyring
    backup: KeyBackup | None

    @property
    def origin(self) -> str:
        """Where the copy came from, for messages."""
        return "the store" if self.backup is None else "the backup"


@dataclass(frozen=True, slots=True)
class ChosenSlot:
    """The slot to open, and the sealed copy of the active root key in it."""

    slot: Slot
    sealed: SealedRoot


def choose(stored: bytes | None, handed_in: bytes | None) -> Candidate:
    """Return the copy to try.

    Raises:
        RefusalError: NOT_INITIALIZED (nothing there), DAMAGED or NEWER_FORMAT (it cannot be read).
    """
    if handed_in is not None:
        try:
            held = backup.decode_untrusted(handed_in)
        except NewerFormatError as error:
            raise RefusalError(Reason.NEWER_FORMAT, error.message, error.next_step) from error
        except FormatError as error:
            raise RefusalError(Reason.DAMAGED, error.message, _OTHER_COPY) from error
        return Candidate(held.keyring, held)
    if stored is None:
        raise RefusalError(
            Reason.NOT_INITIALIZED,
            "the store holds no keyring",
            "initialize it (spike init), or restore from a key backup (spike restore --backup FILE)",
        )
    return Candidate(read_stored(stored), None)


def read_stored(stored: bytes) -> UnconfirmedKeyring:
    """Read the store's keyring.

    Raises:
        RefusalError: DAMAGED or NEWER_FORMAT.
    """
    try:
        return keyring.decode_untrusted(stored)
    except NewerFormatError as error:
        raise RefusalError(Reason.NEWER_FORMAT, error.message, error.next_step) from error
    except FormatError as error:
        raise RefusalError(
            Reason.DAMAGED, f"{error.message} (in the store)", _OTHER_COPY
        ) from error


def choose_slot(held: UnconfirmedKeyring, name: str) -> ChosenSlot:
    """Return the password slot with this name, or the first one when `name` is empty.

    Raises:
        RefusalError: UNKNOWN_SLOT, or DAMAGED when it holds no copy of the active root key, or no password could
            open it.
    """
    slots = [s for s in held.hint.slots if s.kind is SlotKind.PASSWORD]
    slot = next((s for s in slots if not name or s.name == name), None)
    if slot is None:
        known = ", ".join(s.name for s in slots) or "none"
        raise RefusalError(
            Reason.UNKNOWN_SLOT,
            f"there is no password slot named {name!r}",
            f"known slots: {known}",
        )
    _require_derivable(slot)
    return ChosenSlot(slot, _sealed_copy(held, slot))


def choose_shard_slot(held: UnconfirmedKeyring) -> ChosenSlot:
    """Return the slot that recovery shards open.

    Raises:
        RefusalError: UNKNOWN_SLOT, or DAMAGED when it holds no copy of the active root key, or nothing could open it.
    """
    slot = held.hint.shard_slot
    if slot is None:
        raise RefusalError(
            Reason.UNKNOWN_SLOT,
            "there are no recovery shards for this store",
            "restore it by a password: spike restore",
        )
    _require_public(slot)
    return ChosenSlot(slot, _sealed_copy(held, slot))


def _sealed_copy(held: UnconfirmedKeyring, slot: Slot) -> SealedRoot:
    active = held.hint.active_root
    for sealed in slot.roots:
        if sealed.generation == active.number and sealed.check == active.check:
            return sealed
    raise RefusalError(
        Reason.DAMAGED,
        f"slot {slot.name!r} holds no copy of root-key generation {active.number}",
        _OTHER_COPY,
    )


def _require_derivable(slot: Slot) -> None:
    try:
        Argon2Setting.parse_untrusted(slot.argon2)
    except FormatError as error:
        raise RefusalError(
            Reason.DAMAGED, f"slot {slot.name!r} is damaged: {error.message}", _OTHER_COPY
        ) from error
    if len(slot.salt) != SALT_BYTES:
        raise _impossible(slot, "salt")
    _require_public(slot)


def _require_public(slot: Slot) -> None:
    if len(slot.public) != PUBLIC_KEY_BYTES:
        raise _impossible(slot, "public key")


def _impossible(slot: Slot, what: str) -> RefusalError:
    return RefusalError(
        Reason.DAMAGED,
        f"slot {slot.name!r} is damaged: its {what} has an impossible size",
        _OTHER_COPY,
    )


def confirm(candidate: Candidate, root: KeyMemory) -> Keyring:
    """Return the keyring the root key authenticates.

    Raises:
        RefusalError: PLANTED: the slot opened, and what it held does not authenticate the copy it was in.
    """
    held = (
        candidate.held.confirmed_by(root)
        if candidate.backup is None
        else candidate.backup.confirmed_by(root)
    )
    if held is None:
        raise RefusalError(
            Reason.PLANTED,
            f"the keyring in {candidate.origin} is not authentic: somebody changed it or planted another key",
            _OTHER_COPY,
        )
    return held


def compare_copies(
    confirmed: Keyring, stored: bytes | None, roots: Mapping[int, KeyMemory]
) -> Objection | None:
    """Return what the store's own keyring says against a confirmed key backup that is to take its place.

    Nothing when the store has none, or one that is damaged or not authentic. Whether such a one was planted or
    belongs to another store only the records can tell (step 6); by itself it keeps no true backup out. `roots` are the
    root keys at hand by generation. A keyring of a generation that none of them is of cannot be told from a planted
    one: it is weighed as an anchor of it would be (`spike.lifecycle.anchor`), and a person can go on in spite of it.

    Raises:
        RefusalError: FOREIGN (another lineage) or OLD (the store has a newer one).
    """
    held = _readable(stored)
    if held is None or held.hint.store_id != confirmed.store_id:
        return None
    root = roots.get(held.hint.active_root.number)
    present = None if root is None else held.confirmed_by(root)
    if present is None:
        return None if root is not None else _by_unconfirmed(confirmed, held.hint)
    if present.lineage != confirmed.lineage:
        raise RefusalError(
            Reason.FOREIGN,
            f"the backup is of lineage {confirmed.lineage} of this store, which is of lineage {present.lineage}",
            "find out which copy of the store is the living one before going on",
        )
    if present.age > confirmed.age:
        raise RefusalError(
            Reason.OLD,
            f"the backup is older (epoch {confirmed.epoch}, revision {confirmed.revision}) "
            f"than the store (epoch {present.epoch}, revision {present.revision})",
            "restore without it: spike restore",
        )
    return staleness.by_newer_backup(confirmed, present) if present.age < confirmed.age else None


def _by_unconfirmed(confirmed: Keyring, hint: Keyring) -> Objection | None:
    if could_follow(confirmed, hint.active_root.number):
        statement = anchor_of(hint, 0)
        return staleness.by_unproven(confirmed, 0, statement, "the store's own keyring")
    if hint.lineage == confirmed.lineage and hint.age < confirmed.age:
        return staleness.by_newer_backup(confirmed, hint)
    return None


def require_in_force(
    candidate: Candidate,
    confirmed: Keyring,
    stored: bytes | None,
    root: KeyMemory,
    valid_outside: Iterable[Anchor],
) -> None:
    """Return if a key backup is not pending, or if its keyring is known to have come into force since.

    The store's keyring tells, when it names the same root key active and is authenticated by it. Where the store has no
    keyring that can be read, `valid_outside` tell: anchors that are valid under this root key and come from outside of
    the backup. The backup's own anchor was made before anybody knew whether it would ever hold.

    Raises:
        RefusalError: PENDING; or NEWER_FORMAT, the store's keyring is of a newer format.
    """
    if candidate.backup is None or not candidate.backup.pending:
        return
    held = _readable(stored)
    if held is not None:
        present = held.confirmed_by(root)
        in_force = present is not None and present.active_root.check == confirmed.active_root.check
    else:
        in_force = any(
            seen.lineage == confirmed.lineage
            and seen.epoch >= confirmed.epoch
            # Another root key that is at hand says nothing of whether this one came into force.
            and seen.generation == confirmed.active_root.number
            for seen in valid_outside
        )
    if not in_force:
        raise RefusalError(
            Reason.PENDING,
            f"the backup is pending: nothing says that its root key, generation {confirmed.active_root.number}, "
            "has ever been in force",
            "restore from the backup in force, the file without .pending: spike restore --backup FILE",
        )


def _readable(stored: bytes | None) -> UnconfirmedKeyring | None:
    if stored is None:
        return None
    try:
        return keyring.decode_untrusted(stored)
    except NewerFormatError as error:
        raise RefusalError(Reason.NEWER_FORMAT, error.message, error.next_step) from error
    except FormatError:
        return None


def require_current(
    confirmed: Keyring, access_generation: int, valid_anchors: Iterable[Anchor]
) -> None:
    """Return if no valid anchor says that the store had been further.

    Raises:
        RefusalError: FOREIGN (an anchor is of another lineage) or STALE_STORE.
    """
    for seen in valid_anchors:
        objection = staleness.by_anchor(confirmed, access_generation, seen, "an anchor")
        if objection is not None:
            raise objection.refusal()


def require_fence(confirmed: Keyring, fence: int) -> None:
    """Return if the store takes writes under the epoch that follows the keyring's.

    Raises:
        RefusalError: STALE_STORE.
    """
    objection = staleness.by_fence(confirmed, fence)
    if objection is not None:
        raise objection.refusal()


def recovered(
    confirmed: Keyring,
    at: str,
    actor: str,
    slot_id: str,
    *,
    by: str = "password",
    accepted: Sequence[Objection] = (),
) -> Keyring:
    """Return the keyring after a recovery through a slot: one epoch and revision higher, the slot marked verified.

    `by` is the slot's kind. `accepted` is what a person went on in spite of: epoch and revision come to stand above
    all of it, the event says so, and fresh keys are due.

    Raises:
        RefusalError: DAMAGED, the store's fence is beyond all that can be followed.
    """
    highest = staleness.above(confirmed, accepted)
    detail = {"by": by, "slot": slot_id}
    due = confirmed.rotation_due
    if accepted:
        detail["accepted_older_store"] = "; ".join(each.message for each in accepted)
        # What came after this copy is known to whoever kept it, and its numbers of keys will be used again.
        due = "an older copy of the store was accepted"
    event = Event(sequence=confirmed.next_event, at=at, kind="restore", actor=actor, detail=detail)
    return msgspec.structs.replace(
        confirmed,
        revision=highest.revision + 1,
        epoch=highest.epoch + 1,
        replaced_at=at,
        slots=tuple(
            msgspec.structs.replace(slot, verified_at=at, verified_by=actor)
            if slot.id == slot_id
            else slot
            for slot in confirmed.slots
        ),
        next_event=confirmed.next_event + 1,
        outbox=(*confirmed.outbox, event),
        rotation_due=due,
    )
