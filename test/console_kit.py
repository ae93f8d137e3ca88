"""Blocks `console` of pages: commands (`$ …`) and what they print.

`[…]` in a line stands for anything, alone on its line for any lines; `[exit N]` is the code if it is not 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """What is typed, and what is shown then."""

    text: str
    expected: tuple[str, ...]
    code: int


def commands(block: str) -> Iterator[Command]:
    """Yield the commands of one block."""
    first, *parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert not first, "a block begins with a command"
    for part in parts:
        typed, *shown = part.splitlines()
        code = 0
        if shown and (match := re.fullmatch(r"\[exit (\d+)\]", shown[-1])):
            code, shown = int(match[1]), shown[:-1]
        yield Command(typed, tuple(shown), code)


def pattern(expected: tuple[str, ...]) -> re.Pattern[str]:
    """Return what the whole output of a command must match."""
    lines = [
        r"(?:.*\n)*?" if line == "[…]" else re.escape(line).replace(re.escape("[…]"), ".*") + r"\n"
        for line in expected
    ]
    return re.compile("".join(lines))
