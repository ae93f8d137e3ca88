"""The whole of what can happen: every state the model reaches, by breadth first, and the ways out of each."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from model import keeper_rule as rule
from model.keeper_model import steps
from model.keeper_rule import NOTHING
from model.keeper_setting import Setting, start
from model.keeper_world import Look, Task, World, cannot_recover, is_contradicted, is_mixed


@dataclass
class Found:
    """Something that must not be, and how it comes to it."""

    what: str
    trace: list[str]


@dataclass
class Exploration:
    """What an exploration has seen. `stuck`: states from which no honest way leads on."""

    states: int = 0
    transitions: int = 0
    found: list[Found] = field(default_factory=list)
    stuck: list[Found] = field(default_factory=list)
    reached: set[str] = field(default_factory=set)
    """What else is worth knowing of the states: where a model has phases, which of them were reached."""


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


def explore(setting: Setting, *, enough: int = 1, ways_out: bool = True) -> Exploration:
    """Reach every state. It ends early when `enough` wrong ones are found."""
    begin = start(setting)
    numbers: dict[World, int] = {begin: 0}
    came_from: list[tuple[int, str]] = [(-1, "")]
    fair_before: list[list[int]] = [[]]
    well: list[int] = []
    queue = deque([begin])
    seen = Exploration()
    while queue:
        world = queue.popleft()
        here = numbers[world]
        if is_well(world):
            well.append(here)
        for step in steps(world, setting):
            seen.transitions += 1
            there = numbers.get(step.world)
            if there is None:
                there = numbers[step.world] = len(came_from)
                came_from.append((here, step.name))
                fair_before.append([])
                queue.append(step.world)
                wrong = step.broken or wrong_with(step.world)
            else:
                wrong = step.broken
            if wrong:
                seen.found.append(Found(wrong, [*trace(came_from, here), step.name]))
                if len(seen.found) >= enough:
                    seen.states = len(numbers)
                    return seen
            if step.fair and ways_out:
                fair_before[there].append(here)
    seen.states = len(numbers)
    if ways_out:
        leads_on = backwards(fair_before, well)
        ends = [
            number
            for world, number in numbers.items()
            if number not in leads_on and world.sets < setting.sets
        ]
        seen.stuck = [Found("there is no way on", trace(came_from, each)) for each in ends[:3]]
    return seen


def trace(came_from: list[tuple[int, str]], number: int) -> list[str]:
    """Return the steps that led to a state."""
    names: list[str] = []
    while number > 0:
        number, name = came_from[number]
        names.append(name)
    return names[::-1]


def backwards(before: list[list[int]], ends: list[int]) -> set[int]:
    """Return every state from which one of these is reached."""
    reached, open_ends = set(ends), list(ends)
    while open_ends:
        for number in before[open_ends.pop()]:
            if number not in reached:
                reached.add(number)
                open_ends.append(number)
    return reached
