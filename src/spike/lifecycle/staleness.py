"""What says that a store is an old copy, or not the living one: anchors, Keepers, its own fence. Pure.

An anchor that is valid under the root key proves it; a Keeper's claim and the fence are somebody's word alone. A
restore with a person at hand stops at any of them, because the person can tell a liar from a rollback and Nexus
cannot. When the person accepts the older store, what follows is put above all that was seen (`above`), so that the
same anchors hold against it from then on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from spike.lifecycle.anchor import Anchor
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.witness import Claim

EPOCH_LIMIT: Final = 1 << 62
"""No store comes near it. A liar must not use up the numbers a keyring's epoch can have."""

_ACCEPT: Final = "or, should it be lost, go on with this one: --accept-older-store"
_NEWEST: Final = f"put the newest copy of the store back and try again; {_ACCEPT}"
_LIVING: Final = f"find out which copy of the store is the living one; {_ACCEPT}"


class Reached(NamedTuple):
    """How far a store had come. 0 where it was not said."""

    epoch: int
    revision: int
    access_generation: int


class Objection(NamedTuple):
    """Why a copy of a store should not be brought back, and how far the store had been."""

    reason: Reason
    message: str
    next_step: str
    reached: Reached

    def refusal(self) -> RefusalError:
        """Return the refusal that says so."""
        return RefusalError(self.reason, self.message, self.next_step)


def by_anchor(
    confirmed: Keyring, access_generation: int, seen: Anchor, keeper: str
) -> Objection | None:
    """Return what a valid anchor says against a keyring and the access list beside it; `keeper` is who had it."""
    reached = Reached(seen.epoch, seen.revision, seen.access_generation)
    if seen.lineage != confirmed.lineage:
        message = (
            f"{keeper} names lineage {seen.lineage} of this store, at epoch {seen.epoch}; this copy is of lineage "
            f"{confirmed.lineage}, at epoch {confirmed.epoch}{_older(confirmed.epoch, seen.epoch)}"
        )
        return Objection(Reason.FOREIGN, message, _LIVING, reached)
    if seen.is_beyond(confirmed.age, access_generation):
        return _stale((*confirmed.age, access_generation), reached, keeper)
    return None


def by_claim(confirmed: Keyring, keeper: str, claim: Claim) -> Objection | None:
    """Return what a Keeper's word says against a keyring. It may be a lie, so it is told as the Keeper's."""
    reached = Reached(claim.epoch if claim.epoch <= EPOCH_LIMIT else 0, 0, 0)
    if claim.store_id != confirmed.store_id:
        message = (
            f"{keeper} holds a share of another store, {claim.store_id}; this is {confirmed.store_id}: "
            "which is the older one cannot be told"
        )
        step = f"see that store and Keepers belong together, or restart the Keepers; {_ACCEPT}"
        return Objection(Reason.FOREIGN, message, step, reached)
    if claim.lineage != confirmed.lineage:
        message = (
            f"{keeper} holds a share of lineage {claim.lineage} of this store, at epoch {claim.epoch}; this copy is of "
            f"lineage {confirmed.lineage}, at epoch {confirmed.epoch}{_older(confirmed.epoch, claim.epoch)}"
        )
        return Objection(Reason.FOREIGN, message, _LIVING, reached)
    if claim.generation > confirmed.active_root.number:
        message = (
            f"the store is an old copy: its root key is of generation {confirmed.active_root.number}, and {keeper} "
            f"says that it holds a share of generation {claim.generation}"
        )
        return Objection(Reason.STALE_STORE, message, _NEWEST, reached)
    if claim.epoch > confirmed.epoch:
        return _stale((confirmed.epoch,), (claim.epoch,), f"{keeper} says that it", reached)
    return None


def by_fence(confirmed: Keyring, fence: int) -> Objection | None:
    """Return what the store's own fence says against a keyring.

    It is the store's word alone: a lower one proves nothing, a higher one would only let the restore fail half-way.
    """
    if fence <= confirmed.epoch:
        return None
    return _stale((confirmed.epoch,), (fence,), "the store itself", Reached(fence, 0, 0))


def by_newer_backup(refusal: RefusalError) -> Objection:
    """Return the objection of a key backup that is newer than the store: the backup's keyring is what comes back."""
    return Objection(refusal.reason, refusal.message, _NEWEST, Reached(0, 0, 0))


def above(confirmed: Keyring, objections: Iterable[Objection]) -> Reached:
    """Return what the store has to be taken above: the highest of each number that anybody had seen.

    Raises:
        RefusalError: DAMAGED, the store's fence or an anchor is at an epoch that leaves none to go on with.
    """
    every = [
        Reached(confirmed.epoch, confirmed.revision, 0),
        *(each.reached for each in objections),
    ]
    highest = Reached(
        max(each.epoch for each in every),
        max(each.revision for each in every),
        max(each.access_generation for each in every),
    )
    if max(highest) > EPOCH_LIMIT:
        raise RefusalError(
            Reason.DAMAGED,
            "the store had been at an epoch that no store reaches: somebody has set it",
            "put another copy of the store back",
        )
    return highest


def _older(this: int, other: int) -> str:
    if this == other:
        return ": which is the older one cannot be told"
    return ": this copy is the older one" if this < other else ": this copy is the newer one"


def _stale(
    present: tuple[int, ...], seen: tuple[int, ...], witness: str, reached: Reached | None = None
) -> Objection:
    return Objection(
        Reason.STALE_STORE,
        stale_message(present, seen, witness),
        _NEWEST,
        reached or Reached(*seen),
    )


def stale_message(present: tuple[int, ...], seen: tuple[int, ...], witness: str) -> str:
    """Say that a store is at less than was seen of it: epoch, revision, access generation, as many as are known."""
    names = ("epoch", "revision", "access generation")
    told = ", ".join(f"{name} {value}" for name, value in zip(names, present, strict=False))
    wanted = ", ".join(f"{name} {value}" for name, value in zip(names, seen, strict=False))
    return f"the store is an old copy: it is at {told}, and {witness} had seen {wanted}"
