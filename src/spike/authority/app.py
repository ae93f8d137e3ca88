"""The command line of `spike-authority`."""

from __future__ import annotations

import json
import logging
import os
import pwd
import sys
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import click

from spike.client.control import (
    CONTROL_VARIABLE,
    BundleAddRequest,
    BundleList,
    BundleListRequest,
    BundleRemoveRequest,
    BundleShowRequest,
    ControlClient,
    Done,
    EntryAddRequest,
    EntryList,
    EntryListRequest,
    EntryRemoveRequest,
    Status,
    StatusRequest,
)
from spike.error import InputError, SettingError, SpiffeIdError
from spike.spiffe.id import SpiffeId, parse_trust_domain_untrusted
from spike.wire.duration import parse_duration_untrusted

LEVEL_VARIABLE: Final = "SPIKE_SYSTEM_LOG_LEVEL"
_LEVELS: Final = {"DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "FATAL": 50}
_PEM_READ_LIMIT: Final = 1024 * 1024
# An SVID of less would be renewed all the time; one of more is not short-lived.
_SVID_LIFETIME_S: Final = (2.0, 24 * 3600.0)
_AUTHORITY_LIFETIME_S: Final = (8.0, 10 * 365 * 24 * 3600.0)

_Decorated = TypeVar("_Decorated", bound=Callable[..., Any])


def default_directory(environment: Mapping[str, str]) -> Path:
    """Return where sockets and entries are if nothing else is said.

    Raises:
        SettingError: there is no home directory.
    """
    state = environment.get("XDG_STATE_HOME", "")
    if state.startswith("/"):
        return Path(state) / "spike" / "authority"
    home = environment.get("HOME", "")
    if not home.startswith("/"):
        raise SettingError("there is no home directory", "set HOME, or name every path")
    return Path(home) / ".local" / "state" / "spike" / "authority"


def _control_option(command: _Decorated) -> _Decorated:
    return click.option(
        "--control",
        envvar=CONTROL_VARIABLE,
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="Authority's control socket. [default: $XDG_STATE_HOME/spike/authority/control.sock]",
    )(command)


def _control_path(given: Path | None) -> Path:
    return (given or default_directory(os.environ) / "control.sock").absolute()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def authority() -> None:
    """A SPIFFE Workload API server for one machine: development, tests, first steps.

    In production SPIRE takes its place, and only SPIFFE_ENDPOINT_SOCKET changes.

    A process gets an identity in one of two ways: `run` starts it with one, or an entry gives one to
    every process of its user that was not started so. The executable's path says nothing.
    """


@authority.command()
@click.option("--socket", type=click.Path(path_type=Path), help="The Workload API's socket.")
@_control_option
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="The directory of the entry file, of ours alone.",
)
@click.option("--trust-domain", default="spike.ist", show_default=True)
@click.option(
    "--svid-lifetime",
    default="1h",
    show_default=True,
    help="How long an SVID lives, as in Go: 90s, 1h30m; it is renewed at half of it.",
)
@click.option(
    "--authority-lifetime",
    default="168h",
    show_default=True,
    help="How long a CA key lives; its successor comes in at half of it.",
)
def serve(
    *,
    socket: Path | None,
    control: Path | None,
    data: Path | None,
    trust_domain: str,
    svid_lifetime: str,
    authority_lifetime: str,
) -> None:
    """Serve the Workload API on this machine until SIGTERM or Ctrl-C.

    Sockets and data are in $XDG_STATE_HOME/spike/authority unless named. At its first start the user
    it runs as gets the superuser role, and nobody else anything. The CA key is in memory only: every
    start makes a new one, and everybody takes it over within seconds.

    For processes of other users, put --socket in a directory they may enter and only you may write,
    for example one made with: install -d -m 0755 /run/spike
    """
    from spike.authority.serve import Setting
    from spike.authority.serve import serve as serve_forever

    _start_log(os.environ)
    svid_s = _duration("--svid-lifetime", svid_lifetime, _SVID_LIFETIME_S)
    authority_s = _duration("--authority-lifetime", authority_lifetime, _AUTHORITY_LIFETIME_S)
    if authority_s < 4 * svid_s:
        raise SettingError(
            "--authority-lifetime is less than four times --svid-lifetime",
            "SVIDs would end with their CA; give a longer one",
        )
    try:
        domain = parse_trust_domain_untrusted(trust_domain)
    except SpiffeIdError as error:
        raise SettingError(f"--trust-domain: {error.message}") from error
    serve_forever(
        Setting(
            socket=(socket or default_directory(os.environ) / "agent.sock").absolute(),
            control=_control_path(control),
            data=(data or default_directory(os.environ)).absolute(),
            trust_domain=domain,
            svid_lifetime=timedelta(seconds=svid_s),
            authority_lifetime=timedelta(seconds=authority_s),
        ),
        click.echo,
    )


