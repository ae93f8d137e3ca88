"""`spike secret`: put, get, list, delete, undelete, metadata get."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from spike.error import InputError, NotFoundError
from spike.pilot import output
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.pilot.value import read_values
from spike.wire.message import GoTime
from spike.wire.secret import SecretMetadataAnswer
from spike.wire.validate import check_path


class Path(click.ParamType[str]):
    """The path of a secret."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the path if Nexus would take it; else this is wrong usage."""
        try:
            check_path(value)
        except InputError as error:
            self.fail(f"{error.message}.", param, ctx)
        return str(value)


class VersionList(click.ParamType[tuple[int, ...]]):
    """Version numbers, separated by commas."""

    name = "versions"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Return the numbers; 0 is the current version."""
        if isinstance(value, tuple):
            return value
        parts = [part.strip() for part in str(value).split(",")]
        if not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
            self.fail("give version numbers separated by commas, such as 1,3.", param, ctx)
        return tuple(int(part) for part in parts)


def _path_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("path", type=Path())(command)


def _version_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-v",
        "--version",
        type=click.IntRange(min=0, max=2**63 - 1),
        default=0,
        help="Version; without it, or 0, the current one.",
    )(command)


def _versions_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "-v",
        "--versions",
        type=VersionList(),
        default=(),
        help="Versions, such as 1,3; without it, or 0, the current one.",
    )(command)


@click.group()
def secret() -> None:
    """Put, get, list and delete secrets.

    A secret is a path with values by key, in numbered versions.
    """


@secret.command(
    epilog="""\b
Examples:
  spike secret put tenant/acme/database user=acme password=@password.txt
  make-token | spike secret put tenant/acme/api token=-
"""
)
@_path_argument
@click.argument("values", nargs=-1, required=True, metavar="KEY=VALUE...")
def put(path: str, values: tuple[str, ...]) -> None:
    """Write a new version of a secret.

    A value comes from a file with KEY=@FILE and from standard input with KEY=-; both are taken as
    they are, to the last newline. KEY=VALUE works too, but stays in the shell's history and is
    visible to other users of the machine while the command runs. A value that begins with @ or -
    itself: KEY=\\@VALUE.
    """
    found = read_values(values, sys.stdin.buffer)
    with Session.of_process().connect() as nexus:
        nexus.put_secret(path, found)
    click.echo("OK")


@secret.command(
    epilog="""\b
Examples:
  spike secret get tenant/acme/database
  spike secret get tenant/acme/database password
  spike secret get tenant/acme/database --version 2 --format json
  spike secret get tenant/acme/database --keys-only
"""
)
@_path_argument
@click.argument("key", required=False)
@_version_option
@click.option("--keys-only", is_flag=True, help="Show the keys, and no value.")
@click.option("--metadata-only", is_flag=True, help="Show versions and dates; fetch no value.")
@output.option
def get(
    *,
    path: str,
    key: str | None,
    version: int,
    keys_only: bool,
    metadata_only: bool,
    output_format: Format,
) -> None:
    """Show a secret, or the bare value of one KEY.

    Values are shown in plain text, and Nexus records each display. With --keys-only they are
    fetched but not shown; with --metadata-only they do not leave Nexus.
    """
    if (key is not None) + keys_only + metadata_only > 1:
        raise click.UsageError("Give one of KEY, --keys-only and --metadata-only, not several.")
    with Session.of_process().connect() as nexus:
        if metadata_only:
            _show_metadata(nexus.get_secret_metadata(path, version), output_format)
            return
        values = dict(sorted(nexus.get_secret(path, version).items()))
    if keys_only:
        output.show(list(values), output_format, values)
    elif key is None:
        human = [f"{name}: {value}" for name, value in values.items()]
        output.show(values, output_format, human)
    elif key in values:
        output.show(values[key], output_format, [values[key]])
    else:
        raise NotFoundError(
            f"the secret {path} has no key of that name", "see which it has with --keys-only"
        )


@secret.command("list", epilog="\b\nExample:\n  spike secret list --format json")
@output.option
def list_(output_format: Format) -> None:
    """List the paths of all secrets, also of those whose versions are all deleted."""
    with Session.of_process().connect() as nexus:
        paths = nexus.list_secrets()
    human = [f"- {path}" for path in paths] or ["No secrets found."]
    output.show(paths, output_format, human)


@secret.command(
    epilog="""\b
Examples:
  spike secret delete tenant/acme/database
  spike secret delete tenant/acme/database --versions 1,2
"""
)
@_path_argument
@_versions_option
def delete(path: str, versions: tuple[int, ...]) -> None:
    """Delete versions of a secret. They can be undeleted until newer versions push them out."""
    with Session.of_process().connect() as nexus:
        nexus.delete_secret(path, versions)
    click.echo("OK")


@secret.command(
    epilog="""\b
Examples:
  spike secret undelete tenant/acme/database
  spike secret undelete tenant/acme/database --versions 2
"""
)
@_path_argument
@_versions_option
def undelete(path: str, versions: tuple[int, ...]) -> None:
    """Bring deleted versions of a secret back."""
    with Session.of_process().connect() as nexus:
        nexus.undelete_secret(path, versions)
    click.echo("OK")


@secret.group()
def metadata() -> None:
    """Look at a secret without its values."""


@metadata.command(
    "get", epilog="\b\nExample:\n  spike secret metadata get tenant/acme/database --format yaml"
)
@_path_argument
@_version_option
@output.option
def metadata_get(path: str, version: int, output_format: Format) -> None:
    """Show versions and dates of a secret."""
    with Session.of_process().connect() as nexus:
        _show_metadata(nexus.get_secret_metadata(path, version), output_format)


def _show_metadata(answer: SecretMetadataAnswer, output_format: Format) -> None:
    import msgspec

    whole, versions = answer.metadata, [answer.versions[n] for n in sorted(answer.versions)]
    human = [
        "Metadata:",
        f"  Current version: {whole.current_version or 'none (all are deleted)'}",
        f"  Oldest version: {whole.oldest_version}",
        f"  Created: {_date(whole.created_time)}",
        f"  Updated: {_date(whole.updated_time)}",
        f"  Versions kept: {whole.max_versions}",
        "",
        "Secret Versions:",
    ]
    for each in versions:
        deleted = f", deleted {_date(each.deleted_time)}" if each.deleted_time else ""
        human.append(f"  {each.version}: created {_date(each.created_time)}{deleted}")
    output.show(msgspec.to_builtins(answer, str_keys=True), output_format, human)


def _date(moment: GoTime) -> str:
    """Return a moment to the second, in UTC, as people read it."""
    return moment[:19].replace("T", " ") + " UTC" if moment.endswith("Z") else moment
