"""`spike init`: the root key of a new store, and the password that can bring it back."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from spike.client.nexus import NexusClient, PasswordFor
from spike.error import InputError, RefusedError
from spike.memory.process import harden
from spike.pilot import new_password, output, source
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.pilot.source import wiped
from spike.wire.own import InitAnswer
from spike.wire.validate import check_slot_name

WARNING = """\
The password is the only thing that brings the root key back when the running system is lost.
If you lose the password together with the running system, the data are lost for good: nobody,
and no support, can open them. Keep it in a password manager and in a sealed envelope, never
beside the backup (docs/guide/password.md)."""


@click.command(
    epilog="""\b
Examples:
  spike init
  spike init --generate --slot alice
  spike init --password-file /run/user/1000/password --format json
"""
)
@click.option(
    "--slot",
    "slot_name",
    default="admin",
    show_default=True,
    help="Name of the backup slot, such as the name of who holds the password.",
)
@click.option("--generate", is_flag=True, help="Make a password of ten words (110 bits).")
@source.option
@output.option
def init(
    *,
    slot_name: str,
    generate: bool,
    password_file: Path | None,
    password_fd: int | None,
    password_stdin: bool,
    output_format: Format,
) -> None:
    """Make the root key of a new store, once, and its first backup.

    Needs the superuser role. Asks twice for the password that can bring the root key back; it has
    15 to 256 characters of any kind, and what is easy to guess is refused. Nexus opens the backup
    with it before it reports success.

    With --generate the first line of the output is the password. It is shown once and stored
    nowhere.
    """
    try:
        check_slot_name(slot_name)
    except InputError as error:
        raise click.UsageError(f"The name is refused: {error.message}.") from error
    chosen = source.choose(password_file, password_fd, password_stdin, generate)
    harden()
    session = Session.of_process()
    with new_password.ready(chosen), session.connect_for_dialogue() as nexus:
        _require_new(nexus)
        output.note(WARNING)
        with wiped(new_password.obtain(chosen, slot_name)) as password:
            answer = nexus.init(PasswordFor(password, slot_name))
    session.keep_anchor(answer.anchor)
    _show(answer, output_format)


def _require_new(nexus: NexusClient) -> None:
    """Learn before the password is made up whether it can be used."""
    status = nexus.get_status()
    if status.ready or status.state in ("open", "locked"):
        raise RefusedError(
            "this store has been initialized already; that happens once only",
            "if it is locked, restore it: spike restore",
        )


def _show(answer: InitAnswer, output_format: Format) -> None:
    data = msgspec.to_builtins(answer)
    del data["anchor"]
    human = [
        "The store is initialized.",
        f"  Store: {answer.store_id}",
        f"  Root key: generation {answer.generation}, epoch {answer.epoch}",
        f"  Backup slot: {answer.slot}, opened with the password to verify it",
        *(
            f"  Backup place: {each.place}: {each.state}{_detail(each.detail)}"
            for each in answer.backup_places
        ),
    ]
    output.show(data, output_format, human)


def _detail(text: str) -> str:
    return f" ({text})" if text else ""