@authority.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.option("--id", "ids", multiple=True, required=True, metavar="SPIFFE-ID", help="Exactly one.")
@_control_option
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(ids: tuple[str, ...], control: Path | None, command: tuple[str, ...]) -> int:
    """Run COMMAND with an identity of its own: spike-authority run --id ID -- COMMAND…

    The identity belongs to this one process, not to those it starts. The recover and restore roles
    are only got this way. The exit code is COMMAND's, or 128 + n if signal n ended it.
    """
    from spike.authority.run import run as run_command

    if len(ids) != 1:
        raise click.UsageError("--id is given exactly once")
    return run_command(_control_path(control), _spiffe_id(ids[0]), command)


@authority.group()
def entry() -> None:
    """Identities of users: every process of a user that `run` did not start gets them."""


@entry.command("add")
@click.option("--uid", required=True, metavar="UID|USER")
@click.option("--id", "spiffe_id", required=True, metavar="SPIFFE-ID")
@click.option(
    "--hint", default="", help="Tells a caller with several identities what this one is for."
)
@click.option(
    "--place",
    type=click.Choice(["first", "last"]),
    default="last",
    show_default=True,
    help="The user's first entry is its default identity.",
)
@_control_option
def entry_add(
    uid: str, spiffe_id: str, hint: str, place: Literal["first", "last"], control: Path | None
) -> None:
    """Give every process of a user an identity."""
    request = EntryAddRequest(_uid(uid), str(_spiffe_id(spiffe_id)), hint, place)
    with ControlClient.connect(_control_path(control)) as client:
        client.call(request, Done)
    click.echo("OK")


@entry.command("list")
@_control_option
def entry_list(control: Path | None) -> None:
    """List the entries; the first of each user is its default."""
    with ControlClient.connect(_control_path(control)) as client:
        found = client.call(EntryListRequest(), EntryList).entries
    for each in found:
        click.echo(f"{each.uid} {each.id}" + (f" {each.hint}" if each.hint else ""))
    if not found:
        click.echo("No entries found.")


@entry.command("remove")
@click.option("--uid", required=True, metavar="UID|USER")
@click.option("--id", "spiffe_id", required=True, metavar="SPIFFE-ID")
@_control_option
def entry_remove(uid: str, spiffe_id: str, control: Path | None) -> None:
    """Remove an entry; streams that lived by it end at once."""
    request = EntryRemoveRequest(_uid(uid), str(_spiffe_id(spiffe_id)))
    with ControlClient.connect(_control_path(control)) as client:
        client.call(request, Done)
    click.echo("OK")


@authority.group()
def bundle() -> None:
    """Trust bundles: whose identities are believed."""


@bundle.command("add")
@click.argument("trust_domain")
@click.argument("file", type=click.File("rb"), default="-")
@_control_option
def bundle_add(trust_domain: str, file: Any, control: Path | None) -> None:
    """Believe a foreign trust domain's CA certificates (PEM), from FILE or standard input."""
    pem = file.read(_PEM_READ_LIMIT).decode("utf-8", "replace")
    with ControlClient.connect(_control_path(control)) as client:
        client.call(BundleAddRequest(trust_domain, pem), Done)
    click.echo("OK")


