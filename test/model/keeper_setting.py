"""What the model is asked to explore, what a step of it is, and where it starts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from model.keeper_rule import KEEPERS, NOTHING
from model.keeper_world import Budget, Job, Keeper, Look, Store, World, with_keepers


class Care(StrEnum):
    """What the shell has to take care of. Without any one of them the model finds what goes wrong."""

    UNANCHORED = "from the moment keys or rights change, writes wait for an anchor of the change"
    NO_PLACE = "without a backup place the Keepers' anchors decide alone"
    RIGHTS = "a change of rights is acknowledged only when its anchor is held"
    APART = "no look at the Keepers while new shares are brought to them"
    SAME_ANCHOR = "a look tells only of the anchor that it gave"
    KEEP = "a Keeper commits the set in force before another one is staged over it"
    OTHERS = "an automatic refresh leaves out a Keeper that spoils it"
    ANCHOR_TOO = "who gives a new share back in a refresh has been given the anchor, too"
    INIT_UNSURE = "an init erases nothing while it may be that its keyring was written"


ALL: Final = frozenset(Care)


class Place(StrEnum):
    """The one backup place."""

    NONE = "none"
    THERE = "there"


class Liar(StrEnum):
    """How one Keeper lies."""

    NONE = ""
    FREELY = "anything, each time anew"
    SPOILS = "takes each share and never gives it back"
    SILENT = "says nothing"


@dataclass(frozen=True)
class Setting:
    """What is explored: what the shell takes care of, and what may happen how often."""

    budget: Budget
    cares: frozenset[Care] = ALL
    place: Place = Place.THERE
    liar: Liar = Liar.NONE
    sets: int = 8
    """How many sets of shares there may be: who spoils each refresh would make ever more."""
    together: bool = False
    """Whether a look's exchanges with the Keepers are interleaved in every way, or one Keeper comes after the other."""


class Step(NamedTuple):
    """What happened and the world after it. `fair`: part of an honest way forward. `broken`: what it broke."""

    name: str
    world: World
    fair: bool = True
    broken: str = ""


def start(setting: Setting) -> World:
    """Nothing anywhere; one Keeper lies, if one does."""
    last = Keeper(liar=setting.liar is not Liar.NONE)
    return World(
        keepers=tuple(sorted((*(Keeper(),) * (KEEPERS - 1), last))),
        store=Store(),
        copy=None,
        old=False,
        accepted=False,
        place=NOTHING,
        place_up=setting.place is Place.THERE,
        nexus=None,
        floor=(0, 0),
        sets=0,
        liar_sets=frozenset(),
        budget=setting.budget,
    )


def spent(world: World, what: str) -> World:
    budget = world.budget
    return world._replace(budget=budget._replace(**{what: getattr(budget, what) - 1}))


def forgotten(world: World) -> World:
    """Nexus has lost its memory: so has what it was about to do with each Keeper."""
    keepers = (
        each._replace(seen=NOTHING, look=Look.NONE, arg=NOTHING, job=Job.NONE)
        for each in world.keepers
    )
    return with_keepers(world._replace(nexus=None), keepers)
