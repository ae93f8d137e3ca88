"""Messages of our own calls: init, status, the password's way and restore.

They keep the conventions of Go's calls and are in no Go client. A password never stands in one of
them: it comes sealed to the one-time public key of the session that
`/v1/operator/password?action=begin` opened.
"""

from __future__ import annotations

from typing import Final

import msgspec

from spike.wire.backup import BackupCopy, RetiredPassword
from spike.wire.message import ConfidentialMessage, GoInt, GoTime, Message

# What a sealed password is bound to (HPKE's `info`): it is nothing else.
PASSWORD_INFO: Final = b"spike/password/v1"


class PasswordBeginAnswer(Message, frozen=True):
    """A session for one password: where to seal it to. Good for one call."""

    session: str
    public_key: bytes


class BackupPlace(Message, frozen=True):
    """One place where a copy of the key backup lies, and what was found there."""

    place: str
    state: str
    detail: str = ""


class RefusalAnswer(Message, frozen=True):
    """The body of a refused key operation: `err` is `refused_` and the reason's name.

    Only our own calls say why: who may make them is an administrator, and has to know what to do
    next.
    """

    err: str
    message: str
    next_step: str = ""


class InitRequest(ConfidentialMessage, frozen=True):
    """Make the first root key, with one backup slot for this password."""

    session: str = ""
    sealed_password: bytes = b""
    slot_name: str = ""


class InitAnswer(Message, frozen=True):
    """What was made. `store_id` and `lineage` are hex; Pilot keeps `anchor` to compare later."""

    store_id: str
    lineage: str
    generation: GoInt
    epoch: GoInt
    slot: str
    anchor: bytes
    backup_places: list[BackupPlace] = msgspec.field(default_factory=list)


class PasswordRestoreRequest(ConfidentialMessage, frozen=True):
    """Bring the root key back from the store's own backup.

    Without `confirm` the answer is a preview only; a request with `confirm`, the token of that
    preview, and nothing else completes it. `accept_older_store`: go on though somebody says that
    the store had been further; the preview tells who.
    """

    session: str = ""
    sealed_password: bytes = b""
    slot_name: str = ""
    anchor: bytes = b""
    confirm: str = ""
    accept_older_store: bool = False


class FileRestoreRequest(ConfidentialMessage, frozen=True):
    """The same from a backup file, given whole in `backup`."""

    session: str = ""
    sealed_password: bytes = b""
    slot_name: str = ""
    anchor: bytes = b""
    confirm: str = ""
    backup: bytes = b""
    accept_older_store: bool = False


class RestorePreview(Message, frozen=True):
    """What a restore would bring back, for a person to compare before it goes on.

    `objections` say who had seen the store further, where that was accepted.
    """

    store_id: str
    lineage: str
    generation: GoInt
    epoch: GoInt
    revision: GoInt
    sealed_at: GoTime
    slot: str
    audit_head: str = ""
    replaced_at: GoTime = GoTime("")
    objections: list[str] = msgspec.field(default_factory=list)


class RestoreAnswer(Message, frozen=True, omit_defaults=True):
    """Whether the root key is back, with what was found; `anchor` once it is.

    `confirm` of a preview is the token that, sent back alone, completes the restore. `remarks` say
    what was ignored on the way, such as an anchor that is not authentic.
    """

    restored: bool
    preview: RestorePreview | None = None
    confirm: str | None = None
    remarks: list[str] | None = None
    anchor: bytes | None = None


class StatusSlot(Message, frozen=True):
    """One backup slot. `last_verified_at` is null while nobody has opened it; from `due_at` on that is overdue.

    `last_verified_by` is the SPIFFE ID of who did; empty where that was not kept.
    """

    name: str
    kind: str
    state: str
    created_at: GoTime
    last_verified_at: GoTime | None = None
    due_at: GoTime | None = None
    overdue: bool = False
    last_verified_by: str = ""


class StatusMeasure(Message, frozen=True):
    """One measure that protects the memory of the keys, and whether it is in force."""

    name: str
    applied: bool
    detail: str = ""


class StatusStorage(Message, frozen=True):
    """The store's engine and its health. `records` counts by kind."""

    engine: str
    healthy: bool
    detail: str = ""
    records: dict[str, GoInt] = msgspec.field(default_factory=dict)


class StatusKeeper(Message, frozen=True):
    """One Keeper as the last look at it was.

    `state`: current (it has proven that it holds its share), empty, old, foreign, suspect, unreachable, or unknown
    before the first look. `identity` is the pinned SPIFFE ID, or empty.
    """

    index: GoInt
    url: str
    identity: str
    state: str
    detail: str = ""


class StatusVerification(Message, frozen=True, omit_defaults=True):
    """The last verification since Nexus has started, or the one that runs: see `spike.wire.key.Verification`."""

    state: str
    started_at: GoTime
    started_by: str
    scanned: GoInt
    good: GoInt
    bad: GoInt
    vanished: GoInt
    ended_at: GoTime | None = None
    detail: str = ""


