"""The whole of what can happen to a store and its Keepers, when it is well, and when it is wrong."""

from __future__ import annotations

from functools import partial

from model import keeper_rule as rule
from model.exploration import Exploration, Model, explored
from model.keeper_model import steps
from model.keeper_rule import NOTHING
from model.keeper_setting import Setting, start
from model.keeper_world import Look, Task, World, cannot_recover, is_contradicted, is_mixed


def is_well(world: World) -> bool:
    """Return whether all is as it should be: open, every honest Keeper has its share, nothing in progress."""
    nexus = world.nexus
    if nexus is None or nexus.document == NOTHING or is_contradicted(world):
        return False
    share_set = rule.in_force(nexus.document)
    idle = nexus.task is Task.NONE and nexus.look == NOTHING and not nexus.rights
    same = (world.store.document, world.store.access) == (nexus.document, nexus.access)
    return (
        idle
        and same
        and not nexus.stops
        and not nexus.unsure
        and nexus.held == share_set
        and not rule.in_progress(nexus.document)
        and all(
            rule.committed(each.holding)[0] == share_set
            and each.look is Look.NONE
            and not each.away
            for each in world.keepers
            if not each.liar
        )
    )


def wrong_with(world: World) -> str:
    """Return what is wrong with a state in itself, or nothing."""
    if any(is_mixed(each.holding) for each in world.keepers):
        return "a share lies under another set's label"
    if cannot_recover(world):
        return "Keepers that were not emptied do not bring the key back"
    return ""


def explore(setting: Setting, *, ways_out: bool = True) -> Exploration:
    """Reach every state. It ends early when something wrong is found."""
    model = Model(
        start(setting),
        partial(steps, setting=setting),
        is_well,
        wrong_with,
        # Without a number for another set it cannot go on.
        lambda world: world.sets >= setting.sets,
    )
    return explored(model, ways_out=ways_out)[0]
