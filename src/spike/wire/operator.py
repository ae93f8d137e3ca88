"""Messages of Go's operator and bootstrap calls, which deal in Shamir shards.

"Shard" is Go's word for them on the wire. Each is an array of 32 integers, not base64.
"""

from __future__ import annotations

from spike.wire.message import ConfidentialMessage, GoInt, Message, Octet
from spike.wire.own import RestorePreview


class RecoverRequest(Message, frozen=True):
    """Hand out recovery shards. `only_first`: not if that would make others useless. Go sends neither field."""

    only_first: bool = False


class RecoverAnswer(ConfidentialMessage, frozen=True, omit_defaults=True):
    """Recovery shards by index. Go reads `shards` alone; the others name the set and how many of it are needed."""

    shards: dict[GoInt, list[Octet]]
    set_id: str = ""
    threshold: GoInt = 0


class ShardRestoreRequest(ConfidentialMessage, frozen=True):
    """One recovery shard, brought back; `shard` is null when Go sent a nil pointer.

    Go sends `id` and `shard` alone. `set_id` is the set the shard's text names; `anchor`, `backup` and
    `accept_older_store` are those of a restore by password. With `preview` the last shard restores nothing yet:
    the answer shows what would come back, and its `confirm` goes to a restore by password. With `manifest`, `backup` is
    the key backup in a system backup, and `confirm` goes to the call that receives its file.
    """

    id: GoInt = 0
    shard: list[Octet] | None = None
    set_id: str = ""
    anchor: bytes = b""
    backup: bytes = b""
    accept_older_store: bool = False
    preview: bool = False
    manifest: bytes = b""
    set_aside: bool = False


class ShardRestoreAnswer(Message, frozen=True, omit_defaults=True):
    """How far the restore is. What is not Go's is there only for who asked for a preview, or once it is done."""

    collected: GoInt
    remaining: GoInt
    restored: bool
    preview: RestorePreview | None = None
    confirm: str | None = None
    remarks: list[str] | None = None
    anchor: bytes | None = None


class ShardCheckRequest(Message, frozen=True):
    """Check a recovery shard in by its digest; the shard itself is never sent.

    `set_id` is the set that its text names, or empty. With an empty `digest` nothing is checked: the answer says of
    which store and set a digest has to be.
    """

    id: GoInt = 0
    set_id: str = ""
    digest: str = ""


class ShardCheckAnswer(Message, frozen=True):
    """The set in force; `checked` once a shard was the one that was handed out, and its check-in is noted."""

    checked: bool
    store_id: str
    set_id: str
    shares: GoInt
    threshold: GoInt


class BootstrapVerifyRequest(Message, frozen=True):
    """What Go's bootstrap sends. Always refused: our root key never opens a payload."""

    nonce: bytes = b""
    ciphertext: bytes = b""
