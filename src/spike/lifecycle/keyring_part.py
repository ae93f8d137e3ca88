"""What the keyring is made of: generations, wrapped keys, slots, share sets, what is in progress, events.

Values alone. What a document as a whole must be like is in spike.lifecycle.keyring.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

from spike.lifecycle.state import State, Transition, state_of

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


class KeyringPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every part of the keyring has in common: immutable, and strict about its fields."""


class KeyPurpose(StrEnum):
    """What a key below the root key is for; one purpose a key."""

    RECORD = "record"
    CIPHER = "cipher"
    AUDIT = "audit"
    BACKUP_AUTH = "backup-auth"
    ROOT = "root"
    """A root-key generation that can still be gone back to, kept under the one that took its place."""


class RootGeneration(KeyringPart, frozen=True):
    """One generation of the root key; `check` confirms it and shows nothing of it."""

    number: Number
    check: Digest
    history: History

    @property
    def state(self) -> State:
        """The present state."""
        return state_of(self.history)


class WrappedKey(KeyringPart, frozen=True):
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


class SealedRoot(KeyringPart, frozen=True):
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


class RecoveryShards(KeyringPart, frozen=True, omit_defaults=True):
    """The recovery shards of a slot: how many open it, and a digest of each, that of index 1 first.

    `checked` are the moments at which the holder of each last showed it, empty for never; none while nobody has.
    """

    threshold: Annotated[int, Meta(ge=1, le=255)]
    digests: Annotated[tuple[Digest, ...], Meta(min_length=1, max_length=255)]
    checked: Annotated[tuple[MaybeMoment, ...], Meta(max_length=255)] = ()


class Slot(KeyringPart, frozen=True, omit_defaults=True):
    """One way to open the backup of the root key.

    `argon2` is a PHC string without salt; both are empty where no password opens it. `shards` is there for kind
    `shards` alone, and its absence changes no byte of a keyring without it. `verified_by` is who opened it at
    `verified_at`; empty while nobody has since it was made, or where that was not kept.
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
    verified_by: Text = ""


class RetiredSlot(KeyringPart, frozen=True):
    """What a slot was opened with before it was changed or removed.

    Copies of the backup that were made until then still open with it, and give root-key generation `generation`; that
    ends when the generation is destroyed.
    """

    name: Text
    kind: SlotKind
    generation: Number
    at: Moment


class ShareMember(KeyringPart, frozen=True):
    """The share with one index: the pinned SPIFFE ID of its Keeper and the digest of the share."""

    index: Annotated[int, Meta(ge=1, le=255)]
    identity: Text
    url: Text
    digest: Digest


class ShareSet(KeyringPart, frozen=True):
    """One split of one root-key generation."""

    id: Id
    generation: Number
    threshold: Annotated[int, Meta(ge=1, le=255)]
    staged: bool
    members: tuple[ShareMember, ...]


class LeavingKeeper(KeyringPart, frozen=True, omit_defaults=True):
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


class ProofMark(KeyringPart, frozen=True):
    """How the last proof of one kind ended: `succeeded`, `failed` or `timed-out`."""

    at: Moment
    outcome: Annotated[str, Meta(max_length=20)]


class Proof(KeyringPart, frozen=True, omit_defaults=True):
    """When it was last proven that a recovery would work: what must survive a restart of that. See lifecycle/proof.py.

    `drill` is the last one by itself, `person` the last with a person's password. `rehearsal` is there only while the
    last one did not succeed: one that does is done again after each start.
    """

    drill: ProofMark | None = None
    person: ProofMark | None = None
    rehearsal: ProofMark | None = None


class LifecycleOperation(KeyringPart, frozen=True):
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


class Emergency(KeyringPart, frozen=True):
    """Why a rotation could not wait: what had leaked (`root`, `shards`, `slot:NAME`, `keeper:INDEX`)."""

    leaked: Annotated[tuple[Text, ...], Meta(min_length=1)]


class Succession(KeyringPart, frozen=True):
    """The generation that a key had and the one that takes its place; the same number where it stays."""

    before: Number
    after: Number


class Rotation(KeyringPart, frozen=True, omit_defaults=True):
    """A rotation that is not finalized yet. Up to VERIFIED it is the lifecycle operation in progress.

    `next_keys` are all keys as wrapped under the root key that is being brought in; empty from the flip on.
    `undone` is the rotation that a rollback takes back, or that an emergency takes the place of, as it was: it goes on
    where this one is dropped. From the flip on it is over, and here by name. `max_rate` is in records a second;
    0 leaves it to the pace.
    `paused_why`: what a person has to look into before it is resumed; empty where somebody paused it.
    `without_keepers`: it goes on with the slots alone. `left_out` are the indexes of Keepers that need not confirm.
    `forced`: it goes on with no Keeper to spare, also where it is prepared again.
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
    forced: bool = False
    paused: bool = False
    paused_why: Annotated[str, Meta(max_length=500)] = ""
    undone: Rotation | None = None
    flipped_at: str = ""
    verified_at: str = ""
    next_keys: tuple[WrappedKey, ...] = ()

    @property
    def is_blocking(self) -> bool:
        """Whether no other lifecycle operation may begin: all the time but in the rollback window."""
        return self.phase is not Phase.VERIFIED


class Event(KeyringPart, frozen=True):
    """Something that became true with the replacement it was written in."""

    sequence: Counter
    at: Moment
    kind: Text
    actor: Text
    detail: dict[str, str]
