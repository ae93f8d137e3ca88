"""docs/reference/command.md says of each command what the command's own help says."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from doc_kit import page, rows, sections
from spike.authority.app import authority
from spike.nexus.__main__ import _HELP as NEXUS_HELP
from spike.pilot.app import spike
from spike.pilot.failure import Exit

PAGE = "docs/reference/command.md"


def leaves(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield every command that does something, by its full name."""
    if not isinstance(command, click.Group):
        yield name, command
        return
    context = click.Context(command, info_name=name)
    for each in command.list_commands(context):
        child = command.get_command(context, each)
        assert child is not None
        yield from leaves(f"{name} {each}", child)


COMMANDS = dict([*leaves("spike", spike), *leaves("spike-authority", authority)])


def heading(name: str, command: click.Command) -> str:
    """Return what a command's heading must be: its name and its arguments."""
    context = click.Context(command, info_name=name)
    arguments = [
        parameter.make_metavar(context)
        for parameter in command.params
        if isinstance(parameter, click.Argument)
    ]
    return " ".join([name, *arguments])


def expected_options(name: str, command: click.Command) -> list[list[str]]:
    """Return the rows of a command's table: spelling, and what the help says of it."""
    context = click.Context(command, info_name=name)
    found = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record and "--help" not in parameter.opts:
            found.append([f"`{record[0]}`", " ".join(record[1].split())])
    return found


def rendered(name: str, command: click.Command) -> str:
    """Return the section as it should stand in the page, for whoever has to write it."""
    summary = (command.help or "").replace("\b\n", "").split("\n\n")[0].replace("\n", " ")
    lines = [f"### {heading(name, command)}", "", summary, ""]
    options = expected_options(name, command)
    if options:
        table = [
            f"| {a.replace('|', chr(92) + '|')} | {b.replace('|', chr(92) + '|')} |"
            for a, b in options
        ]
        lines += ["| Option | Means |", "|---|---|", *table, ""]
    return "\n".join(lines)


def test_every_command_has_a_section_and_no_other_has() -> None:
    assert len(COMMANDS) > 20
    assert list(sections(page(PAGE), 3)) == [heading(*each) for each in COMMANDS.items()]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_section_says_what_the_help_says(name: str) -> None:
    command = COMMANDS[name]
    section = sections(page(PAGE), 3)[heading(name, command)].split("\n## ")[0]
    wanted = rendered(name, command)
    assert rows(section) == expected_options(name, command), f"should be:\n{wanted}"
    assert wanted.splitlines()[2] in " ".join(section.split()), f"should be:\n{wanted}"


def test_the_exit_codes_are_those_of_the_code() -> None:
    (first, *_) = rows(sections(page(PAGE))["Exit codes"])
    codes = [row[0] for row in rows(sections(page(PAGE))["Exit codes"])]
    assert codes == [str(code.value) for code in Exit]
    assert first[1]


def test_nexus_takes_no_options_but_help_and_version() -> None:
    text = sections(page(PAGE))["spike-nexus"]
    assert NEXUS_HELP.splitlines()[0].removeprefix("Usage: ") in text
