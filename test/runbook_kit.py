"""Runs the console blocks of a runbook, command by command, as somebody types them who follows it.

    play("docs/runbook/restore-fresh-machine.md", environment, directory)

The blocks are those of the README (console_kit): `$ …` is typed, the lines behind it are what is shown, `[…]` is
anything, `[exit N]` the code if it is not 0. A line that ends with `[y/N] y` is a question and its answer. Each command
has a shell of its own in `directory`. A comment `<!-- happens: WORD -->`, which a reader does not see, makes the
situation of the next block.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from console_kit import Command, commands, pattern
from doc_kit import page

_STEP = re.compile(
    r"^<!-- happens: ([^\n]+) -->$|^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_QUESTION = re.compile(r"\[y/N\] y$")


def nothing(what: str) -> None:
    """Of pages in which nothing happens but what is typed."""
    raise AssertionError(f"nobody knows what happens: {what}")


def play(
    name: str,
    environment: Mapping[str, str],
    directory: Path,
    happen: Callable[[str], None] = nothing,
) -> int:
    """Run every command of the page; return how many there were. Fail at the first that does otherwise."""
    count = 0
    for step in _steps(page(name)):
        if isinstance(step, str):
            happen(step)
        else:
            _run(step, environment, directory)
            count += 1
    return count


def _steps(text: str) -> Iterator[str | Command]:
    """Yield what happens and what is typed, in the order of the page."""
    for match in _STEP.finditer(text):
        if match[1]:
            yield match[1]
        else:
            yield from commands(match[2])


def _run(command: Command, environment: Mapping[str, str], directory: Path) -> None:
    expected = tuple(_QUESTION.sub("[y/N] ", line) for line in command.expected)
    done = subprocess.run(
        ["bash", "-c", command.text],
        cwd=directory,
        env=dict(environment),
        input="y\n" if expected != command.expected else "",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    told = f"$ {command.text}\n{done.stdout}"
    assert done.returncode == command.code, told
    assert pattern(expected).fullmatch(done.stdout), told
