"""Messages of Go's operator and bootstrap calls, which deal in Shamir shards.

"Shard" is Go's word for them on the wire. Each is an array of 32 integers, not base64.
"""

from __future__ import annotations

from spike.wire.message import ConfidentialMessage, GoInt, Message, Octet


class RecoverAnswer(ConfidentialMessage, frozen=True):
    """Recovery shards by index."""

    shards: dict[GoInt, list[Octet]]


class ShardRestoreRequest(ConfidentialMessage, frozen=True):
    """One recovery shard, brought back; `shard` is null when Go sent a nil pointer."""

    id: GoInt = 0
    shard: list[Octet] | None = None


class ShardRestoreAnswer(Message, frozen=True):
    """How far the restore is."""

    collected: GoInt
    remaining: GoInt
    restored: bool


class BootstrapVerifyRequest(Message, frozen=True):
    """What Go's bootstrap sends. Always refused: our root key never opens a payload."""

    nonce: bytes = b""
    ciphertext: bytes = b""
