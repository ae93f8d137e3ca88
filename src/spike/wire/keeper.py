"""Messages and calls of a Keeper: two of Go's, and ours on the same path with an action.

"Shard" is Go's word on the wire for a share; each is an array of 32 integers, not base64. Identities of store,
lineage and set are 128 random bits in lower-case hexadecimal.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from spike.wire.call import AnyCall, Call, CallName
from spike.wire.message import ConfidentialMessage, Empty, GoInt, Message, Octet

NONCE_BYTES: Final = 32
ANCHOR_LIMIT_BYTES: Final = 4096
BODY_LIMIT_BYTES: Final = 64 * 1024
"""The most that a request to a Keeper or its answer may have."""

_Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
_Tag = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Shard = Annotated[list[Octet], msgspec.Meta(min_length=32, max_length=32)]
_Number = Annotated[int, msgspec.Meta(ge=1, le=0xFFFF_FFFF)]
_Index = Annotated[int, msgspec.Meta(ge=1, le=255)]
_Epoch = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class Place(StrEnum):
    """Where a Keeper has a share."""

    COMMITTED = "committed"
    STAGED = "staged"


class KeeperReason(StrEnum):
    """Why a Keeper refuses; it travels as `refused_<name>`."""

    FOREIGN = "foreign"
    OLD = "old"
    NOT_STAGED = "not_staged"

    @property
    def meaning(self) -> str:
        """One sentence of it."""
        match self:
            case KeeperReason.FOREIGN:
                return (
                    "it holds a share of another store or lineage; restart the Keeper to empty it"
                )
            case KeeperReason.OLD:
                return "it holds a share of the same or a later epoch"
            case KeeperReason.NOT_STAGED:
                return "no share of this set is staged on it"


class ContributeRequest(ConfidentialMessage, frozen=True):
    """A share without set and generation; `shard` is null when Go sent a nil pointer."""

    shard: list[Octet] | None = None


class ShardAnswer(ConfidentialMessage, frozen=True, rename={"err": "Err"}):
    """The committed share's bytes, or else the contributed ones; never a null with status 200."""

    shard: list[Octet] | None
    err: str = ""


class StageRequest(ConfidentialMessage, frozen=True):
    """A share for the staged place; `tag` is its MAC under the root key, in hexadecimal."""

    store_id: str = ""
    lineage: str = ""
    set_id: str = ""
    generation: GoInt = 0
    index: GoInt = 0
    threshold: GoInt = 0
    shard: list[Octet] | None = None
    tag: str = ""


class CommitRequest(Message, frozen=True):
    """Move the staged share of a set to the committed place."""

    store_id: str = ""
    lineage: str = ""
    set_id: str = ""
    epoch: GoInt = 0


class SetRequest(Message, frozen=True):
    """Name a set: to erase its share, or to get it."""

    set_id: str = ""


class KeeperStatusRequest(Message, frozen=True):
    """Ask what is held, with proofs over 32 fresh bytes; a newer `anchor` is kept on the way."""

    nonce: bytes = b""
    anchor: bytes | None = None


class HeldLabel(Message, frozen=True):
    """What a share is of. `epoch` is 0 while it is staged."""

    store_id: _Id
    lineage: _Id
    set_id: _Id
    generation: _Number
    index: _Index
    threshold: _Index
    epoch: _Epoch


class Holding(HeldLabel, frozen=True):
    """A share as it is held; `proof` shows that its bytes are there without showing them."""

    proof: _Tag


class ShareAnswer(ConfidentialMessage, HeldLabel, frozen=True):
    """A share as it was staged, and where it is now."""

    place: Place
    shard: _Shard
    tag: _Tag


class KeeperStatusAnswer(Message, frozen=True):
    """What a Keeper holds; `anchor` is the one it has after this call."""

    committed: Holding | None
    staged: Holding | None
    anchor: bytes | None
    version: str


class KeeperRefusalAnswer(Message, frozen=True):
    """The body of a refusal: `err` is `refused_` and the reason's name, `held` what stands in the way."""

    err: str
    message: str
    held: HeldLabel | None = None


_SHARD: Final = "/v1/store/shard"

CONTRIBUTE: Final = Call(
    CallName("keeper contribute"),
    "/v1/store/contribute",
    "",
    ContributeRequest,
    Empty,
    needs_root_key=False,
)
SHARD: Final = Call(CallName("keeper shard"), _SHARD, "", Empty, ShardAnswer, needs_root_key=False)
STAGE: Final = Call(
    CallName("keeper stage"), _SHARD, "stage", StageRequest, Empty, needs_root_key=False
)
COMMIT: Final = Call(
    CallName("keeper commit"), _SHARD, "commit", CommitRequest, Empty, needs_root_key=False
)
ERASE: Final = Call(
    CallName("keeper erase"), _SHARD, "erase", SetRequest, Empty, needs_root_key=False
)
GET: Final = Call(
    CallName("keeper get"), _SHARD, "get", SetRequest, ShareAnswer, needs_root_key=False
)
STATUS: Final = Call(
    CallName("keeper status"),
    _SHARD,
    "status",
    KeeperStatusRequest,
    KeeperStatusAnswer,
    needs_root_key=False,
)

KEEPER_CALLS: Final[tuple[AnyCall, ...]] = (
    CONTRIBUTE,
    SHARD,
    STAGE,
    COMMIT,
    ERASE,
    GET,
    STATUS,
)

_BY_TARGET: Final = {(call.path, call.action): call for call in KEEPER_CALLS}


def keeper_call_at(path: str, action: str) -> AnyCall | None:
    """Return a Keeper's call at this exact path and action; None where there is none."""
    return _BY_TARGET.get((path, action))
