"""What to do about one Keeper, decided from what it says of itself. Pure.

A Keeper's word is believed in one thing only: the proof that it holds a share, made over a nonce of ours. Whatever
else it says can at worst lead to its being left alone and named.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import NamedTuple, assert_never

from spike.lifecycle.witness import Claim


class KeeperState(StrEnum):
    """How a Keeper is; these words stand in `spike status`."""

    CURRENT = "current"
    EMPTY = "empty"
    OLD = "old"
    FOREIGN = "foreign"
    SUSPECT = "suspect"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"


class Step(Enum):
    """What Nexus does next with this Keeper."""

    NOTHING = "nothing"
    COMMIT = "commit"
    SUPPLY = "stage and commit"
    ERASE_STAGED = "erase what is staged"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the Keeper with this index has to hold: the share set in force, under the keyring's epoch.

    `staged_set_id` is the set a refresh is just bringing in, or empty.
    """

    store_id: str
    lineage: str
    epoch: int
    set_id: str
    index: int
    staged_set_id: str


@dataclass(frozen=True, slots=True)
class Held:
    """What a Keeper says of one of its places. `proven`: it has shown that it holds our share with our index."""

    claim: Claim
    index: int
    proven: bool


class Finding(NamedTuple):
    """How the Keeper is, what is done about it, and one sentence more."""

    state: KeeperState
    step: Step
    detail: str


def judge(wanted: Wanted, committed: Held | None, staged: Held | None) -> Finding:
    """Return how a Keeper that answered is, and the next step with it.

    A share that comes back to an empty Keeper is its own one; another polynomial is a refresh's matter.
    """
    match _standing(wanted, committed):
        case Standing.EMPTY:
            return Finding(KeeperState.EMPTY, _supply(wanted, staged), "it holds no share")
        case Standing.OURS:
            return Finding(KeeperState.CURRENT, _cleared(wanted, staged), "")
        case Standing.UNPROVEN:
            why = "it names its share and cannot prove that it holds it"
            return Finding(KeeperState.SUSPECT, Step.SUPPLY, why)
        case Standing.OLD:
            why = "it holds a share of a set that was replaced"
            return Finding(KeeperState.OLD, _supply(wanted, staged), why)
        case Standing.AHEAD:
            why = f"it says that it holds a share of epoch {_epoch(committed)}, and this store is at {wanted.epoch}"
            return Finding(KeeperState.SUSPECT, Step.NOTHING, why)
        case Standing.FOREIGN:
            why = f"it holds a share of {_owner(wanted, committed)}: restart it to empty it"
            return Finding(KeeperState.FOREIGN, Step.NOTHING, why)
        case standing:
            assert_never(standing)


def is_past(generation: int, committed: Held | None) -> bool:
    """Return whether a Keeper gives no share of another root key than this generation any more.

    Only then its keeping an anchor counts for the acknowledgement of a write: an older store, whose root key cannot
    confirm that anchor, must not get its own root key from this Keeper.
    """
    return committed is None or committed.claim.generation == generation


class Standing(Enum):
    """How a Keeper's committed place stands to what is wanted."""

    EMPTY = "empty"
    OURS = "ours"
    UNPROVEN = "unproven"
    OLD = "old"
    AHEAD = "ahead"
    FOREIGN = "foreign"


def contradicts(wanted: Wanted, claim: Claim) -> bool:
    """Return whether a claim says that this store is not the living one: another store, lineage or a later epoch."""
    return (claim.store_id, claim.lineage) != (
        wanted.store_id,
        wanted.lineage,
    ) or claim.epoch > wanted.epoch


def _standing(wanted: Wanted, committed: Held | None) -> Standing:
    if committed is None:
        return Standing.EMPTY
    claim = committed.claim
    if (claim.store_id, claim.lineage) != (wanted.store_id, wanted.lineage):
        return Standing.FOREIGN
    if claim.set_id == wanted.set_id:
        good = committed.proven and committed.index == wanted.index
        return Standing.OURS if good else Standing.UNPROVEN
    return Standing.OLD if claim.epoch < wanted.epoch else Standing.AHEAD


def _supply(wanted: Wanted, staged: Held | None) -> Step:
    """Commit what is staged already, as after a kill between the keyring and the Keepers; else bring it again."""
    ready = staged is not None and staged.proven and staged.claim.set_id == wanted.set_id
    return Step.COMMIT if ready else Step.SUPPLY


def _cleared(wanted: Wanted, staged: Held | None) -> Step:
    leftover = staged is not None and staged.claim.set_id != wanted.staged_set_id
    return Step.ERASE_STAGED if leftover else Step.NOTHING


def _epoch(held: Held | None) -> int:
    return 0 if held is None else held.claim.epoch


def _owner(wanted: Wanted, held: Held | None) -> str:
    if held is None or held.claim.store_id != wanted.store_id:
        return "another store"
    return f"lineage {held.claim.lineage} of this store"
