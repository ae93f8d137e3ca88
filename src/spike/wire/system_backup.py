"""Messages of `/v1/system-backup`: a whole store out of Nexus, and into an empty one, in parts.

A part is a piece of the file and nothing else; put together in order they are the file. So no request and no answer is
large, whoever is slow holds nothing up but himself, and a part that got lost is asked for or sent again.
"""

from __future__ import annotations

from spike.wire.message import ConfidentialMessage, GoInt, Message


class SystemBackupCreateRequest(Message, frozen=True):
    """Begin a backup. `place`: where it will lie, for the history (up to 300 characters); it may be empty."""

    place: str = ""


class SystemBackupCreateAnswer(Message, frozen=True):
    """A backup has begun: of which moment, under which session it is read, and about how large it will be."""

    session: str
    store_id: str
    lineage: str
    epoch: GoInt
    revision: GoInt
    size_bytes: GoInt


class SystemBackupReadRequest(Message, frozen=True):
    """Read a part: the next one, or the one that was read last once more. The first is 0."""

    session: str = ""
    part: GoInt = 0


class SystemBackupReadAnswer(Message, frozen=True):
    """A part of the file; behind the `last` one there is nothing."""

    data: bytes
    last: bool


class SystemRestoreRequest(ConfidentialMessage, frozen=True):
    """Show what a system backup would bring back; `backup` and `manifest` are its key backup and its end.

    `set_aside`: what the store holds now may be kept aside for it. The other fields are those of a restore by
    password; the answer is always a preview, and its `confirm` goes to the call that receives the file.
    """

    session: str = ""
    sealed_password: bytes = b""
    slot_name: str = ""
    anchor: bytes = b""
    backup: bytes = b""
    manifest: bytes = b""
    accept_older_store: bool = False
    set_aside: bool = False


class SystemBackupReceiveRequest(Message, frozen=True):
    """A part of the file of a restore that was previewed: the next one, or the one sent last once more; 0 is first."""

    confirm: str = ""
    part: GoInt = 0
    data: bytes = b""
    last: bool = False


class SystemBackupReceiveAnswer(Message, frozen=True, omit_defaults=True):
    """How much of the file is there, and with the last part that the store is up: `anchor` is its anchor then.

    `aside`: under which name what the store had held is kept. `rotation`: the id of the rotation that follows.
    """

    received_bytes: GoInt
    restored: bool
    aside: str | None = None
    lineage: str | None = None
    anchor: bytes | None = None
    rotation: str | None = None


class RestoreUndoAnswer(Message, frozen=True, omit_defaults=True):
    """What is in force again, as its keyring says, which nobody has authenticated yet; `state` is the vault's.

    `aside`: under which name what had been in force is kept, left out if it was nothing.
    """

    state: str
    store_id: str | None = None
    lineage: str | None = None
    aside: str | None = None
