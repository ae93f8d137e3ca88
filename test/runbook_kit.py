"""Runs the console blocks of a runbook, command by command, as somebody types them who follows it.

    play("docs/runbook/restore-fresh-machine.md", environment, directory)

The blocks are those of the README (console_kit): `$ …` is typed, the lines behind it are what is shown, `[…]` is
anything, `[exit N]` the code if it is not 0. A line that ends with `[y/N] y` is a question and its answer; one that
ends with `type "TEXT": TEXT` is a phrase that is wanted, typed on a terminal. Each command has a shell of its own in
`directory`. A comment `<!-- happens: WORD -->`, which a reader does not see, makes the situation of the next block.
"""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from console_kit import Command, commands, pattern
from doc_kit import page
from terminal_kit import TAKE_TERMINAL, Terminal

_STEP = re.compile(
    r"^<!-- happens: ([^\n]+) -->$|^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
_QUESTION = re.compile(r"\[y/N\] y$")
_PHRASE = re.compile(r'type "(.+)": \1$')
_WANTED = re.compile(r'type "(.+)": ')


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
    if any(_PHRASE.search(line) for line in expected):
        code, shown = _on_terminal(command.text, environment, directory)
    else:
        answer = "y\n" if expected != command.expected else ""
        code, shown = _on_pipes(command.text, environment, directory, answer)
    told = f"$ {command.text}\n{shown}"
    assert code == command.code, told
    assert pattern(expected).fullmatch(shown), told


def _on_pipes(
    text: str, environment: Mapping[str, str], directory: Path, answer: str
) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=directory,
        env=dict(environment),
        input=answer,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def _on_terminal(text: str, environment: Mapping[str, str], directory: Path) -> tuple[int, str]:
    """Run it on a terminal of its own, and type the phrase that it asks for."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-I", "-c", TAKE_TERMINAL, "/bin/bash", "-c", text],
        cwd=directory,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=dict(environment),
        start_new_session=True,
    ) as process:
        os.close(theirs)
        try:
            typing = Terminal(process, ours)
            typing.wait_for('type "')
            typing.wait_for('": ')
            wanted = _WANTED.search(typing.shown)
            assert wanted, typing.shown
            typing.type(f"{wanted[1]}\n")
            return typing.end(), typing.shown.replace("\r\n", "\n")
        finally:
            process.kill()
            os.close(ours)
