"""The whole of what can happen: every state a model reaches, by breadth first, and the ways out of each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

W = TypeVar("W", bound=Hashable)
W_co = TypeVar("W_co", bound=Hashable, covariant=True)


class Step(Protocol[W_co]):
    """What happened and the world after it. `fair`: part of an honest way forward. `broken`: what it broke."""

    @property
    def name(self) -> str: ...

    @property
    def world(self) -> W_co: ...

    @property
    def fair(self) -> bool: ...

    @property
    def broken(self) -> str: ...


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


@dataclass(frozen=True)
class Model(Generic[W]):
    """Where it begins, what can happen next, when all is well, and what is wrong with a state in itself (or nothing).

    `may_end`: nothing is asked of what leads on from such a state.
    """

    begin: W
    steps: Callable[[W], Iterable[Step[W]]]
    is_well: Callable[[W], bool]
    wrong_with: Callable[[W], str]
    may_end: Callable[[W], bool] = lambda _: False


def explored(model: Model[W], *, ways_out: bool) -> tuple[Exploration, Iterable[W]]:
    """Reach every state; return what was seen, and the states. It ends early when something wrong is found."""
    numbers: dict[W, int] = {model.begin: 0}
    came_from: list[tuple[int, str]] = [(-1, "")]
    fair_before: list[list[int]] = [[]]
    well: list[int] = []
    queue = deque([model.begin])
    seen = Exploration()
    while queue:
        world = queue.popleft()
        here = numbers[world]
        if model.is_well(world):
            well.append(here)
        for step in model.steps(world):
            seen.transitions += 1
            there = numbers.get(step.world)
            wrong = step.broken
            if there is None:
                there = numbers[step.world] = len(came_from)
                came_from.append((here, step.name))
                fair_before.append([])
                queue.append(step.world)
                wrong = wrong or model.wrong_with(step.world)
            if wrong:
                seen.found.append(Found(wrong, [*_trace(came_from, here), step.name]))
                seen.states = len(numbers)
                return seen, numbers
            if step.fair and ways_out:
                fair_before[there].append(here)
    seen.states = len(numbers)
    if ways_out:
        leads_on = _backwards(fair_before, well)
        ends = [
            number
            for world, number in numbers.items()
            if number not in leads_on and not model.may_end(world)
        ]
        seen.stuck = [Found("there is no way on", _trace(came_from, each)) for each in ends[:3]]
    return seen, numbers


def _trace(came_from: list[tuple[int, str]], number: int) -> list[str]:
    """Return the steps that led to a state."""
    names: list[str] = []
    while number > 0:
        number, name = came_from[number]
        names.append(name)
    return names[::-1]


def _backwards(before: list[list[int]], ends: list[int]) -> set[int]:
    """Return every state from which one of these is reached."""
    reached, open_ends = set(ends), list(ends)
    while open_ends:
        for number in before[open_ends.pop()]:
            if number not in reached:
                reached.add(number)
                open_ends.append(number)
    return reached
