"""The whole of what can happen in a rotation: every state the model reaches, by breadth first."""

from __future__ import annotations

from collections import deque

from model import rotation_rule as rule
from model.keeper_exploration import Exploration, Found, backwards, trace
from model.rotation_model import steps
from model.rotation_world import Setting, World, is_well, start, wrong_with
from spike.lifecycle.keyring import Phase


def explore(setting: Setting, *, ways_out: bool = True) -> Exploration:
    """Reach every state. It ends early when something wrong is found."""
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
            wrong = step.broken
            if there is None:
                there = numbers[step.world] = len(came_from)
                came_from.append((here, step.name))
                fair_before.append([])
                queue.append(step.world)
                wrong = wrong or wrong_with(step.world, setting)
            if wrong:
                seen.found.append(Found(wrong, [*trace(came_from, here), step.name]))
                seen.states = len(numbers)
                return seen
            if step.fair and ways_out:
                fair_before[there].append(here)
    seen.states = len(numbers)
    if ways_out:
        leads_on = backwards(fair_before, well)
        ends = [number for number in numbers.values() if number not in leads_on]
        seen.stuck = [Found("there is no way on", trace(came_from, each)) for each in ends[:3]]
    seen.reached = {str(rule.phase(world.store.document)) for world in numbers}
    return seen


PHASES = {str(phase) for phase in (None, *Phase)}
