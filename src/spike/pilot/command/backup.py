"""`spike backup`: who can open the key backup, whether its copies are good, and one more copy."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from spike.client.password import PasswordFor
from spike.memory.process import harden
from spike.pilot import backup_file, output, source
from spike.pilot.backup_text import copy_lines
from spike.pilot.command.backup_slot import slot
from spike.pilot.failure import Exit
from spike.pilot.file import place_of
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.pilot.source import FromTerminal, wiped
from spike.wire.backup import BackupVerifyAnswer


@click.group()
def backup() -> None:
    """Look after the backup of the root key: its passwords and its copies."""


backup.add_command(slot)


@backup.command(
    epilog="""\b
Exit codes:
  0  every copy is good, and opens with the password if one was given
  1  one is not, or the password is wrong
\b
Examples:
  spike backup verify
  spike backup verify --password --slot alice
  spike backup verify --password-file /run/user/1000/password --format json
"""
)
@click.option("--password", is_flag=True, help="Open each copy with a password; asks for it.")
@click.option(
    "--slot",
    "slot_name",
    default="",
    help="The slot the password is for; without it the first one.",
)
@source.option
@output.option
@click.pass_context
def verify(
    context: click.Context,
    *,
    password: bool,
    slot_name: str,
    password_file: Path | None,
    password_fd: int | None,
    password_stdin: bool,
    output_format: Format,
) -> None:
    """Look at every copy of the key backup, and open it if a password is given.

    Needs the superuser role. Without a password, which Nexus does daily and after each change by
    itself: is each copy there, whole, authentic and the present one. With it each copy is really
    opened, and the date is kept: every slot is due every 90 days.
    """
    chosen = source.choose(password_file, password_fd, password_stdin)
    harden()
    session = Session.of_process()
    if not password and isinstance(chosen, FromTerminal):
        if slot_name:
            raise click.UsageError("--slot goes with a password: give --password too.")
        with session.connect_for_dialogue() as nexus:
            answer = nexus.verify_backup()
    else:
        with (
            wiped(source.obtain(chosen, "Password: ")) as entered,
            session.connect_for_dialogue() as nexus,
        ):
            answer = nexus.verify_backup(PasswordFor(entered, slot_name))
            session.renew_anchor(nexus)
    output.show(msgspec.to_builtins(answer), output_format, _lines(answer))
    context.exit(Exit.SUCCESS if answer.good else Exit.FAILED)


@backup.command(
    epilog="""\b
Examples:
  spike backup export /mnt/usb
  spike backup export ~/spike.key-backup
"""
)
@click.argument("path", metavar="FILE|DIR", type=click.Path(path_type=Path))
@output.option
def export(*, path: Path, output_format: Format) -> None:
    """Write a key backup to a file, for its owner alone.

    Needs the superuser role. The file is written whole and read back before it takes the place of
    an older one; it never takes that of another store's backup, of a newer one, or of a file that
    is none. It opens with the password of any slot. It grows old with the next change of keys:
    backup places (SPIKE_NEXUS_BACKUP_DIR) are renewed by themselves.
    """
    with Session.of_process().connect() as nexus:
        answer = nexus.export_backup(place_of(path))
    target = backup_file.target_of(path, answer.store_id)
    backup_file.export(target, answer.backup)
    data = {**msgspec.to_builtins(answer), "file": str(target)}
    del data["backup"]
    human = [
        f"The key backup is written to {target}.",
        f"  Store: {answer.store_id}, lineage {answer.lineage}",
        f"  Root key: generation {answer.generation}; keyring: epoch {answer.epoch}, revision {answer.revision}",
    ]
    output.show(data, output_format, human)


def _lines(answer: BackupVerifyAnswer) -> list[str]:
    said = (
        "Every copy of the key backup is good."
        if answer.good
        else "A COPY OF THE KEY BACKUP IS NOT GOOD."
    )
    lines = [said, *copy_lines(answer.copies)]
    if answer.slot is not None and answer.good:
        lines.append(
            f"  Slot {answer.slot}: every copy opens with its password; due again {answer.due_at}"
        )
    return lines
