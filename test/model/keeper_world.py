"""The world of the model of keyring, Keepers and crashes: what there is, and what must hold of it.

Everything is immutable and made of numbers (see keeper_rule.py). Keepers are kept sorted: which of them is which
decides nothing, so states that differ only in that are one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from itertools import combinations
from typing import NamedTuple

from model import keeper_rule as rule
from model.keeper_rule import KEEPERS, NOTHING, THRESHOLD
from spike.lifecycle.staleness import Objection

ENOUGH = KEEPERS - THRESHOLD + 1
"""As many Keepers have to hold an anchor: then each choice of `THRESHOLD` has one that does."""

NO_ANCHOR, OVERTAKEN, UNSURE = 1, 2, 4
"""Bits of `Nexus.stops`: spike.nexus.vault.Stop."""


class Look(StrEnum):
    """How far the present look has come with one Keeper (spike.nexus.keeper_desk.KeeperDesk._tended)."""

    NONE = ""
    ASK = "ask"
    STAGE = "stage"
    COMMIT = "commit"
    ERASE = "erase"
    DONE = "done"


class Job(StrEnum):
    """How far a delivery has come with one Keeper (spike.nexus.keeper_refresh.deliver)."""

    NONE = ""
    STAGE = "stage"
    STAGED = "staged"


class Task(StrEnum):
    """What the one change of keys in progress does next. Its order is that of the shell; see keeper_model.py."""

    NONE = ""
    DELIVER = "deliver"
    READ_BACK = "read back"
    FINISH = "finish"
    RENEW = "renew"
    DROP = "drop"
    WITHDRAW = "withdraw"


class Keeper(NamedTuple):
    """One Keeper, and what Nexus is about to do with it.

    `lost`: emptied, or left out of a refresh, since its supply was last complete. `away`: it does not answer, and keeps
    what it holds. `seen`: the anchor Nexus believes it keeps.
    """

    holding: int = NOTHING
    lost: bool = True
    away: bool = False
    seen: int = NOTHING
    look: Look = Look.NONE
    arg: int = NOTHING
    job: Job = Job.NONE
    liar: bool = False


class Nexus(NamedTuple):
    """The memory of a Nexus that runs and is open, or about to be by an init.

    `held`: the set whose shares it knows. `look…`: what the present look began with. `rights`: a change of rights was
    written and its anchor is not renewed yet.
    """

    document: int = NOTHING
    access: int = 0
    held: int = NOTHING
    stops: int = 0
    keepers_hold: bool = False
    place_holds: bool = False
    unsure: int = NOTHING
    rights: bool = False
    task: Task = Task.NONE
    asked: bool = False
    new: int = NOTHING
    look: int = NOTHING
    look_document: int = NOTHING
    look_access: int = 0
    look_held: int = NOTHING
    beyond: bool = False


class Store(NamedTuple):
    """What lies in the store. The access list is its generation."""

    document: int = NOTHING
    access: int = 0
    fence: int = 0


class Budget(NamedTuple):
    """How often each may still happen."""

    crash: int = 0
    lost: int = 0
    put_back: int = 0
    away: int = 0
    fail: int = 0
    refresh: int = 0
    rights: int = 0
    restore: int = 0


class World(NamedTuple):
    """One state.

    `floor`: epoch and access generation under which a write was last acknowledged. `old`: the store is a copy that was
    put back. `accepted`: a person went on with an older store. `place`: the anchor in the backup place.
    `liar_sets`: each set the lying Keeper was ever given.
    """

    keepers: tuple[Keeper, ...]
    store: Store
    copy: Store | None
    old: bool
    accepted: bool
    place: int
    place_up: bool
    nexus: Nexus | None
    floor: tuple[int, int]
    sets: int
    liar_sets: frozenset[int]
    budget: Budget


def with_keeper(world: World, before: Keeper, after: Keeper) -> World:
    """Return the world in which one Keeper is another one."""
    keepers = list(world.keepers)
    keepers[keepers.index(before)] = after
    keepers.sort()
    return world._replace(keepers=tuple(keepers))


def each_keeper(world: World) -> Iterator[Keeper]:
    """Give each Keeper, but of those that are alike only one."""
    return iter(dict.fromkeys(world.keepers))


def with_keepers(world: World, keepers: Iterable[Keeper]) -> World:
    return world._replace(keepers=tuple(sorted(keepers)))


def is_contradicted(world: World) -> bool:
    """Return whether an anchor, wherever it is, is beyond the store."""
    store = world.store
    kept = {rule.anchor_kept(each.holding) for each in world.keepers} | {world.place}
    return any(rule.by_anchor(store.document, store.access, each) for each in kept)


class Asked(NamedTuple):
    """What one Keeper answers in a recovery: its holding, and the anchor it shows."""

    holding: int
    anchor: int
    gives_share: bool


def honest(keeper: Keeper, share_set: int) -> Asked:
    return Asked(
        keeper.holding,
        rule.anchor_kept(keeper.holding),
        rule.holds(keeper.holding, share_set),
    )


def opens(world: World, answers: Iterable[Asked]) -> bool:
    """Return whether an unattended recovery opens the store from these answers.

    spike.nexus.keeper_recovery: enough right shares of the set in force (rebuild finds them among wrong ones), no valid
    anchor beyond the store, nor its fence, and fewer than the threshold of claims against it.
    """
    told = tuple(answers)
    store = world.store
    if sum(each.gives_share for each in told) < THRESHOLD:
        return False
    kept = {each.anchor for each in told}
    if world.place_up:
        kept.add(world.place)
    if any(rule.by_anchor(store.document, store.access, seen) for seen in kept):
        return False
    if rule.by_fence(store.document, store.fence) is not None:
        return False
    claims = sum(rule.by_claim(store.document, each.holding) is not None for each in told)
    return claims < THRESHOLD


def liar_answers(world: World, liar: Keeper, share_set: int) -> tuple[Asked, ...]:
    """Return what a lying Keeper may answer: any anchor it was given or none, a right share if it ever had it."""
    known = (NOTHING, rule.anchor_kept(liar.holding))
    can_give = share_set in world.liar_sets
    return tuple(Asked(NOTHING, anchor, gives) for anchor in known for gives in {False, can_give})


def subsets(world: World) -> Iterator[tuple[Asked, ...]]:
    """Give what each choice of at least `THRESHOLD` reachable Keepers may answer."""
    share_set = rule.in_force(world.store.document)
    here = [keeper for keeper in world.keepers if not keeper.away]
    for count in range(THRESHOLD, len(here) + 1):
        for some in combinations(here, count):
            honest_ones = tuple(honest(each, share_set) for each in some if not each.liar)
            liar = next((each for each in some if each.liar), None)
            if liar is None:
                yield honest_ones
                continue
            for answer in liar_answers(world, liar, share_set):
                yield (*honest_ones, answer)


def objections(world: World) -> tuple[Objection, ...]:
    """Return what speaks against the store in a restore with a person at hand (spike.nexus.examination.examine)."""
    store = world.store
    found = [rule.by_fence(store.document, store.fence)]
    if world.place_up:
        found.append(rule.by_anchor(store.document, store.access, world.place))
    for keeper in world.keepers:
        if not keeper.away:
            kept = rule.anchor_kept(keeper.holding)
            found.append(rule.by_anchor(store.document, store.access, kept))
            found.append(rule.by_claim(store.document, keeper.holding))
    return tuple(dict.fromkeys(each for each in found if each is not None))


def cannot_recover(world: World) -> bool:
    """Invariant 1, of a store that is the newest: each Keeper that was not emptied helps to bring the key back.

    Each choice of `THRESHOLD` Keepers that are not `lost` opens it, whatever a lying one says beside them.
    """
    if world.old or world.store.document == NOTHING:
        return False
    nexus = world.nexus
    if nexus is not None and nexus.document == NOTHING:
        return False  # an init that has reported nothing yet
    share_set = rule.in_force(world.store.document)
    whole = [each for each in world.keepers if not each.lost and not each.liar]
    liars = [each for each in world.keepers if each.liar]
    beside: tuple[tuple[Asked, ...], ...] = ((),)
    if liars:
        beside += tuple((each,) for each in liar_answers(world, liars[0], share_set))
    return not all(
        opens(world, (*(honest(each, share_set) for each in some), *lies))
        for some in combinations(whole, THRESHOLD)
        for lies in beside
    )


def is_mixed(holding: int) -> bool:
    """Invariant 3: a share lies under the label of its own set, store and lineage."""
    held = rule.holdings[holding]
    shares = (each for each in (held.committed, held.staged) if each is not None)
    return any(each.label.set_id != rule.set_id(each.value) for each in shares)


def what_breaks(world: World, before: int, after: int) -> str:
    """Say what a change of one Keeper's holding breaks: invariants 2 and 6."""
    if before == after:
        return ""
    needed = rule.in_force(world.store.document) if world.store.document != NOTHING else NOTHING
    if needed and not world.old and rule.holds(before, needed) and not rule.holds(after, needed):
        return "a share is erased before the keyring that makes it superfluous"
    held, now = rule.committed(before), rule.committed(after)
    earlier = now[0] < held[0] and not world.accepted
    if now[0] and (earlier or now[1] < held[1]):
        return "a Keeper goes back to an older set or epoch"
    return ""
