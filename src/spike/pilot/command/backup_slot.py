"""`spike backup slot`: several people, each with a password of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from spike.client.backup import SlotChange
from spike.client.nexus import NexusClient
from spike.client.password import PasswordFor
from spike.error import InputError, RefusedError
from spike.memory.process import harden
from spike.pilot import new_password, output, prompt, source
from spike.pilot.backup_text import copy_lines, retired_lines, slot_lines
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.pilot.source import FromTerminal, Source, wiped
from spike.wire.backup import SlotAnswer
from spike.wire.validate import check_slot_name

_INSTEAD: Final = (
    "name where the password of slot {0} comes from: --with-slot {0} and --existing-password-file or "
    "--existing-password-fd"
)


@dataclass(frozen=True, slots=True)
class _Existing:
    """The slot whose password is shown, or an empty name, and where that password comes from."""

    slot_name: str
    source: Source


@click.group()
def slot() -> None:
    """Say who can open the key backup with a password."""


def _existing_option(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option(
        "--existing-password-fd",
        type=click.IntRange(min=0),
        metavar="N",
        help="Read the existing slot's password from the open file descriptor N.",
    )(command)
    command = click.option(
        "--existing-password-file",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Read the existing slot's password from FILE.",
    )(command)
    return click.option(
        "--with-slot",
        metavar="SLOT",
        default="",
        help="Show the password of this slot too; needed without the recover role.",
    )(command)


_no_rotate = click.option(
    "--no-rotate",
    is_flag=True,
    help="Do not replace the root key: nobody else knew the password.",
)
_generate = click.option(
    "--generate", is_flag=True, help="Make a password of ten words (110 bits)."
)


@slot.command(
    "list",
    epilog="""\b
Example:
  spike backup slot list --format json
""",
)
@output.option
def list_(*, output_format: Format) -> None:
    """Show every slot, when it was last opened, and what an old password still opens.

    Needs the superuser or the recover role.
    """
    with Session.of_process().connect() as nexus:
        answer = nexus.list_slots()
    human = [*slot_lines(answer.slots), *retired_lines(answer.retired)]
    output.show(msgspec.to_builtins(answer), output_format, [line.strip() for line in human])


@slot.command(
    epilog="""\b
Examples:
  spike backup slot add alice --with-slot admin
  spike backup slot add alice --generate
  spike backup slot add alice --password-file alice.txt --with-slot admin --existing-password-fd 3
"""
)
@click.argument("name")
@_existing_option
@_generate
@source.option
@output.option
def add(
    *,
    name: str,
    with_slot: str,
    existing_password_file: Path | None,
    existing_password_fd: int | None,
    generate: bool,
    password_file: Path | None,
    password_fd: int | None,
    password_stdin: bool,
    output_format: Format,
) -> None:
    """Add a slot for one more person's password.

    Needs the recover role, or the superuser role together with an existing slot's password. Nexus
    opens the new copy with the new password before it is put in place.
    """
    chosen = source.choose(password_file, password_fd, password_stdin, generate)
    existing = _existing(with_slot, existing_password_file, existing_password_fd, chosen)
    with _dialogue(name, existing, chosen) as (session, nexus, shown):
        with wiped(new_password.obtain(chosen, name)) as password:
            answer = nexus.add_slot(PasswordFor(password, name), SlotChange(shown))
        session.keep_anchor(answer.anchor)
    _show(answer, f"Slot {name} is added, and was opened with its password.", output_format)


@slot.command(
    "change-password",
    epilog="""\b
Examples:
  spike backup slot change-password admin
  spike backup slot change-password alice --generate --no-rotate
