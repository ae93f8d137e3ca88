"""`spike restore`: the root key back into memory, from a password."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from spike.client.nexus import PasswordFor
from spike.error import FormatError, SettingError
from spike.lifecycle import backup
from spike.memory.process import harden
from spike.pilot import output, preview, source
from spike.pilot.output import Format
from spike.pilot.preview import Shown
from spike.pilot.session import Session
from spike.pilot.source import FromDescriptor, wiped


@click.command(
    epilog="""\b
Examples:
  spike restore
  spike restore --slot alice --backup /mnt/backup/spike-0123456789abcdef.key-backup
  spike restore --password-stdin --yes < password.txt
  spike restore --accept-older-store
"""
)
@click.option("--password", is_flag=True, help="Restore by a password; this is the default.")
@click.option(
    "--slot",
    "slot_name",
    default="",
    help="The slot the password is for; without it the first one.",
)
@click.option(
    "--backup",
    "backup_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Restore from this key backup; without it from the store's own copy.",
)
@preview.option
@source.option
@output.option
def restore(
    *,
    password: bool,
    slot_name: str,
    backup_file: Path | None,
    yes: bool,
    accept_older: bool,
    phrase: str | None,
    password_file: Path | None,
    password_fd: int | None,
    password_stdin: bool,
    output_format: Format,
) -> None:
    """Bring the root key back after the memory that held it is gone.

    Needs the restore role. First shows what would be brought back and compares it with what Pilot
    saw of this store before, and with what the Keepers hold; then asks. A wrong password or a
    foreign, old or damaged backup changes nothing.

    --accept-older-store is for when the newest copy of the store is lost: it shows what says that
    the store had been further, and wants a phrase typed before it goes on.
    """
    del password  # the only way there is; the option says so in scripts
    chosen = source.choose(password_file, password_fd, password_stdin)
    if not yes and chosen == FromDescriptor(0):
        raise click.UsageError("--password-stdin leaves no input to ask on: give --yes too.")
    decided = preview.decision(yes=yes, accept_older=accept_older, phrase=phrase)
    held_backup = None if backup_file is None else read_backup(backup_file)
    harden()
    session = Session.of_process()
    with (
        wiped(source.obtain(chosen, "Password: ")) as entered,
        session.connect_for_dialogue() as nexus,
    ):

        def ask(anchor: bytes) -> Shown:
            answer = nexus.preview_restore(
                PasswordFor(entered, slot_name), anchor, held_backup, accept_older=accept_older
            )
            return preview.parts(answer.preview, answer.confirm, answer.remarks)

        back = preview.carry_out(session, nexus, ask, decided)
    data = {"restored": True, **msgspec.to_builtins(back)}
    output.show(data, output_format, ["The root key is back.", *preview.lines(back)])


def read_backup(path: Path) -> bytes:
    """Return the content of a key backup.

    Raises:
        SettingError: it cannot be read.
        FormatError: it is too large for one.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(backup.LIMIT_BYTES + 1)
    except OSError as error:
        raise SettingError(
            f"the key backup {path} cannot be read: {error.strerror}", "check the path"
        ) from error
    if len(raw) > backup.LIMIT_BYTES:
        raise FormatError(f"{path} is too large for a key backup", "name another file")
    return raw
