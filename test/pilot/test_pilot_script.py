"""Pilot as its user sees it: every script of script/ (see its README) against a real server."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pilot_kit import ShippedNexus, Site, SmallNexus, SomeNexus, site
from spike_fork import Run

SCRIPTS = sorted(Path(__file__).with_name("script").glob("*.txt"))
SHIPPED_ALONE = frozenset({"drill"})
"""Scripts of what the small Nexus does not do."""


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


def play(script: Script, made: Site[SomeNexus], happenings: dict[str, Callable[[], None]]) -> int:
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


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        pytest.param(kind, path, id=f"{name}-{path.stem}")
        for kind, name in ((SmallNexus, "small"), (ShippedNexus, "shipped"))
        for path in SCRIPTS
        if kind is ShippedNexus or path.stem not in SHIPPED_ALONE
    ],
)
def test_the_script_is_what_a_user_sees(kind: type[SomeNexus], path: Path) -> None:
    with site(kind()) as made:
        happenings = {
            "lose-memory": made.nexus.lose_memory,
            "copy-store": made.nexus.copy_store,
            "put-old-copy-back": made.nexus.put_old_copy_back,
        }
        assert play(parse(path.read_text()), made, happenings) > 5


def test_pilot_itself_remembers_how_far_a_store_was() -> None:
    # Nexus and its backup places may have forgotten too: then Pilot is the last one to know.
    with site(SmallNexus()) as made:
        password = b"seven otters juggle turnips"
        assert made.spike("superuser", "init", "--password-stdin", stdin=password).exit == 0
        made.nexus.copy_store()
        made.nexus.lose_memory()
        restore = ("restore", "restore", "--password-stdin", "--yes")
        assert made.spike(*restore, stdin=password).exit == 0
        made.nexus.put_old_copy_back()
        run = made.spike(*restore, stdin=password)
        assert run.exit == 1
        assert "is an old copy" in run.stderr
        assert "Pilot saw it at lineage" in run.stderr
        status = made.spike("superuser", "status")
        assert "LOCKED" in status.stdout


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 4


@pytest.mark.parametrize(
    ("run", "wrong"),
    [
        (Run(0, "a 1 b\n", "Error: x\n"), ""),
        (Run(1, "a 1 b\n", "Error: x\n"), "exit 1"),
        (Run(0, "a 1 c\n", "Error: x\n"), "standard output"),
        (Run(0, "a 1 b\nmore\n", "Error: x\n"), "standard output"),
        (Run(0, "", "Error: x\n"), "standard output"),
        (Run(0, "a 1 b\n", "Error: y\n"), "standard error"),
    ],
)
def test_a_script_notices_what_differs(run: Run, wrong: str) -> None:
    step = parse("$ spike x\n1> a […] b\n2> Error: x\n").steps[0]
    assert [wrong in each for each in differences(step, run)] == ([True] if wrong else [])
