"""`spike system-backup`: the whole store in one file, and what such a file is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click

from spike.pilot import output, system_backup_file, system_backup_text
from spike.pilot.file import place_of
from spike.pilot.output import Format
from spike.pilot.progress import Line, bar, size
from spike.pilot.session import Session

_NICENESS: Final = 15
"""Where Nexus is on the same machine, its callers come first."""
_UNPROVEN = (
    "Every byte fits its digest. Who made the file shows only when it is opened: "
    "spike restore --from FILE --dry-run"
)


@click.group("system-backup")
def system_backup() -> None:
    """Make one file of the whole store, and look into it."""


_file = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))


@system_backup.command(
    epilog="""\b
Examples:
  spike system-backup create /mnt/backup/spike-2026-11-27.system-backup
  spike system-backup create backup.file --format json
"""
)
@_file
@output.option
def create(*, file: Path, output_format: Format) -> None:
    """Write the whole store into FILE, on this machine, while Nexus serves.

    Needs the superuser role. The file holds keyring and records of one moment, as they are sealed:
    nobody opens it without a slot's password or the recovery shards. It takes its name once it is on
    the disk and was read back; nothing is ever written over.
    """
    system_backup_file.require_free(file)
    session, line = Session.of_process(), Line()
    os.nice(_NICENESS)
    with session.connect() as nexus:
        begun = nexus.begin_system_backup(place_of(file))

        def progress(written: int) -> None:
            line.draw(f"{bar(written, begun.size_bytes)} {size(written)}")

        try:
            pieces = nexus.read_system_backup(begun.session)
            summary = system_backup_file.create(file, pieces, progress)
        finally:
            line.clear()
    data = {"file": str(file), **system_backup_text.data_of(summary)}
    human = [
        f"The system backup {file} is written and was read back.",
        *system_backup_text.lines_of(summary),
    ]
    output.show(data, output_format, human)


@system_backup.command(
    epilog="""\b
Exit codes:
  0  the file is whole
  1  it is damaged, cut short, extended, of a newer format, or something else
\b
Examples:
  spike system-backup inspect backup.file
  spike system-backup inspect backup.file --format yaml
"""
)
@_file
@output.option
def inspect(*, file: Path, output_format: Format) -> None:
    """Say what FILE holds and what opens it, without a password.

    Reads all of it and checks every digest. Speaks with nobody.
    """
    line, total = Line(), system_backup_file.size_of(file)
    try:
        summary = system_backup_file.examine(file, lambda read: line.draw(bar(read, total)))
    finally:
        line.clear()
    data = {"file": str(file), **system_backup_text.data_of(summary)}
    human = [f"{file} is a whole system backup.", *system_backup_text.lines_of(summary), _UNPROVEN]
    output.show(data, output_format, human)
