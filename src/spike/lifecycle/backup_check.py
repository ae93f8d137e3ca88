"""Whether a copy of the key backup, an anchor or the store's keyring is what it has to be. Pure; needs no password.

Of a copy everything is looked at that can be without a password: its structure, whose it is, that it is the present
one, both MACs under the root key, the check value, and that each slot holds an authentic copy of the active root key.
An older copy is authentic and still wrong: a restore would refuse it, or go back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from spike.error import FormatError
from spike.lifecycle import anchor as anchors
from spike.lifecycle import backup, keyring
from spike.lifecycle.keyring import Keyring, Slot
from spike.lifecycle.slot import header_of, is_authentic
from spike.memory.key_memory import KeyMemory


class CopyState(StrEnum):
    """How a copy is."""

    GOOD = "good"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    FOREIGN = "foreign"
    PENDING = "pending"
    OLDER = "older"
    OTHER = "other"
    PLANTED = "planted"
    SLOT = "slot"
    ANCHOR = "anchor"
    UNOPENED = "unopened"


class CopyFinding(NamedTuple):
    """How a copy is, and in words what is wrong with it."""

    state: CopyState
    detail: str = ""

    @property
    def is_good(self) -> bool:
        """Whether it is what it has to be."""
        return self.state is CopyState.GOOD


GOOD = CopyFinding(CopyState.GOOD)


@dataclass(frozen=True, slots=True)
class Present:
    """What every copy is held against: the keyring in force, its root key, each slot's `backup-auth` key by slot id."""

    document: Keyring
    root: KeyMemory
    auth: Callable[[str], KeyMemory]


def judge_backup_untrusted(raw: bytes | None, present: Present) -> CopyFinding:
    """Return how a key backup is."""
    if raw is None:
        return CopyFinding(CopyState.MISSING, "there is no copy that can be read")
    try:
        copy = backup.decode_untrusted(raw)
    except FormatError as error:
        return CopyFinding(CopyState.UNREADABLE, error.message)
    hint = copy.keyring.hint
    finding = _whose(hint, present.document)
    if not finding.is_good:
        return finding
    if copy.pending:
        return CopyFinding(
            CopyState.PENDING, "it is a pending backup, in the place of the one in force"
        )
    finding = _how_new(hint, present.document, f", written {copy.written_at}")
    if not finding.is_good:
        return finding
    if copy.confirmed_by(present.root) is None:
        return CopyFinding(CopyState.PLANTED, "it is not authentic: somebody changed it")
    return _whole(hint, present)


def judge_keyring_untrusted(raw: bytes | None, present: Present) -> CopyFinding:
    """Return how the store's own copy of the keyring is."""
    if raw is None:
        return CopyFinding(CopyState.MISSING, "the store holds no keyring")
    try:
        held = keyring.decode_untrusted(raw)
    except FormatError as error:
        return CopyFinding(CopyState.UNREADABLE, error.message)
    for finding in (_whose(held.hint, present.document), _how_new(held.hint, present.document, "")):
        if not finding.is_good:
            return finding
    if held.confirmed_by(present.root) is None:
        return CopyFinding(CopyState.PLANTED, "it is not authentic: somebody changed it")
    return _whole(held.hint, present)


def judge_anchor_untrusted(raw: bytes | None, newest: bytes, present: Present) -> CopyFinding:
    """Return how the anchor beside a key backup is; `newest` is the one that was written there last."""
    if raw == newest:
        return GOOD
    if raw is None:
        return CopyFinding(CopyState.ANCHOR, "there is no anchor that can be read")
    roots = {present.document.active_root.number: present.root}
    weighed = anchors.weigh_untrusted((raw,), present.document, roots)
    if weighed.rejected:
        return CopyFinding(CopyState.ANCHOR, weighed.rejected[0])
    if weighed.unproven:
        return CopyFinding(CopyState.ANCHOR, "the anchor is none of this store's root keys")
    return CopyFinding(CopyState.ANCHOR, "the anchor is an older one, put back")


def _whose(hint: Keyring, document: Keyring) -> CopyFinding:
    if hint.store_id != document.store_id:
        return CopyFinding(CopyState.FOREIGN, f"it is of another store, {hint.store_id}")
    if hint.lineage != document.lineage:
        return CopyFinding(CopyState.FOREIGN, f"it is of another lineage, {hint.lineage}")
    return GOOD


def _how_new(hint: Keyring, document: Keyring, written: str) -> CopyFinding:
    ours, theirs = document.active_root, hint.active_root
    if hint.age < document.age:
        told = [
            f"an older one took its place: epoch {hint.epoch}, revision {hint.revision}{written}"
        ]
        if theirs.number != ours.number:
            told.append(
                f"it gives root-key generation {theirs.number}, and {ours.number} is active"
            )
        told += _other_ways(hint, document)
        return CopyFinding(CopyState.OLDER, "; ".join(told))
    if hint.age > document.age:
        return CopyFinding(
            CopyState.OTHER,
            f"it is newer than what this Nexus knows: epoch {hint.epoch}, revision {hint.revision}",
        )
    if (theirs.number, theirs.check) != (ours.number, ours.check):
        return CopyFinding(CopyState.OTHER, "it names another root key as the active one")
    return GOOD


def _other_ways(hint: Keyring, document: Keyring) -> Iterator[str]:
    present = {slot.id: slot for slot in document.slots}
    for slot in hint.slots:
        if slot.id not in present:
            yield f"it still opens with slot {slot.name!r}, which was removed"
        elif slot.public != present[slot.id].public:
            yield f"it still wants the old password of slot {slot.name!r}"


def _whole(confirmed: Keyring, present: Present) -> CopyFinding:
    if confirmed != present.document:
        return CopyFinding(CopyState.OTHER, "it is authentic, and not the keyring in force")
    bad = [slot.name for slot in confirmed.slots if not _opens(confirmed, slot, present)]
    # What waits for a new password has no copy, by intention.
    if bad:
        return CopyFinding(
            CopyState.SLOT, f"no authentic copy of the active root key in slot {', '.join(bad)}"
        )
    return GOOD


def _opens(confirmed: Keyring, slot: Slot, present: Present) -> bool:
    if slot.renew:
        return True
    active = confirmed.active_root
    copies = [s for s in slot.roots if (s.generation, s.check) == (active.number, active.check)]
    auth = present.auth(slot.id)
    return any(is_authentic(auth, header_of(confirmed, slot, sealed), sealed) for sealed in copies)
