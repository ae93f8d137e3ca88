"""What a Keeper holds, and what may change it. Pure: a state goes in, the next one or a refusal comes out.

    place       what lies there                      what puts it there   what takes it away
    committed   the share that counts                commit               erase; the commit of a later set
    staged      one that may come to count           stage                erase; its own commit; another stage
    contributed bytes from Go, of no set             contribute           another contribute
    anchor      how new the store must at least be   keep_anchor          a newer one of the same store

The Keeper is no judge of shares: it cannot tell a good one from a bad one. What it can tell is whose it is, and so it
refuses to give up a share of one store or lineage for another's, or a later one for an earlier one. Only a restart
makes it forget without being told which set.

Nothing here looks at a share's bytes: `V` is whatever holds them. A value that is in the old state and not in the new
one is its owner's to wipe.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from spike.keeper.anchor import HeldAnchor
from spike.wire.keeper import KeeperReason, Place

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Label:
    """What a share says it is of: hexadecimal identities, the root key's generation, its place among t of n."""

    store_id: str
    lineage: str
    set_id: str
    generation: int
    index: int
    threshold: int

    @property
    def owner(self) -> tuple[str, str]:
        """The store, and which life of it."""
        return self.store_id, self.lineage


@dataclass(frozen=True, slots=True)
class Share(Generic[V]):
    """A share as it was staged; `tag` is kept and given back unread. `epoch` is 0 until it is committed."""

    label: Label
    value: V
    tag: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Holding(Generic[V]):
    """All that a Keeper holds."""

    committed: Share[V] | None = None
    staged: Share[V] | None = None
    contributed: V | None = None
    anchor: HeldAnchor | None = None

    def share(self, set_id: str) -> tuple[Place, Share[V]] | None:
        """Return the share of a set and where it is; where both places have one, the committed."""
        if self.committed is not None and self.committed.label.set_id == set_id:
            return Place.COMMITTED, self.committed
        if self.staged is not None and self.staged.label.set_id == set_id:
            return Place.STAGED, self.staged
        return None

    def plain(self) -> V | None:
        """Return what Go's call gives: the committed share's bytes, or else the contributed ones."""
        return self.contributed if self.committed is None else self.committed.value

    def values(self) -> tuple[V, ...]:
        """Return every value that is held."""
        shares = (each.value for each in (self.committed, self.staged) if each is not None)
        return (*shares, *(() if self.contributed is None else (self.contributed,)))


@dataclass(frozen=True, slots=True)
class Refusal(Generic[V]):
    """Nothing was changed; `held` is what stands in the way."""

    reason: KeeperReason
    held: Share[V] | None


def contribute(holding: Holding[V], value: V) -> Holding[V]:
    """Keep bytes that come without set and generation; they replace those of before and nothing else."""
    return replace(holding, contributed=value)


def stage(holding: Holding[V], share: Share[V]) -> Holding[V] | Refusal[V]:
    """Put a share into the staged place, in the place of what was staged. What is committed stays."""
    held = holding.committed
    if held is not None and held.label.owner != share.label.owner:
        return Refusal(KeeperReason.FOREIGN, held)
    return replace(holding, staged=share)


def commit(
    holding: Holding[V], owner: tuple[str, str], set_id: str, epoch: int
) -> Holding[V] | Refusal[V]:
    """Let the staged share of a set count. `owner` is store and lineage.

    A set that is committed already stays so and keeps the higher epoch: a commit may be repeated.
    """
    held, staged = holding.committed, holding.staged
    if held is not None and held.label.owner != owner:
        return Refusal(KeeperReason.FOREIGN, held)
    again = held is not None and held.label.set_id == set_id
    if held is not None and not again and epoch <= held.epoch:
        return Refusal(KeeperReason.OLD, held)
    reached = max(epoch, held.epoch) if held is not None and again else epoch
    if staged is not None and staged.label.set_id == set_id:
        if staged.label.owner != owner:
            return Refusal(KeeperReason.FOREIGN, staged)
        return replace(holding, committed=replace(staged, epoch=reached), staged=None)
    if held is None or not again:
        return Refusal(KeeperReason.NOT_STAGED, staged)
    return replace(holding, committed=replace(held, epoch=reached))


def erase(holding: Holding[V], set_id: str) -> Holding[V]:
    """Empty every place that has a share of this set; that none has is no fault."""
    return replace(
        holding,
        committed=_unless(holding.committed, set_id),
        staged=_unless(holding.staged, set_id),
    )


def keep_anchor(holding: Holding[V], anchor: HeldAnchor) -> Holding[V]:
    """Keep an anchor unless the one that is held is of another store or lineage, or newer in anything."""
    held = holding.anchor
    return (
        holding
        if held is not None and not anchor.follows(held)
        else replace(holding, anchor=anchor)
    )


def _unless(share: Share[V] | None, set_id: str) -> Share[V] | None:
    return None if share is not None and share.label.set_id == set_id else share
