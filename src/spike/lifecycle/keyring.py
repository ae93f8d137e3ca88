"""The keyring: one document that says which keys exist, in which state, wrapped under what.

It is stored as one record and replaced whole by compare-and-swap, so every step of a key's life is one atomic write.
Nothing in it is believed before its MAC, keyed from the active root key, has been checked; until then the text is a
hint that can at worst lead to a refusal.

* `revision` grows with every replacement, `epoch` with every change that must not be undone.
* `lineage` names one life of a store: a restore on another machine begins a new one.
* An event is written in the same replacement that makes it true and stays in `outbox` until it has been appended to
  the history.

A document carries the lowest format that holds it: 1, or 2 while it names what format 1 had no word for (`_format`).
So the format follows from the content, and there is one encoding of each keyring.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, TypeVar

from msgspec import Meta

from spike.crypto.purpose import Purpose, purpose_key
from spike.error import FormatError
from spike.lifecycle import document
from spike.lifecycle.document import Document
from spike.lifecycle.keyring_part import (
    Counter,
    Digest,
    Emergency,
    Event,
    History,
    Id,
    KeyPurpose,
    KeyringPart,
    LeavingKeeper,
    LifecycleOperation,
    MaybeMoment,
    Moment,
    Number,
    Phase,
    Proof,
    ProofMark,
    RecoveryShards,
    RetiredSlot,
    RootGeneration,
    Rotation,
    RotationKind,
    Scope,
    SealedRoot,
    ShareMember,
    ShareSet,
    Slot,
    SlotKind,
    Succession,
    Text,
    WrappedKey,
)
from spike.lifecycle.schedule import Schedule
from spike.lifecycle.state import State
from spike.memory.key_memory import KeyMemory

FORMAT: Final = 2
LIMIT_BYTES: Final = 1 << 20
THING: Final = "keyring"

# The parts go by the name of their whole: who needs a keyring imports from here.
__all__ = [
    "FORMAT",
    "LIMIT_BYTES",
    "THING",
    "Counter",
    "Digest",
    "Emergency",
    "Event",
    "History",
    "Id",
    "KeyPurpose",
    "Keyring",
    "LeavingKeeper",
    "LifecycleOperation",
    "MaybeMoment",
    "Moment",
    "Number",
    "Phase",
    "Proof",
    "ProofMark",
    "RecoveryShards",
    "RetiredSlot",
    "RootGeneration",
    "Rotation",
    "RotationKind",
    "Scope",
    "SealedRoot",
    "ShareMember",
    "ShareSet",
    "Slot",
    "SlotKind",
    "Succession",
    "Text",
    "UnconfirmedKeyring",
    "WrappedKey",
    "decode_untrusted",
    "encode",
]


class Keyring(KeyringPart, frozen=True, omit_defaults=True):
    """The whole document. See the module's docstring and docs/reference/format.md."""

    store_id: Id
    lineage: Id
    revision: Counter
    epoch: Counter
    created_at: Moment
    replaced_at: Moment
    roots: tuple[RootGeneration, ...]
    keys: tuple[WrappedKey, ...]
    slots: tuple[Slot, ...]
    share_sets: tuple[ShareSet, ...]
    operation: LifecycleOperation | None
    oldest_cipher: Counter
    next_event: Counter
    outbox: tuple[Event, ...]
    audit_head: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]
    rotation: Rotation | None = None
    leaving: Annotated[tuple[LeavingKeeper, ...], Meta(max_length=255)] = ()
    proof: Proof | None = None
    schedule: Schedule | None = None
    retired: tuple[RetiredSlot, ...] = ()
    rotation_due: Text = ""

    @property
    def active_root(self) -> RootGeneration:
        """The one active root-key generation."""
        return _only(root for root in self.roots if root.state is State.ACTIVE)

    def active_key(self, purpose: KeyPurpose) -> WrappedKey:
        """Return the one active generation of a key that is not a slot's."""
        return _only(k for k in self.keys if k.purpose is purpose and k.state is State.ACTIVE)

    def auth_key(self, slot_id: str) -> WrappedKey:
        """Return the active `backup-auth` key of a slot."""
        return _only(
            k
            for k in self.keys
            if k.purpose is KeyPurpose.BACKUP_AUTH and k.slot == slot_id and k.state is State.ACTIVE
        )

    def slot_named(self, name: str) -> Slot | None:
        """Return the slot with this name."""
        return next((slot for slot in self.slots if slot.name == name), None)

    @property
    def shard_slot(self) -> Slot | None:
        """The slot that recovery shards open; there is one at most."""
        return next((slot for slot in self.slots if slot.kind is SlotKind.SHARDS), None)

    @property
    def age(self) -> tuple[int, int]:
        """What tells an older keyring of a lineage from a newer one: epoch, then revision."""
        return (self.epoch, self.revision)


Part = TypeVar("Part", RootGeneration, WrappedKey)