@bundle.command("list")
@_control_option
def bundle_list(control: Path | None) -> None:
    """List the foreign trust domains that are believed."""
    with ControlClient.connect(_control_path(control)) as client:
        found = client.call(BundleListRequest(), BundleList).bundles
    for each in found:
        count = each.pem.count("-----BEGIN CERTIFICATE-----")
        click.echo(f"{each.trust_domain} {count} certificate{'' if count == 1 else 's'}")
    if not found:
        click.echo("No foreign bundles found.")


@bundle.command("remove")
@click.argument("trust_domain")
@_control_option
def bundle_remove(trust_domain: str, control: Path | None) -> None:
    """Believe a foreign trust domain no longer."""
    with ControlClient.connect(_control_path(control)) as client:
        client.call(BundleRemoveRequest(trust_domain), Done)
    click.echo("OK")


@bundle.command("show")
@_control_option
def bundle_show(control: Path | None) -> None:
    """Print our own CA certificates in PEM, for others to believe."""
    with ControlClient.connect(_control_path(control)) as client:
        found = client.call(BundleShowRequest(), BundleList).bundles
    for each in found:
        click.echo(each.pem, nl=False)


@authority.command()
@click.option("--format", "form", type=click.Choice(["human", "json"]), default="human")
@_control_option
def status(form: str, control: Path | None) -> None:
    """Say how Authority is, and which processes have an identity of their own."""
    with ControlClient.connect(_control_path(control)) as client:
        found = client.call(StatusRequest(), Status)
    if form == "json":
        click.echo(json.dumps(_plain(found), indent=2))
        return
    click.echo(f"Trust domain:   {found.trust_domain}")
    click.echo(f"Workload API:   unix://{found.socket}")
    click.echo(f"Process:        {found.pid}, since {found.started_at}")
    click.echo(f"CA key:         in memory only, until {found.authority_expires_at}")
    click.echo(f"SVID lifetime:  {found.svid_lifetime_s:g} s")
    click.echo(f"Entries:        {found.entries}")
    click.echo(f"Foreign:        {', '.join(found.foreign_trust_domains) or 'none'}")
    click.echo(f"Connections:    {found.connections}, with {found.streams} streams")
    if not found.grants_possible:
        click.echo("Grants:         not on this kernel; Linux 6.5 or newer can")
    for grant in found.grants:
        click.echo(f"Grant:          pid {grant.pid} has {grant.id}")


def _plain(found: Status) -> object:
    import msgspec

    return msgspec.to_builtins(found)


def _spiffe_id(text: str) -> SpiffeId:
    try:
        return SpiffeId.parse_untrusted(text)
    except SpiffeIdError as error:
        raise click.UsageError(f"--id: {error.message}") from error


def _uid(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 10:
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError):
        raise click.UsageError("--uid: there is no such user on this machine") from None


def _duration(option: str, text: str, limit_s: tuple[float, float]) -> float:
    try:
        seconds = parse_duration_untrusted(text)
    except InputError as error:
        raise SettingError(f"{option}: {error.message}") from error
    least, most = limit_s
    if not least <= seconds <= most:
        raise SettingError(f"{option} is not between {least:g} s and {most / 3600:g} h")
    return seconds


def _start_log(environment: Mapping[str, str]) -> None:
    name = environment.get(LEVEL_VARIABLE) or "WARN"
    if name.upper() not in _LEVELS:
        raise SettingError(f"{LEVEL_VARIABLE} is none of {', '.join(_LEVELS)}")
    logging.basicConfig(
        level=_LEVELS[name.upper()],
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        force=True,
    )
    # What it has to say is what callers' bytes make it stumble over, with stack traces: a caller
    # could fill the log. Our own faults are logged by ourselves.
    logging.getLogger("grpclib").setLevel(logging.CRITICAL + 1)
