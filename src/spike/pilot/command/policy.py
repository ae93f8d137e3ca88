"""`spike policy`: create, apply, get, list, delete."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from spike.error import FormatError, InputError, RefusedError, SettingError
from spike.pilot import output, prompt
from spike.pilot.output import Format
from spike.pilot.policy_file import LIMIT_BYTES, PolicyFile, decode_untrusted
from spike.pilot.session import Session
from spike.wire import validate


def _fields(command: Callable[..., Any]) -> Callable[..., Any]:
    for option, text in (
        ("--permissions", "Of read, write, list, execute, super; separated by commas."),
        ("--spiffeid-pattern", "Regular expression (RE2) for the workload's SPIFFE ID."),
        ("--path-pattern", "Regular expression (RE2) for the secret's path."),
        ("--name", "Name of the policy."),
    ):
        command = click.option(option, help=text)(command)
    return command


def _given(
    name: str | None,
    path_pattern: str | None,
    spiffeid_pattern: str | None,
    permissions: str | None,
) -> PolicyFile:
    missing = [
        option
        for option, value in (
            ("--name", name),
            ("--path-pattern", path_pattern),
            ("--spiffeid-pattern", spiffeid_pattern),
            ("--permissions", permissions),
        )
        if not value
    ]
    if missing:
        raise click.UsageError(f"Missing {', '.join(missing)}.")
    return PolicyFile(
        name or "",
        spiffeid_pattern or "",
        path_pattern or "",
        [part.strip() for part in (permissions or "").split(",")],
    )


def _require_valid(policy: PolicyFile) -> None:
    try:
        validate.check_name(policy.name)
        validate.check_spiffe_pattern(policy.spiffeid_pattern)
        validate.check_path_pattern(policy.path_pattern)
        validate.check_permissions(policy.permissions)
    except InputError as error:
        raise click.UsageError(f"The policy is refused: {error.message}.") from error


def _put(policy: PolicyFile, *, replace: bool) -> None:
    _require_valid(policy)
    session = Session.of_process()
    with session.connect() as nexus:
        if not replace and policy.name in nexus.list_policies():
            raise RefusedError(
                f"there is a policy {policy.name} already", "replace it with `spike policy apply`"
            )
        nexus.put_policy(
            policy.name, policy.spiffeid_pattern, policy.path_pattern, policy.permissions
        )
        session.renew_anchor(nexus)


@click.group(
    epilog="""\b
Patterns match anywhere in the text unless they begin with ^ and end with $.
Without a policy that grants it, nothing is allowed.
"""
)
def policy() -> None:
    """Say which workload may do what with which secrets."""


@policy.command(
    epilog="""\b
Example:
  spike policy create --name acme-web --path-pattern '^tenant/acme/' \\
    --spiffeid-pattern '^spiffe://example\\.org/acme/web$' --permissions read
"""
)
@_fields
def create(
    name: str | None,
    path_pattern: str | None,
    spiffeid_pattern: str | None,
    permissions: str | None,
) -> None:
    """Create a policy; refused if there is one of this name."""
    _put(_given(name, path_pattern, spiffeid_pattern, permissions), replace=False)
    click.echo("Policy created successfully.")


@policy.command(
    epilog="""\b
Examples:
  spike policy apply --file policy.yaml
\b
policy.yaml:
  name: acme-web
  spiffeidPattern: ^spiffe://example\\.org/acme/web$
  pathPattern: ^tenant/acme/
  permissions: [read]
"""
)
@_fields
@click.option(
    "--file",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read the policy from a YAML file instead.",
)
def apply(
    name: str | None,
    path_pattern: str | None,
    spiffeid_pattern: str | None,
    permissions: str | None,
    file: Path | None,
) -> None:
    """Create a policy, or replace the one of this name."""
    if file is None:
        found = _given(name, path_pattern, spiffeid_pattern, permissions)
    elif name or path_pattern or spiffeid_pattern or permissions:
        raise click.UsageError("Give the policy by --file or by the other options, not both.")
    else:
        found = _read(file)
    _put(found, replace=True)
    click.echo(f"Policy '{found.name}' applied successfully")


@policy.command(epilog="\b\nExample:\n  spike policy get acme-web --format yaml")
@click.argument("name", required=False)
@click.option("--name", "named", help="Name of the policy.")
@output.option
def get(name: str | None, named: str | None, output_format: Format) -> None:
    """Show a policy."""
    wanted = _one_name(name, named)
    with Session.of_process().connect() as nexus:
        found = nexus.get_policy(wanted)
    data = {
        "name": found.name,
        "spiffeidPattern": found.spiffied_pattern,
        "pathPattern": found.path_pattern,
        "permissions": found.permissions,
        "createdAt": found.created_at,
        "updatedAt": found.updated_at,
    }
    human = [
        f"Name: {found.name}",
        f"SPIFFE ID pattern: {found.spiffied_pattern}",
        f"Path pattern: {found.path_pattern}",
        f"Permissions: {', '.join(found.permissions)}",
        f"Created: {found.created_at}",
        f"Updated: {found.updated_at}",
    ]
    output.show(data, output_format, human)


@policy.command("list", epilog="\b\nExample:\n  spike policy list --path-pattern '^tenant/acme/'")
@click.option("--path-pattern", default="", help="Only policies with exactly this path pattern.")
@click.option("--spiffeid-pattern", default="", help="Only those with exactly this ID pattern.")
@output.option
def list_(path_pattern: str, spiffeid_pattern: str, output_format: Format) -> None:
    """List the names of policies."""
    if path_pattern and spiffeid_pattern:
        raise click.UsageError("Give --path-pattern or --spiffeid-pattern, not both.")
    if not (path_pattern + spiffeid_pattern).isascii():
        raise click.UsageError("No pattern has other characters than ASCII.")
    with Session.of_process().connect() as nexus:
        names = nexus.list_policies(spiffeid_pattern, path_pattern)
    output.show(names, output_format, [f"- {name}" for name in names] or ["No policies found."])


@policy.command(
    epilog="""\b
Examples:
  spike policy delete acme-web
  spike policy delete acme-web --yes
"""
)
@click.argument("name", required=False)
@click.option("--name", "named", help="Name of the policy.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(name: str | None, named: str | None, yes: bool) -> None:
    """Delete a policy, after asking. What it alone allowed is denied from then on."""
    wanted = _one_name(name, named)
    if not yes and not prompt.confirm(f"Delete policy {wanted}?"):
        raise RefusedError("the policy was not deleted: not confirmed", "answer y, or give --yes")
    session = Session.of_process()
    with session.connect() as nexus:
        nexus.delete_policy(wanted)
        session.renew_anchor(nexus)
    click.echo("Policy deleted successfully.")


def _one_name(argument: str | None, option: str | None) -> str:
    if (argument is None) == (option is None):
        raise click.UsageError("Give the name of one policy.")
    name = argument or option or ""
    try:
        validate.check_name(name)
    except InputError as error:
        raise click.UsageError(f"{error.message}.") from error
    return name


def _read(path: Path) -> PolicyFile:
    try:
        with path.open("rb") as file:
            raw = file.read(LIMIT_BYTES + 1)
    except OSError as error:
        raise SettingError(
            f"the policy file {path} cannot be read: {error.strerror}", "check the path"
        ) from error
    try:
        return decode_untrusted(raw)
    except FormatError as error:
        raise FormatError(
            f"{error.message} ({path})", "see the example in: spike policy apply --help"
        ) from error
