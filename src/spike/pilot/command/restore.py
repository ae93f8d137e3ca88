"""`spike restore`: the root key back into memory, from a password; a whole store back from a system backup."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click
import msgspec

from spike.client.nexus import PasswordFor
from spike.error import FormatError, RefusedError, SettingError
from spike.lifecycle import backup
from spike.memory.process import harden
from spike.pilot import output, preview, prompt, source, system_restore
from spike.pilot.output import Format
from spike.pilot.preview import Shown
from spike.pilot.session import Session
from spike.pilot.source import FromDescriptor, wiped
from spike.pilot.system_restore import Arrival
from spike.wire.own import RestorePreview


@click.command(
    epilog="""\b
Examples:
  spike restore
  spike restore --slot alice --backup /mnt/backup/spike-0123456789abcdef.key-backup
  spike restore --password-stdin --yes < password.txt
  spike restore --accept-older-store
  spike restore --from /mnt/backup/spike.system-backup --dry-run
  spike restore --from /mnt/backup/spike.system-backup
  spike restore undo
"""
)
@click.argument("undo", required=False, type=click.Choice(["undo"]), metavar="[undo]")
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
@system_restore.option
@preview.option
@source.option
@output.option
def restore(
    *,
    undo: str | None,
    password: bool,
    slot_name: str,
    backup_file: Path | None,
    from_file: Path | None,
    set_aside: bool,
    yes: bool,
    accept_older: bool,
    phrase: str | None,
    dry_run: bool,
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

    --from brings a whole store up in an empty Nexus, on this machine or another, as a new lineage:
    what still lives of the old one is refused from then on. What a store holds is never overwritten;
    --set-aside keeps it, and "spike restore undo" puts it back. Killed, run the same command again.
    """
    if undo:
        _undo(yes=yes, output_format=output_format)
        return
    del password  # the only way there is; the option says so in scripts
    chosen = source.choose(password_file, password_fd, password_stdin)
    if not yes and not dry_run and chosen == FromDescriptor(0):
        raise click.UsageError("--password-stdin leaves no input to ask on: give --yes too.")
    decided = preview.decision(
        yes=yes or dry_run, accept_older=accept_older, phrase=phrase, dry_run=dry_run
    )
    arrival = system_restore.chosen(from_file, backup_file, set_aside=set_aside)
    held_backup = None if backup_file is None else read_backup(backup_file)
    harden()
    session = Session.of_process()
    with (
        wiped(source.obtain(chosen, "Password: ")) as entered,
        session.connect_for_dialogue() as nexus,
    ):

        def ask(anchor: bytes) -> Shown:
            secret = PasswordFor(entered, slot_name)
            if arrival is None:
                answer = nexus.preview_restore(
                    secret, anchor, held_backup, accept_older=accept_older
                )
            else:
                answer = nexus.preview_system_restore(
                    secret, anchor, arrival.parts, accept_older=accept_older
                )
            return preview.parts(answer.preview, answer.confirm, answer.remarks)

        complete = preview.by_confirming(nexus) if arrival is None else arrival.by_sending(nexus)
        back = preview.carry_out(session, ask, complete, decided)
    show_result(back, arrival, output_format)


def show_result(
    back: RestorePreview | None, arrival: Arrival | None, output_format: Format
) -> None:
    """Show what is back; None was a dry run."""
    if back is None:
        output.show({"restored": False}, output_format, ["All of it opens; nothing was changed."])
        return
    data = {"restored": True, **msgspec.to_builtins(back)}
    if arrival is None:
        output.show(data, output_format, ["The root key is back.", *preview.lines(back)])
        return
    human = ["The store is up.", *preview.lines(back), *arrival.lines()]
    output.show({**data, **arrival.data()}, output_format, human)


def _undo(*, yes: bool, output_format: Format) -> None:
    if not yes and not prompt.confirm(
        "Put back what the last restore has set aside? What is in force now is kept aside instead."
    ):
        raise RefusedError("nothing was put back: not confirmed", "answer y, or give --yes")
    session = Session.of_process()
    with session.connect() as nexus:
        answer = nexus.undo_restore()
    session.bring_anchor_back(answer.store_id, answer.lineage)
    human = [
        "What was set aside is in force again."
        if answer.aside
        else "Nothing more is to be undone. In force is:",
        f"  Store: {answer.store_id or 'none'}",
        f"  Lineage: {answer.lineage or 'none'}",
        *([f"  Kept aside instead: {answer.aside}"] if answer.aside else []),
        f"  Nexus is {answer.state}",
        *(_NEXT if answer.state == "locked" else []),
    ]
    output.show(msgspec.to_builtins(answer), output_format, human)


_NEXT: Final = (
    "  Restart each Keeper that took a share of what was undone",
    "  Bring its root key back: spike restore",
)


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
