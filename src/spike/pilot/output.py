"""How results are shown: for people, as JSON, as YAML. Data go to standard output, all else does not."""

from __future__ import annotations

import json
import sys
import unicodedata
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import Any

import click


class Format(StrEnum):
    """The form of a result."""

    HUMAN = "human"
    JSON = "json"
    YAML = "yaml"


def option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--format` to a command; it gets a parameter `output_format`."""
    return click.option(
        "-f",
        "--format",
        "output_format",
        type=click.Choice([each.value for each in Format]),
        callback=lambda _context, _parameter, value: Format(value),
        default=Format.HUMAN.value,
        show_default=True,
        help="Form of the output.",
    )(command)


def show(data: object, output_format: Format, human: Iterable[str]) -> None:
    """Write a result to standard output: `human` line by line, or `data` in another form."""
    match output_format:
        case Format.HUMAN:
            for line in human:
                click.echo(printable(line, terminal=sys.stdout.isatty()))
        case Format.JSON:
            click.echo(_escaped(json.dumps(data, indent=2, ensure_ascii=False)))
        case Format.YAML:
            import yaml

            text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
            if any(map(_steers, text)):
                text = yaml.safe_dump(data, sort_keys=False, allow_unicode=False)
            click.echo(text.removesuffix("...\n"), nl=False)  # what ends a lone scalar


def show_line(data: object) -> None:
    """Write one JSON object to standard output, on a line of its own and at once: one of a stream."""
    click.echo(_escaped(json.dumps(data, ensure_ascii=False)))
    sys.stdout.flush()


def note(text: str) -> None:
    """Tell a person something that is no data: standard error."""
    click.echo(printable(text, terminal=sys.stderr.isatty()), err=True)


def printable(text: str, *, terminal: bool) -> str:
    """Return text that cannot steer a terminal, when it goes to one.

    Whoever may write a secret chooses its value; an escape sequence in it must not move the cursor
    or retitle the window of the administrator who looks at it.
    """
    if not terminal:
        return text
    return "".join(
        character.encode("unicode_escape", "surrogatepass").decode()
        if _steers(character)
        else character
        for character in text
    )


def _escaped(text: str) -> str:
    """Return JSON that means the same and steers no terminal, however it gets to one.

    Outside of its strings JSON has none of these characters, and inside each has an escape.
    """
    return "".join(json.dumps(each)[1:-1] if _steers(each) else each for each in text)


def _steers(character: str) -> bool:
    """Tell whether a terminal would act on a character, or hide or turn around what is near it."""
    return character not in "\n\t" and unicodedata.category(character) in ("Cc", "Cf", "Cs")
