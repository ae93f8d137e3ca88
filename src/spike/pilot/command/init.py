"""`spike init`: the root key of a new store, and the password that can bring it back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from spike.client.nexus import NexusClient, PasswordFor
from spike.error import InputError, RefusedError
from spike.lifecycle import password as policy
from spike.lifecycle.password import Accepted, TooWeak
from spike.memory.process import harden
from spike.pilot import output, prompt, source
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.pilot.source import FromDescriptor, FromFile, FromTerminal, Generated, Source, wiped
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
    with _ready(chosen), session.connect_for_dialogue() as nexus:
        _require_new(nexus)
        output.note(WARNING)
        with wiped(_obtain(chosen, slot_name)) as password:
            answer = nexus.init(PasswordFor(password, slot_name))
    session.keep_anchor(answer.anchor)
    _show(answer, output_format)


@contextmanager
def _ready(chosen: Source) -> Iterator[None]:
    """See before anything else that a password can be had from where it shall come from."""
    if isinstance(chosen, FromTerminal):
        with prompt.terminal():
            pass
    yield


def _require_new(nexus: NexusClient) -> None:
    """Learn before the password is made up whether it can be used."""
    status = nexus.get_status()
    if status.ready or status.state in ("open", "locked"):
        raise RefusedError(
            "this store has been initialized already; that happens once only",
            "if it is locked, restore it: spike restore",
        )


def _obtain(chosen: Source, slot_name: str) -> bytearray:
    match chosen:
        case Generated():
            return _generate()
        case FromTerminal():
            return _ask_twice(slot_name)
        case FromFile() | FromDescriptor():
            password = source.read(chosen)
            return _judged(password, slot_name)


def _generate() -> bytearray:
    password = policy.generate()
    try:
        _show_once(password)
    except BaseException:
        prompt.wipe(password)
        raise
    return password


def _show_once(password: bytearray) -> None:
    # Before the key exists: were it shown after, a closed pipe would lose it for good.
    sys.stdout.flush()
    sys.stdout.buffer.write(password)
    sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()
    if sys.stdout.isatty() and not prompt.confirm("Have you written it down?"):
        raise RefusedError("nothing was done: the password is not written down", "begin again")


def _ask_twice(slot_name: str) -> bytearray:
    with prompt.terminal() as terminal:
        password = _judged(prompt.ask_hidden(terminal, "New password: "), slot_name)
        try:
            _ask_again(terminal, password)
        except BaseException:
            prompt.wipe(password)
            raise
    return password


def _ask_again(terminal: int, password: bytearray) -> None:
    with wiped(prompt.ask_hidden(terminal, "The same again: ")) as again:
        if again != password:
            raise InputError("the two passwords differ; nothing was done", "begin again")


def _judged(password: bytearray, slot_name: str) -> bytearray:
    """Return the password if the policy accepts it. Nexus judges again, whatever was found here."""
    match policy.verdict(password, (slot_name,)):
        case Accepted():
            return password
        case TooWeak(reason, next_step):
            prompt.wipe(password)
            raise InputError(f"the password is refused: {reason}", next_step)


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