def _only(candidates: Iterable[Part]) -> Part:
    found = list(candidates)
    if len(found) != 1:
        raise FormatError(
            f"the keyring is damaged: {len(found)} active generations where there must be one"
        )
    return found[0]


class UnconfirmedKeyring:
    """A keyring as read from storage or a backup: a hint until a root key confirms it."""

    def __init__(self, raw: bytes, split: Document, hint: Keyring) -> None:
        self._raw = raw
        self._split = split
        self.hint = hint
        """What the document says of itself. Nothing in it may be relied on."""

    @property
    def raw(self) -> bytes:
        """The document's bytes."""
        return self._raw

    def confirmed_by(self, root: KeyMemory) -> Keyring | None:
        """Return the keyring if `root` is its active root key and authenticates it, else None."""
        active = self.hint.active_root
        with purpose_key(
            root, Purpose.KEYRING_MAC, bytes.fromhex(self.hint.store_id), active.number
        ) as key:
            return self.hint if self._split.confirmed_by(key) else None


def decode_untrusted(raw: bytes) -> UnconfirmedKeyring:
    """Read a keyring from outside. Sizes: at most 1 MiB.

    Raises:
        NewerFormatError: written by a newer SPIKE.
        FormatError: no keyring, damaged, or not in canonical form.
    """
    split = document.split_untrusted(raw, THING, FORMAT, LIMIT_BYTES)
    hint = document.read_untrusted(split.body, Keyring, THING)
    _check_consistent(hint)
    if split.format != _format(hint):
        raise FormatError("the keyring is damaged: it carries the number of another format")
    return UnconfirmedKeyring(raw, split, hint)


def encode(keyring: Keyring, root: KeyMemory) -> bytes:
    """Return the document, authenticated under `root`, which must be the active root key.

    Raises:
        FormatError: the keyring contradicts itself, could not be read again, or has grown over 1 MiB.
    """
    _check_consistent(keyring)
    store = bytes.fromhex(keyring.store_id)
    with purpose_key(root, Purpose.KEYRING_MAC, store, keyring.active_root.number) as key:
        raw = document.compose(THING, _format(keyring), keyring, key)
    if len(raw) > LIMIT_BYTES:
        raise FormatError(f"the keyring has grown over {LIMIT_BYTES} bytes")
    # Encoding checks no field. What could not be read again must not take the place of what can.
    decode_untrusted(raw)
    return raw


def _check_consistent(keyring: Keyring) -> None:
    """Refuse a document that contradicts itself, so that no reader has to think of it."""
    active = keyring.active_root
    for purpose in (KeyPurpose.RECORD, KeyPurpose.CIPHER, KeyPurpose.AUDIT):
        keyring.active_key(purpose)
    identities: list[list[object]] = [
        [root.number for root in keyring.roots],
        [(key.purpose, key.slot, key.number) for key in keyring.keys],
        [slot.id for slot in keyring.slots],
        [slot.name for slot in keyring.slots],
    ]
    if any(len(set(names)) != len(names) for names in identities):
        raise FormatError("the keyring is damaged: a name or number is used twice")
    for slot in keyring.slots:
        keyring.auth_key(slot.id)
        _check_shards(slot)
    if sum(slot.kind is SlotKind.SHARDS for slot in keyring.slots) > 1:
        raise FormatError("the keyring is damaged: it has two slots of recovery shards")
    if keyring.oldest_cipher > keyring.active_key(KeyPurpose.CIPHER).number:
        raise FormatError("the keyring is damaged: it accepts nothing that its cipher key encrypts")
    if any(key.is_live and key.root != active.number for key in keyring.keys):
        raise FormatError(
            "the keyring is damaged: a key is wrapped under a root key that is not active"
        )


def _format(keyring: Keyring) -> int:
    """Return the lowest format that holds a keyring."""
    has_root = any(key.purpose is KeyPurpose.ROOT for key in keyring.keys)
    later_words = (keyring.rotation, keyring.schedule, keyring.proof)
    checked_in = any(slot.shards is not None and slot.shards.checked for slot in keyring.slots)
    is_told = any(slot.verified_by for slot in keyring.slots)
    listed = keyring.leaving or keyring.retired or keyring.rotation_due
    plain = not (has_root or checked_in or is_told or listed)
    return 1 if plain and all(word is None for word in later_words) else 2


def _check_shards(slot: Slot) -> None:
    shards = slot.shards
    if (slot.kind is SlotKind.SHARDS) != (shards is not None):
        raise FormatError("the keyring is damaged: a slot and its shards do not fit together")
    if shards is not None and shards.threshold > len(shards.digests):
        raise FormatError("the keyring is damaged: a slot needs more shards than there are")
    if shards is not None and len(shards.checked) not in (0, len(shards.digests)):
        raise FormatError("the keyring is damaged: the roster of shards is not that of its slot")