""",
)
@click.argument("name")
@_existing_option
@_generate
@_no_rotate
@source.option
@output.option
def change_password(
    *,
    name: str,
    with_slot: str,
    existing_password_file: Path | None,
    existing_password_fd: int | None,
    generate: bool,
    no_rotate: bool,
    password_file: Path | None,
    password_fd: int | None,
    password_stdin: bool,
    output_format: Format,
) -> None:
    """Give a slot a new password.

    Needs the recover role, or the superuser role together with an existing slot's password: this
    one's old password, unless --with-slot names another slot. The new copy is opened with the new
    password before it is put in place. Copies that somebody kept still open with the old password;
    so a rotation of the root key follows, unless --no-rotate says that nobody else knew it.
    """
    chosen = source.choose(password_file, password_fd, password_stdin, generate)
    existing = _existing(with_slot, existing_password_file, existing_password_fd, chosen)
    with _dialogue(name, existing, chosen, or_slot=name) as (session, nexus, shown):
        with wiped(new_password.obtain(chosen, name)) as password:
            change = SlotChange(shown, rotate=not no_rotate)
            answer = nexus.change_password(PasswordFor(password, name), change)
        session.keep_anchor(answer.anchor)
    _show(answer, f"Slot {name} has a new password, and was opened with it.", output_format)


@slot.command(
    epilog="""\b
Examples:
  spike backup slot remove bob --with-slot alice
  spike backup slot remove bob --yes --no-rotate
"""
)
@click.argument("name")
@_existing_option
@_no_rotate
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@output.option
def remove(
    *,
    name: str,
    with_slot: str,
    existing_password_file: Path | None,
    existing_password_fd: int | None,
    no_rotate: bool,
    yes: bool,
    output_format: Format,
) -> None:
    """Remove a slot, after asking; never the last one that can be used.

    Needs the recover role, or the superuser role together with an existing slot's password. Copies
    that somebody kept still open with the slot's password; so a rotation of the root key follows,
    unless --no-rotate says that this does not matter.
    """
    existing = _existing(with_slot, existing_password_file, existing_password_fd, None)
    with _dialogue(name, existing, None) as (session, nexus, shown):
        if not yes and not prompt.confirm(f"Remove slot {name}?"):
            raise RefusedError("nothing was done", "answer y, or give --yes")
        answer = nexus.remove_slot(name, SlotChange(shown, rotate=not no_rotate))
        session.keep_anchor(answer.anchor)
    _show(answer, f"Slot {name} is removed.", output_format)


def _existing(
    slot_name: str, file: Path | None, descriptor: int | None, new: Source | None
) -> _Existing:
    chosen = source.choose(file, descriptor, password_stdin=False)
    if not slot_name and not isinstance(chosen, FromTerminal):
        raise click.UsageError("An existing slot's password needs its name: --with-slot SLOT.")
    if chosen == new and not isinstance(chosen, FromTerminal):
        raise click.UsageError("The two passwords cannot come from one source.")
    return _Existing(slot_name, chosen)


@contextmanager
def _dialogue(
    name: str, existing: _Existing, chosen: Source | None, or_slot: str = ""
) -> Iterator[tuple[Session, NexusClient, PasswordFor | None]]:
    """Connect, see what it takes before anybody types anything, and ask for the existing password if it does."""
    try:
        check_slot_name(name)
    except InputError as error:
        raise click.UsageError(f"The name is refused: {error.message}.") from error
    harden()
    session = Session.of_process()
    with ExitStack() as stack:
        if chosen is not None:
            stack.enter_context(new_password.ready(chosen))
        nexus = stack.enter_context(session.connect_for_dialogue())
        with_slot = existing.slot_name
        if not with_slot and nexus.list_slots().password_needed:
            with_slot = or_slot
            if not with_slot:
                raise RefusedError(
                    "without the recover role this takes an existing slot's password too",
                    "name the slot whose password you have: --with-slot SLOT",
                )
        shown = None
        if with_slot:
            question = f"Password of slot {with_slot}: "
            entered = source.obtain(existing.source, question, _INSTEAD.format(with_slot))
            password = stack.enter_context(wiped(entered))
            shown = PasswordFor(password, with_slot)
        yield session, nexus, shown


def _show(answer: SlotAnswer, said: str, output_format: Format) -> None:
    data = msgspec.to_builtins(answer)
    del data["anchor"]
    lines = [said, *copy_lines(answer.copies)]
    if answer.rotation is not None:
        lines.append(f"  The root key is being replaced: rotation {answer.rotation}")
    if answer.rotation_due:
        lines.append(f"  A ROTATION OF THE ROOT KEY IS DUE: {answer.rotation_due}")
    output.show(data, output_format, lines)
