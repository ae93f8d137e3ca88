"""Runs the console blocks of a runbook, command by command, as somebody types them who follows it.

    play("docs/runbook/restore-fresh-machine.md", environment, directory)

The blocks are those of the README (test/doc/test_readme.py): `$ …` is typed, the lines behind it are what is shown,
`[…]` is anything, `[exit N]` the code if it is not 0. Each command has a shell of its own in `directory`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from doc.test_readme import commands, pattern
from doc_kit import fences, page


def play(name: str, environment: Mapping[str, str], directory: Path) -> int:
    """Run every command of the page; return how many there were. Fail at the first that does otherwise."""
    count = 0
    for language, content in fences(page(name)):
        if language != "console":
            continue
        for command in commands(content):
            done = subprocess.run(
                ["bash", "-c", command.text],
                cwd=directory,
                env=dict(environment),
                capture_output=True,
                text=True,
                check=False,
            )
            told = f"$ {command.text}\n{done.stdout}{done.stderr}"
            assert done.returncode == command.code, told
            assert pattern(command.expected).fullmatch(done.stdout), told
            count += 1
    return count
