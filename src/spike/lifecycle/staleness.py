"""What says that a store is an old copy, or not the living one: anchors, Keepers, its own fence. Pure.

An anchor that a root key at hand confirms proves it. One of a generation that this copy does not know (see
spike.lifecycle.anchor), a Keeper's claim and the fence are somebody's word alone. A restore with a person at hand stops
at any of them, because the person can tell a liar from a rollback and Nexus cannot. When the person accepts the older
store, what follows is put above all that was seen (`above`), so that the same anchors hold against it from then on.

A number that nobody has proven is followed for LEAP_LIMIT and no further: whoever could name any number could use up
those that a keyring can have, and no copy could ever be brought back again. What is followed stands in the message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from spike.lifecycle.anchor import Anchor, Weighed, could_follow
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.witness import Claim

LEAP_LIMIT: Final = 1 << 32
"""How many epochs beyond what is proven somebody's word is followed: no store grows by as many, and a liar who is
accepted again and again does not come near the end of the numbers, 2^63.
"""

_ACCEPT: Final = "or, should it be lost, go on with this one: --accept-older-store"
_NEWEST: Final = f"put the newest copy of the store back and try again; {_ACCEPT}"
_LIVING: Final = f"find out which copy of the store is the living one; {_ACCEPT}"
_WRITTEN: Final = (
    "restore from the newest key backup (--backup FILE), or put another copy of the store back"
)


class Reached(NamedTuple):
    """How far a store had come. 0 where it was not said."""

    epoch: int
    revision: int
    access_generation: int


_NOTHING: Final = Reached(0, 0, 0)


class Objection(NamedTuple):
    """Why a copy of a store should not be brought back, and how far the store had been.

    `reached` holds what is followed once a person has accepted it. `proven`: it is authenticated.
    """

    reason: Reason
    message: str
    next_step: str
    reached: Reached
    proven: bool = False

    def refusal(self) -> RefusalError:
        """Return the refusal that says so."""
        return RefusalError(self.reason, self.message, self.next_step)


def by_weighed(
    confirmed: Keyring, access_generation: int, weighed: Weighed, keeper: str
) -> Objection | None:
    """Return what one anchor that was weighed says against a keyring and the access list beside it."""
    told = [by_anchor(confirmed, access_generation, seen, keeper) for seen in weighed.valid]
    told += [by_unproven(confirmed, access_generation, seen, keeper) for seen in weighed.unproven]
    return next((objection for objection in told if objection is not None), None)


def by_anchor(
    confirmed: Keyring, access_generation: int, seen: Anchor, keeper: str
) -> Objection | None:
    """Return what a valid anchor says against a keyring and the access list beside it; `keeper` is who had it."""
    reached = Reached(seen.epoch, seen.revision, seen.access_generation)
    if seen.lineage != confirmed.lineage:
        message = (
            f"{keeper} names lineage {seen.lineage} of this store, at {_told(reached)}; this copy is of lineage "
            f"{confirmed.lineage}, at epoch {confirmed.epoch}{_older(confirmed.epoch, seen.epoch)}"
        )
        return Objection(Reason.FOREIGN, message, _LIVING, reached, proven=True)
    if seen.is_beyond(confirmed.age, access_generation):
        message = stale_message((*confirmed.age, access_generation), reached, keeper)
        return Objection(Reason.STALE_STORE, message, _NEWEST, reached, proven=True)
    return None


def by_unproven(
    confirmed: Keyring, access_generation: int, seen: Anchor, keeper: str
) -> Objection | None:
    """Return what an anchor says against a keyring that cannot confirm it; `keeper` is who had it.

    In the same lineage a root key that is not known here came into force one epoch after the last keyring that did not
    know it, so an honest anchor of it is beyond this keyring. One that is not says nothing. Its numbers are followed as
    those of a claim are, and the access generation with the epoch: the same anchor has to hold afterwards. Of another
    lineage none is followed.
    """
    reached = Reached(seen.epoch, seen.revision, seen.access_generation)
    doubt = f"{keeper}, which no root key at hand confirms,"
    if seen.lineage != confirmed.lineage:
        message = (
            f"{doubt} names lineage {seen.lineage} of this store, at {_told(reached)}; this copy is of lineage "
            f"{confirmed.lineage}, at epoch {confirmed.epoch}{_older(confirmed.epoch, seen.epoch)}"
        )
        return Objection(Reason.FOREIGN, message, _LIVING, _NOTHING)
    if not seen.is_beyond(confirmed.age, access_generation):
        return None
    leap = max(seen.epoch - confirmed.epoch, seen.access_generation - access_generation)
    followed, remark = Reached(seen.epoch, 0, seen.access_generation), ""
    if leap > LEAP_LIMIT:
        followed, remark = _NOTHING, "; no store comes as far, and it is not followed there"
    message = (
        f"the store is an old copy: it is at {_told((*confirmed.age, access_generation))}, its root key of generation "
        f"{confirmed.active_root.number}, and {doubt} names generation {seen.generation}, at {_told(reached)}{remark}"
    )
    return Objection(Reason.STALE_STORE, message, _NEWEST, followed)


def by_claim(confirmed: Keyring, keeper: str, claim: Claim) -> Objection | None:
    """Return what a Keeper's word says against a keyring. It may be a lie, so it is told as the Keeper's.

    A root key that this keyring does not have, or that is still to come here, stands against it, unless its epoch is a
    lower one: then a person has gone on with this copy in spite of it. A higher number alone does not: after a rollback
    the Keepers may still hold the shares of what was gone back from. Of another store or lineage no number is followed:
    its epochs say nothing of ours.
    """
    if claim.store_id != confirmed.store_id:
        message = (
            f"{keeper} holds a share of another store, {claim.store_id}; this is {confirmed.store_id}: "
            "which is the older one cannot be told"
        )
        step = f"see that store and Keepers belong together, or restart the Keepers; {_ACCEPT}"
        return Objection(Reason.FOREIGN, message, step, _NOTHING)
    if claim.lineage != confirmed.lineage:
        message = (
            f"{keeper} holds a share of lineage {claim.lineage} of this store, at epoch {claim.epoch}; this copy is of "
            f"lineage {confirmed.lineage}, at epoch {confirmed.epoch}{_older(confirmed.epoch, claim.epoch)}"
        )
        return Objection(Reason.FOREIGN, message, _LIVING, _NOTHING)
    reached, remark = Reached(claim.epoch, 0, 0), ""
    if claim.epoch - confirmed.epoch > LEAP_LIMIT:
        reached, remark = _NOTHING, "; no store comes as far, and it is not followed there"
    if could_follow(confirmed, claim.generation) and claim.epoch >= confirmed.epoch:
        message = (
            f"the store is an old copy: its root key is of generation {confirmed.active_root.number}, and {keeper} "
            f"says that it holds a share of generation {claim.generation}, at epoch {claim.epoch}{remark}"
        )
        return Objection(Reason.STALE_STORE, message, _NEWEST, reached)
    if claim.epoch > confirmed.epoch:
        message = stale_message((confirmed.epoch,), (claim.epoch,), f"{keeper} says that it")
        return Objection(Reason.STALE_STORE, f"{message}{remark}", _NEWEST, reached)
    return None


def by_fence(confirmed: Keyring, fence: int) -> Objection | None:
    """Return what the store's own fence says against a keyring.

    It is the store's word alone: a lower one proves nothing, a higher one would only let the restore fail half-way.
    """
    if fence <= confirmed.epoch:
        return None
    message = stale_message((confirmed.epoch,), (fence,), "the store itself")
    step = _WRITTEN if fence - confirmed.epoch > LEAP_LIMIT else _NEWEST
    return Objection(Reason.STALE_STORE, message, step, Reached(fence, 0, 0))


def by_newer_backup(confirmed: Keyring, present: Keyring) -> Objection:
    """Return the objection of a key backup that is newer than the store, as far as it can be told: the backup's
    keyring is what comes back."""
    message = stale_message(present.age, confirmed.age, "the backup")
    return Objection(Reason.STALE_STORE, message, _NEWEST, _NOTHING)


def above(confirmed: Keyring, objections: Sequence[Objection]) -> Reached:
    """Return what the store has to be taken above: the highest of each number that was seen and is followed.

    Raises:
        RefusalError: DAMAGED, the store's fence is where nothing proves that the store had been. Below it nothing can
            be written, and above it numbers would be used up.
    """
    proven = max((confirmed.epoch, *(each.reached.epoch for each in objections if each.proven)))
    told = max((each.reached.epoch for each in objections), default=0)
    if told - proven > LEAP_LIMIT:
        raise RefusalError(
            Reason.DAMAGED,
            f"the store's fence is at epoch {told}, and nothing proves that the store had been beyond epoch "
            f"{proven}: somebody has set it",
            _WRITTEN,
        )
    every = [
        Reached(confirmed.epoch, confirmed.revision, 0),
        *(each.reached for each in objections),
    ]
    return Reached(
        max(each.epoch for each in every),
        max(each.revision for each in every),
        max(each.access_generation for each in every),
    )


def _older(this: int, other: int) -> str:
    if this == other:
        return ": which is the older one cannot be told"
    return ": this copy is the older one" if this < other else ": this copy is the newer one"


def stale_message(present: tuple[int, ...], seen: tuple[int, ...], witness: str) -> str:
    """Say that a store is at less than was seen of it: epoch, revision, access generation, as many as are known."""
    return (
        f"the store is an old copy: it is at {_told(present)}, and {witness} had seen {_told(seen)}"
    )


def _told(reached: tuple[int, ...]) -> str:
    names = ("epoch", "revision", "access generation")
    return ", ".join(f"{name} {value}" for name, value in zip(names, reached, strict=False))
