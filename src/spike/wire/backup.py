"""Messages of `/v1/backup` and `/v1/backup/slot`: who opens the key backup, whether its copies are good.

A password never stands in a request: it comes sealed to the one-time key of a session, as for an init.
"""

from __future__ import annotations

import msgspec

from spike.wire.message import ConfidentialMessage, GoInt, GoTime, Message


class BackupSlot(Message, frozen=True, omit_defaults=True):
    """One slot. `state`: usable, or renew (only a new password makes it usable again).

    `lastVerifiedAt` is when it was last opened, `lastVerifiedBy` by whom (a SPIFFE ID; empty where that was not kept),
    `dueAt` when that has to be done again; only a password slot is due.
    """

    name: str
    kind: str
    state: str
    created_at: GoTime
    last_verified_at: GoTime
    due_at: GoTime | None = None
    overdue: bool = False
    last_verified_by: str = ""


class RetiredPassword(Message, frozen=True):
    """What still opens root-key generation `generation` from copies of before `at`: an old password or shards."""

    slot: str
    kind: str
    generation: GoInt
    at: GoTime


class SlotListAnswer(Message, frozen=True):
    """Every slot, and what was retired and still opens something.

    `passwordNeeded`: to whoever asked, a change of slots takes an existing slot's password too.
    """

    slots: list[BackupSlot]
    retired: list[RetiredPassword]
    password_needed: bool


class SlotPasswordRequest(ConfidentialMessage, frozen=True):
    """Add a slot, or give one a new password, in `session` and `sealedPassword`.

    `existingSlot`, `existingSession` and `existingPassword` show an existing slot's password; without the recover role
    that is needed. `noRotate`: the root key need not be replaced, since nobody else knew the old password.
    """

    slot: str = ""
    session: str = ""
    sealed_password: bytes = b""
    existing_slot: str = ""
    existing_session: str = ""
    existing_password: bytes = b""
    no_rotate: bool = False


class SlotRemoveRequest(ConfidentialMessage, frozen=True):
    """Remove a slot. The other fields are those of `SlotPasswordRequest`."""

    slot: str = ""
    existing_slot: str = ""
    existing_session: str = ""
    existing_password: bytes = b""
    no_rotate: bool = False


class BackupCopy(Message, frozen=True, omit_defaults=True):
    """One copy of the keyring and how it is: `place` is a path, or empty for the store's own.

    `state`: good; missing, unreadable, foreign, pending, older, other, planted, slot, anchor or unopened. `detail` says
    it in words.
    `rewritten`: it was written again since.
    """

    place: str
    state: str
    detail: str = ""
    rewritten: bool = False


class SlotAnswer(Message, frozen=True, omit_defaults=True):
    """A slot was added, changed or removed in `epoch`; `copies` are how the backup's copies are since.

    `rotation` is the id of the rotation that has begun because of it. `rotationDue` says why one should follow that
    has not begun.
    """

    slot: str
    epoch: GoInt
    anchor: bytes
    copies: list[BackupCopy] = msgspec.field(default_factory=list)
    rotation: str | None = None
    rotation_due: str = ""


class BackupVerifyRequest(ConfidentialMessage, frozen=True):
    """Look at every copy; with a password in `session` and `sealedPassword` also open each of them by slot `slot`."""

    slot: str = ""
    session: str = ""
    sealed_password: bytes = b""


class BackupVerifyAnswer(Message, frozen=True, omit_defaults=True):
    """How each copy is. `slot` was opened by its password, where one was given, and is due again at `dueAt`."""

    at: GoTime
    good: bool
    copies: list[BackupCopy]
    slot: str | None = None
    due_at: GoTime | None = None


class BackupExportRequest(Message, frozen=True):
    """Give a key backup. `place`: where it will lie, for the history (up to 300 characters); it may be empty."""

    place: str = ""


class BackupExportAnswer(Message, frozen=True):
    """A key backup of the present keyring, whole."""

    store_id: str
    lineage: str
    generation: GoInt
    epoch: GoInt
    revision: GoInt
    backup: bytes