class StatusRotation(Message, frozen=True, omit_defaults=True):
    """A rotation or rollback that is not over yet: see `spike.wire.rotation.Rotation`."""

    id: str
    kind: str
    phase: str
    started_at: GoTime
    started_by: str
    paused: bool = False
    fault: str = ""
    scanned: GoInt = 0
    expected: GoInt = 0
    replaces: str = ""


class KeeperRefreshAnswer(Message, frozen=True):
    """The Keepers have new shares of the same root key since `epoch`; `keepers` as right after it."""

    epoch: GoInt
    keepers: list[StatusKeeper]


class Rehearsal(Message, frozen=True):
    """How a rehearsal ended: whether the Keepers would bring the root key back, tried out.

    `outcome`: succeeded, failed, or interrupted where the keys were changed again and again. `right` of `members`
    shares were the ones that were dealt; `choices` of `threshold` shares each gave the root key, which opened `keys`
    wrapped keys and one record of each of `records` kinds. `problems` name what is wrong, also where it succeeded.
    """

    outcome: str
    at: GoTime
    duration_ms: GoInt
    generation: GoInt
    threshold: GoInt
    members: GoInt
    right: GoInt
    margin: GoInt
    choices: GoInt
    keys: GoInt
    records: GoInt
    problems: list[str]


class KeeperReshapeRequest(Message, frozen=True):
    """Let these Keepers hold the root key: `shares` of them, `threshold` of which bring it back.

    `peers` are written as in SPIKE_NEXUS_KEEPER_PEERS, in the order of their shares; empty, the present Keepers stay.
    """

    shares: GoInt = 0
    threshold: GoInt = 0
    peers: list[str] = msgspec.field(default_factory=list)


class KeeperReshapeAnswer(Message, frozen=True):
    """The Keepers as right after it. `changed` is false where the keyring named just these already.

    `setting` are the assignments for the environment of Nexus; `leaving` the addresses of Keepers that are no members
    any more and were not seen to erase their share.
    """

    epoch: GoInt
    changed: bool
    threshold: GoInt
    keepers: list[StatusKeeper]
    setting: list[str]
    leaving: list[str]


class StatusBackup(Message, frozen=True, omit_defaults=True):
    """The copies of the key backup at the last look, and what still opens with a password that was changed.

    `verified_at` is null before the first look since Nexus has started.
    """

    copies: list[BackupCopy] = msgspec.field(default_factory=list)
    retired: list[RetiredPassword] = msgspec.field(default_factory=list)
    verified_at: GoTime | None = None


class DrillDue(Message, frozen=True, omit_defaults=True):
    """When the next one is due; `overdue` also after one that did not succeed. `last_at` is of the last one."""

    at: GoTime
    overdue: bool
    last_at: GoTime | None = None
    last_outcome: str = ""


class StatusShard(Message, frozen=True, omit_defaults=True):
    """One recovery shard, and when its holder last showed it (`spike operator check-shard`)."""

    index: GoInt
    checked_at: GoTime | None = None


class StatusShards(Message, frozen=True):
    """The roster of the recovery shards in force; any `threshold` of them bring the root key back."""

    set_id: str
    made_at: GoTime
    threshold: GoInt
    shards: list[StatusShard]


class StatusOperation(Message, frozen=True):
    """The lifecycle operation in progress: another one cannot begin."""

    kind: str
    id: str
    phase: str
    started_at: GoTime
    actor: str


class StatusAnswer(Message, frozen=True, omit_defaults=True):
    """The state of Nexus; `stops` says why nothing is written. Who is not superuser gets `ready` alone.

    `keeper_margin` is how many more Keepers may be lost: those that are current, less the threshold. `recovery` says
    what the root key waits for while it is not there. `remarks` are what an operator should look into.
    """

    ready: bool
    state: str | None = None
    version: str | None = None
    store_id: str | None = None
    lineage: str | None = None
    epoch: GoInt | None = None
    revision: GoInt | None = None
    root_generation: GoInt | None = None
    slots: list[StatusSlot] | None = None
    memory: list[StatusMeasure] | None = None
    stops: list[str] | None = None
    storage: StatusStorage | None = None
    places: list[BackupPlace] | None = None
    keepers: list[StatusKeeper] | None = None
    keeper_threshold: GoInt | None = None
    keeper_margin: GoInt | None = None
    recovery: str | None = None
    remarks: list[str] | None = None
    verification: StatusVerification | None = None
    rehearsal: Rehearsal | None = None
    drill: DrillDue | None = None
    person_drill: DrillDue | None = None
    shards: StatusShards | None = None
    operation: StatusOperation | None = None
    backup: StatusBackup | None = None
    rotation: StatusRotation | None = None
    anchor: bytes | None = None
