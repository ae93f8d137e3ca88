"""The world of the model of rotations: what there is, and what must hold of it.

Everything is immutable and made of numbers (see rotation_rule.py). Keepers are kept sorted: which of them is which
decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations
from typing import Final, NamedTuple

from model import rotation_rule as rule
from model.keeper_rule import KEEPERS, NOTHING, THRESHOLD
from model.rotation_rule import Wish
from spike.lifecycle.keyring import Phase
from spike.lifecycle.rotation_plan import BEFORE_FLIP

RECORDS: Final = 3
ENOUGH: Final = KEEPERS - THRESHOLD + 1


class Care(StrEnum):
    """What the shell and its rules have to take care of. Without any one of them the model finds what goes wrong."""

    FENCE = "a write that was sealed under an epoch that has passed is refused"
    SWAP = "the walker compares and swaps: who wrote meanwhile wins"
    READ_BACK = "staged shares are read back before the keyring names them"
    PENDING = "each place has a pending backup of the next keyring before the flip"
    RENEWED = "the pending backup goes only when the place has the one in force"
    UNSURE = "while it may be that a keyring was written, nothing is taken back"
    KEEP = "a Keeper commits the set in force before another one is staged over it"
    GATE = "after an epoch step writes wait until its anchor is held"
    PAST = "a Keeper that gives a share of another root key does not count as holding an anchor"
    UNPROVEN = "what an old copy cannot confirm it does not ignore"
    KEPT = "every root key at hand confirms anchors"
    CLAIM = "a higher generation alone is no claim against a store"
    CENSUS = "what lies under an old key is counted once more before it is destroyed"
    PROOF = "verified is written only when no record is left"


ALL: Final = frozenset(Care)


class Task(StrEnum):
    """What the shell does next, beside what the keyring's phase says."""

    NONE = ""
    RENEW = "renew"
    STAGE = "stage"
    DISTRIBUTE = "distribute"
    PENDING = "pending"
    BACK_UP = "back up"
    FLIP = "flip"
    DROP = "drop"
    CLEAR = "clear"
    PROVEN = "proven"
    COUNTED = "counted"


class Keeper(NamedTuple):
    """One Keeper.

    `lost`: emptied, or without its share of the set in force. `seen`: it counts as keeping the anchor. `staged`: it was
    given the share that is being brought in.
    """

    holding: int = NOTHING
    lost: bool = False
    seen: bool = False
    staged: bool = False


class Row(NamedTuple):
    """One record: the key it lies under and which write it holds. `planted`: the storage writer put it back."""

    key: int
    value: int = 0
    planted: bool = False


class Store(NamedTuple):
    """What lies in the store."""

    document: int
    rows: tuple[Row, ...]
    fence: int
    cursor: int = 0


class Place(NamedTuple):
    """The backup place: the keyring of its key backup, the pending one, the anchor."""

    backup: int
    pending: int = NOTHING
    anchor: int = NOTHING
    up: bool = True


class Write(NamedTuple):
    """A write on its way: sealed under a key and an epoch, in the place of what was read. `done`: the store took it."""

    row: int
    before: Row
    key: int
    epoch: int
    done: bool = False


class Nexus(NamedTuple):
    """The memory of a Nexus that is open. `held`: the set it knows; `new`: the set that it brings in.

    `prepared`: it has the incoming keys in memory. `walk`: what the walker has read at the cursor.
    """

    document: int
    held: int
    task: Task = Task.NONE
    next: Task = Task.NONE
    prepared: bool = False
    new: int = NOTHING
    anchored: bool = False
    place_holds: bool = False
    unsure: int = NOTHING
    write: Write | None = None
    walk: Row | None = None


class Budget(NamedTuple):
    """How often each may still happen."""

    crash: int = 0
    lost: int = 0
    fail: int = 0
    put_back: int = 0
    write: int = 0
    second: int = 0
    restore: int = 0
    abort: int = 0
    wishes: tuple[Wish, ...] = ()


class World(NamedTuple):
    """One state. `acknowledged`: the value of each record that its writer was told is written; `floor`: the epoch
    under which that last was. `serial` counts preparations and sets. `second`: the keyring of a Nexus that was
    overtaken and does not know it yet.
    """

    keepers: tuple[Keeper, ...]
    store: Store
    place: Place
    nexus: Nexus | None
    acknowledged: tuple[int, ...]
    floor: int
    serial: int
    copy: Store | None
    old: bool
    second: int
    budget: Budget


@dataclass(frozen=True)
class Setting:
    """What is explored: what the shell takes care of, and what may happen how often."""

    budget: Budget
    cares: frozenset[Care] = ALL
    rows: tuple[int, ...] = (1,)
    """Which records callers write: the middle one lies before the walker and behind it."""
    has_place: bool = True


class Step(NamedTuple):
    """What happened and the world after it. `fair`: part of an honest way forward. `broken`: what it broke."""

    name: str
    world: World
    fair: bool = True
    broken: str = ""


def start(setting: Setting) -> World:
    """A store that is open, whole, and everywhere known."""
    document = rule.born()
    seen = rule.anchor(document)
    first = rule.in_force(document)
    holding = rule.commit(rule.stage(NOTHING, first), first, rule.epoch(document))
    assert holding is not None
    keeper = Keeper(rule.keep_anchor(holding, seen), seen=True)
    place = Place(document, anchor=seen) if setting.has_place else Place(document, up=False)
    return World(
        keepers=(keeper,) * KEEPERS,
        store=Store(document, (Row(rule.record_key(document)),) * RECORDS, rule.epoch(document)),
        place=place,
        nexus=Nexus(document, first, anchored=True, place_holds=setting.has_place),
        acknowledged=(0,) * RECORDS,
        floor=rule.epoch(document),
        serial=1,
        copy=None,
        old=False,
        second=NOTHING,
        budget=setting.budget,
    )


