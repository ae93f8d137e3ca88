"""Scripts that tell what a user types and sees: test/pilot/script/README.md says how one is written."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilot_kit import Site
from spike_fork import Run


@dataclass
class Step:
    """One command and what is expected of it, or one thing that happens to the server."""

    line: int
    role: str
    more: dict[str, str | None]
    arguments: list[str]
    happening: str = ""
    stdin: list[str] = field(default_factory=list)
    stdout: list[str] = field(default_factory=list)
    stderr: list[str] = field(default_factory=list)
    exit: int = 0


@dataclass
class Script:
    steps: list[Step]
    files: dict[str, str]


def parse(text: str) -> Script:
    told, *rest = re.split(r"^-- (.+) --\n", text, flags=re.MULTILINE)
    script = Script([], dict(zip(rest[::2], rest[1::2], strict=True)))
    role, more = "superuser", dict[str, str | None]()
    for number, line in enumerate(told.splitlines(), 1):
        word, _, value = line.partition(" ")
        last = script.steps[-1] if script.steps else None
        match word:
            case "" | "#":
                pass
            case "as":
                role = value
            case "env":
                name, equals, setting = value.partition("=")
                more[name] = setting if equals else None
            case "do":
                script.steps.append(Step(number, role, {}, [], happening=value))
            case "$":
                program, *arguments = shlex.split(value)
                assert program == "spike", f"line {number}"
                script.steps.append(Step(number, role, dict(more), arguments))
            case "<" | "1>" | "2>" if last:
                {"<": last.stdin, "1>": last.stdout, "2>": last.stderr}[word].append(value)
            case "exit" if last:
                last.exit = int(value)
            case _:
                raise AssertionError(f"line {number} says nothing known: {line}")
    return script


def pattern_of(expected: str) -> str:
    return ".*".join(map(re.escape, expected.split("[…]")))


def differences(step: Step, run: Run) -> Iterator[str]:
    if run.exit != step.exit:
        yield f"exit {run.exit} instead of {step.exit}"
    lines_wanted = ["(?:.*\n)*" if each == "⋮" else pattern_of(each) + "\n" for each in step.stdout]
    if not re.fullmatch("".join(lines_wanted), run.stdout):
        yield "standard output is another"
    if not step.stderr and run.stderr:
        yield "something on standard error"
    lines = iter(run.stderr.splitlines())
    for expected in step.stderr:
        if not any(re.fullmatch(pattern_of(expected), line) for line in lines):
            yield f"not on standard error, or not in this order: {expected}"


def play(script: Script, made: Site[Any], happenings: Mapping[str, Callable[[], None]]) -> int:
    """Play a script; return how many commands it had."""
    for name, content in script.files.items():
        file = made.directory / name
        file.write_text(content)
        file.chmod(0o644 if name.startswith("open") else 0o600)
    count = 0
    for step in script.steps:
        if step.happening:
            happenings[step.happening]()
            continue
        stdin = "".join(f"{line}\n" for line in step.stdin).encode()
        run = made.spike(step.role, *step.arguments, stdin=stdin, more=step.more)
        wrong = list(differences(step, run))
        assert not wrong, f"line {step.line}: {wrong}\n{run.stdout}\n{run.stderr}"
        count += 1
    return count
