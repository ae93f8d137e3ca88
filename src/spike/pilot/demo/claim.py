"""What the demo claims, in which order, and what can be broken on purpose to see a claim fail.

A claim is a function: it does what the claim is about, looks at the outcome from outside, and raises
`ClaimError` when it is not as claimed. What it returns is told beside it, such as a time. A chapter
plays its claims in order in a world of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Generic, TypeVar

from spike.error import ClaimError

W = TypeVar("W")
Check = Callable[[W], str | None]


@dataclass(frozen=True, slots=True)
class Claim(Generic[W]):
    """One claim: its name, the sentence it says, and how it is checked."""

    name: str
    says: str
    check: Check[W]


@dataclass(frozen=True, slots=True)
class Scene(Generic[W]):
    """Claims that belong together, under a title."""

    title: str
    claims: tuple[Claim[W], ...]


@dataclass(frozen=True, slots=True)
class Sabotage(Generic[W]):
    """One thing that `act` breaks for real, in the demo's own world, just before the claim `before`.

    `exposed_by` is the claim that must then be false: that one, unless `later` names another.
    """

    name: str
    says: str
    act: Callable[[W], None]
    before: Claim[W]
    later: Claim[W] | None = None

    @property
    def exposed_by(self) -> Claim[W]:
        """The claim that must be false."""
        return self.before if self.later is None else self.later


@dataclass(frozen=True, slots=True)
class Chapter(Generic[W]):
    """A story that can be played alone. `world` is made anew each time and leaves nothing."""

    name: str
    says: str
    world: Callable[[], AbstractContextManager[W]]
    scenes: tuple[Scene[W], ...]
    sabotages: tuple[Sabotage[W], ...]


def claim(says: str) -> Callable[[Check[W]], Claim[W]]:
    """Make a claim of a function; its name, with dashes, is the claim's."""

    def made(check: Check[W]) -> Claim[W]:
        name = check.__name__
        return Claim(name.replace("_", "-"), says, check)

    return made


def require(truth: bool, otherwise: str) -> None:
    """Go on if something is as claimed.

    Raises:
        ClaimError: it is not; `otherwise` says what was found instead.
    """
    if not truth:
        raise ClaimError(otherwise)


def require_equal(found: object, expected: object, what: str) -> None:
    """Go on if two things are equal.

    Raises:
        ClaimError: they are not.
    """
    require(found == expected, f"{what} is {found!r}, and {expected!r} was expected")