def spent(world: World, what: str) -> World:
    budget = world.budget
    return world._replace(budget=budget._replace(**{what: getattr(budget, what) - 1}))


def with_keepers(world: World, keepers: Iterable[Keeper]) -> World:
    return world._replace(keepers=tuple(sorted(keepers)))


def with_keeper(world: World, before: Keeper, after: Keeper) -> World:
    keepers = list(world.keepers)
    keepers[keepers.index(before)] = after
    return with_keepers(world, keepers)


def each_keeper(world: World) -> Iterator[Keeper]:
    """Give each Keeper, but of those that are alike only one."""
    return iter(dict.fromkeys(world.keepers))


def with_row(store: Store, number: int, row: Row) -> Store:
    rows = list(store.rows)
    rows[number] = row
    return store._replace(rows=tuple(rows))


def forgotten(world: World) -> World:
    """Nexus has lost its memory."""
    keepers = (each._replace(seen=False, staged=False) for each in world.keepers)
    return with_keepers(world._replace(nexus=None), keepers)


def _heard(document: int, seen: int, setting: Setting) -> tuple[bool, bool]:
    """Return whether an anchor objects, and whether it is proven. Without a care it is weighed as it once was."""
    found = rule.weighed(document, seen)
    objection = rule.by_anchor(document, seen)
    if objection is None:
        return False, False
    if not objection.proven:
        return Care.UNPROVEN in setting.cares, False
    active = rule.active_generation(document)
    kept = all(each.generation != active for each in found.valid)
    return not kept or Care.KEPT in setting.cares, True


def opens(world: World, answering: Iterable[Keeper], setting: Setting) -> bool:
    """Return whether an unattended recovery opens the store with these Keepers (spike.nexus.keeper_recovery)."""
    told, store = tuple(answering), world.store
    document = store.document
    wanted = rule.in_force(document)
    if not wanted or sum(rule.holds(each.holding, wanted) for each in told) < THRESHOLD:
        return False
    if world.place.up and _heard(document, world.place.anchor, setting)[0]:
        return False
    against = 0
    for each in told:
        objects, proven = _heard(document, rule.anchor_kept(each.holding), setting)
        if objects and proven:
            return False
        claim = rule.by_claim(document, each.holding) is not None
        if Care.CLAIM not in setting.cares:
            claim = claim or rule.claims_higher(document, each.holding)
        against += objects or claim
    return (
        against < THRESHOLD
        and rule.by_fence(document, store.fence) is None
        and all(row.key in rule.record_keys(document) for row in store.rows)
    )


def is_objected(world: World, setting: Setting) -> bool:
    """Return whether anything objects in a restore by password (spike.nexus.examination)."""
    store = world.store
    seen = [rule.anchor_kept(each.holding) for each in world.keepers]
    seen += [world.place.anchor] if world.place.up else []
    return (
        any(_heard(store.document, each, setting)[0] for each in seen)
        or any(rule.by_claim(store.document, each.holding) is not None for each in world.keepers)
        or rule.by_fence(store.document, store.fence) is not None
        or not all(row.key in rule.record_keys(store.document) for row in store.rows)
    )


def wrong_with(world: World, setting: Setting) -> str:
    """Return what is wrong with a state in itself, or nothing.

    Of a store that the storage writer has put back nothing is asked but that it is not believed.
    """
    if world.old:
        return ""
    store = world.store
    live = rule.record_keys(store.document)
    for row, acknowledged in zip(store.rows, world.acknowledged, strict=True):
        if row.planted:
            continue
        if row.value < acknowledged:
            return "an acknowledged write is lost"
        if row.key not in live:
            return "a record lies under a key that is destroyed"
    if not rule.opens_by_password(store.document):
        return "a slot does not open the root key in force"
    whole = [each for each in world.keepers if not each.lost]
    planted = any(row.planted for row in store.rows)
    if not planted and not all(
        opens(world, two, setting) for two in combinations(whole, THRESHOLD)
    ):
        return "Keepers that were not emptied do not bring the key back"
    return _wrong_with_place(world)


def _wrong_with_place(world: World) -> str:
    """A place that never failed holds a backup with the keys of every record, should the keyring be lost."""
    place = world.place
    if not place.up:
        return ""
    copies = [rule.record_keys(each) for each in (place.backup, place.pending) if each]
    rows = [row.key for row in world.store.rows if not row.planted]
    if not any(all(key in copy for key in rows) for copy in copies):
        return "no key backup opens what the store holds"
    return ""


def is_well(world: World) -> bool:
    """Return whether all is as it should be: open, nothing in progress, everybody up to date."""
    nexus, store = world.nexus, world.store
    if nexus is None or world.second or nexus.document != store.document:
        return False
    document = store.document
    wanted = rule.in_force(document)
    return (
        rule.phase(document) is None
        and nexus.anchored
        and nexus.task is Task.NONE
        and nexus.write is None
        and not nexus.unsure
        and all(rule.committed(each.holding) == wanted and each.seen for each in world.keepers)
        and (not world.place.up or world.place[:2] == (document, NOTHING))
    )


def is_before_flip(document: int) -> bool:
    return rule.phase(document) in BEFORE_FLIP


def is_behind_flip(document: int) -> bool:
    phase = rule.phase(document)
    return phase is not None and phase not in BEFORE_FLIP


def is_at_end(document: int) -> bool:
    return rule.phase(document) is Phase.FINALIZING
