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
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import Meta

from spike.crypto.purpose import Purpose, purpose_key
from spike.error import FormatError
from spike.lifecycle import document
from spike.lifecycle.document import Document
from spike.lifecycle.schedule import Schedule
from spike.lifecycle.state import State, Transition, state_of
from spike.memory.key_memory import KeyMemory

FORMAT: Final = 2
LIMIT_BYTES: Final = 1 << 20
THING: Final = "keyring"

Id = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
"""128 random bits in lower-case hexadecimal: a store, a lineage, a slot, a share set."""
Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Number = Annotated[int, Meta(ge=1, le=0xFFFF_FFFF)]
Counter = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Moment = Annotated[str, Meta(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")]
MaybeMoment = Annotated[
    str, Meta(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?\Z")
]
"""A moment, or empty for never."""
Text = Annotated[str, Meta(max_length=500)]
History = Annotated[tuple[Transition, ...], Meta(min_length=1)]
"""A generation without a state does not exist."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every part of the keyring has in common: immutable, and strict about its fields."""


class KeyPurpose(StrEnum):
    """What a key below the root key is for; one purpose a key."""

    RECORD = "record"
    CIPHER = "cipher"
    AUDIT = "audit"
    BACKUP_AUTH = "backup-auth"
    ROOT = "root"
    """A root-key generation that can still be gone back to, kept under the one that took its place."""


class RootGeneration(_Part, frozen=True):
    """One generation of the root key; `check` confirms it and shows nothing of it."""

    number: Number
    check: Digest
    history: History

    @property
    def state(self) -> State:
        """The present state."""
        return state_of(self.history)


class WrappedKey(_Part, frozen=True):
    """One generation of a key below the root key, sealed as a record of kind `wrapped-key`.

    `slot` names the slot of a `backup-auth` key and is empty for the other purposes.
    """

    purpose: KeyPurpose
    slot: Annotated[str, Meta(pattern=r"^([0-9a-f]{32})?\Z")]
    number: Number
    root: Number
    check: Digest
    wrapped: bytes
    history: History

    @property
    def state(self) -> State:
        """The present state."""
        return state_of(self.history)

    @property
    def is_live(self) -> bool:
        """Whether there is still a key: it is not destroyed."""
        return self.state is not State.DESTROYED


class SealedRoot(_Part, frozen=True):
    """A root-key generation sealed to a slot's public key, authenticated with the slot's `backup-auth` key."""

    generation: Number
    check: Digest
    sealed_at: Moment
    pending: bool
    sealed: bytes
    tag: Digest


class SlotKind(StrEnum):
    """How a slot is opened."""

    PASSWORD = "password"  # noqa: S105 (the name of a kind, not a password)
    SHARDS = "shards"
    DRILL = "drill"


class RecoveryShards(_Part, frozen=True, omit_defaults=True):
    """The recovery shards of a slot: how many open it, and a digest of each, that of index 1 first.

    `checked` are the moments at which the holder of each last showed it, empty for never; none while nobody has.
    """

    threshold: Annotated[int, Meta(ge=1, le=255)]
    digests: Annotated[tuple[Digest, ...], Meta(min_length=1, max_length=255)]
    checked: Annotated[tuple[MaybeMoment, ...], Meta(max_length=255)] = ()


class Slot(_Part, frozen=True, omit_defaults=True):
    """One way to open the backup of the root key.

    `argon2` is a PHC string without salt; both are empty where no password opens it. `shards` is there for kind
    `shards` alone, and its absence changes no byte of a keyring without it.
    """

    id: Id
    name: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}\Z")]
    kind: SlotKind
    argon2: Annotated[str, Meta(max_length=100)]
    salt: bytes
    public: bytes
    created_at: Moment
    verified_at: Moment
    renew: bool
    roots: tuple[SealedRoot, ...]
    shards: RecoveryShards | None = None


class RetiredSlot(_Part, frozen=True):
    """What a slot was opened with before it was changed or removed.

    Copies of the backup that were made until then still open with it, and give root-key generation `generation`; that
    ends when the generation is destroyed.
    """

    name: Text
    kind: SlotKind
    generation: Number
    at: Moment


class ShareMember(_Part, frozen=True):
    """The share with one index: the pinned SPIFFE ID of its Keeper and the digest of the share."""

    index: Annotated[int, Meta(ge=1, le=255)]
    identity: Text
    url: Text
    digest: Digest


class ShareSet(_Part, frozen=True):
    """One split of one root-key generation."""

    id: Id
    generation: Number
    threshold: Annotated[int, Meta(ge=1, le=255)]
    staged: bool
    members: tuple[ShareMember, ...]


class LeavingKeeper(_Part, frozen=True, omit_defaults=True):
    """A Keeper that is no member any more, and has not yet been seen to erase its share of the set it was in.

    `barred`: it was left out because it had leaked. It stays here, and is given nothing, until a person names it again.
    """

    set_id: Id
    generation: Number
    index: Annotated[int, Meta(ge=1, le=255)]
    identity: Text
    url: Text
    since: Moment
    barred: bool = False


class ProofMark(_Part, frozen=True):
    """How the last proof of one kind ended: `succeeded`, `failed` or `timed-out`."""

    at: Moment
    outcome: Annotated[str, Meta(max_length=20)]


class Proof(_Part, frozen=True, omit_defaults=True):
    """When it was last proven that a recovery would work: what must survive a restart of that. See lifecycle/proof.py.

    `drill` is the last one by itself, `person` the last with a person's password. `rehearsal` is there only while the
    last one did not succeed: one that does is done again after each start.
    """

    drill: ProofMark | None = None
    person: ProofMark | None = None
    rehearsal: ProofMark | None = None


class LifecycleOperation(_Part, frozen=True):
    """The lifecycle operation in progress: what, which phase, since when, by whom."""

    id: Id
    kind: Text
    phase: Text
    started_at: Moment
    actor: Text
    detail: dict[str, str]


class RotationKind(StrEnum):
    """Towards what a rotation goes."""

    ROTATION = "rotation"
    ROLLBACK = "rollback"


class Scope(StrEnum):
    """Which keys a rotation replaces."""

    FULL = "full"
    ROOT_ONLY = "root-only"
    DATA_ONLY = "data-only"


class Phase(StrEnum):
    """How far a rotation is; see spike.lifecycle.rotation."""

    PREPARED = "prepared"
    DISTRIBUTED = "distributed"
    BACKED_UP = "backed-up"
    RE_ENCRYPTING = "re-encrypting"
    VERIFIED = "verified"
    FINALIZING = "finalizing"


class Emergency(_Part, frozen=True):
    """Why a rotation could not wait: what had leaked (`root`, `shards`, `slot:NAME`, `keeper:INDEX`)."""

    leaked: Annotated[tuple[Text, ...], Meta(min_length=1)]


class Succession(_Part, frozen=True):
    """The generation that a key had and the one that takes its place; the same number where it stays."""

    before: Number
    after: Number


class Rotation(_Part, frozen=True, omit_defaults=True):
    """A rotation that is not finalized yet. Up to VERIFIED it is the lifecycle operation in progress.

    `next_keys` are all keys as wrapped under the root key that is being brought in; empty from the flip on.
    `undone` is the rotation that a rollback takes back, as it was. `max_rate` is in records a second;
    0 leaves it to the pace.
    `without_keepers`: it goes on with the slots alone. `left_out` are the indexes of Keepers that need not confirm.
    """

    id: Id
    kind: RotationKind
    scope: Scope
    phase: Phase
    started_at: Moment
    actor: Text
    reason: Text
    root: Succession
    record: Succession
    cipher: Succession
    window_s: Counter
    max_rate: Counter
    attempt: Number = 1
    emergency: Emergency | None = None
    left_out: tuple[Annotated[int, Meta(ge=1, le=255)], ...] = ()
    without_keepers: bool = False
    paused: bool = False
    undone: Rotation | None = None
    flipped_at: str = ""
    verified_at: str = ""
    next_keys: tuple[WrappedKey, ...] = ()

    @property
    def is_blocking(self) -> bool:
        """Whether no other lifecycle operation may begin: all the time but in the rollback window."""
        return self.phase is not Phase.VERIFIED


class Event(_Part, frozen=True):
    """Something that became true with the replacement it was written in."""

    sequence: Counter
    at: Moment
    kind: Text
    actor: Text
    detail: dict[str, str]


class Keyring(_Part, frozen=True, omit_defaults=True):
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
    listed = keyring.leaving or keyring.retired or keyring.rotation_due
    plain = not (has_root or checked_in or listed)
    return 1 if plain and all(word is None for word in later_words) else 2


def _check_shards(slot: Slot) -> None:
    shards = slot.shards
    if (slot.kind is SlotKind.SHARDS) != (shards is not None):
        raise FormatError("the keyring is damaged: a slot and its shards do not fit together")
    if shards is not None and shards.threshold > len(shards.digests):
        raise FormatError("the keyring is damaged: a slot needs more shards than there are")
    if shards is not None and len(shards.checked) not in (0, len(shards.digests)):
        raise FormatError("the keyring is damaged: the roster of shards is not that of its slot")
