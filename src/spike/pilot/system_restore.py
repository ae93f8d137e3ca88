"""A system backup on its way into an empty Nexus: read to its end first, shown, and sent once it was agreed to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spike.error import AnswerError
from spike.pilot import output, system_backup_file, system_backup_text
from spike.pilot.preview import Complete
from spike.pilot.progress import Line, bar, size

if TYPE_CHECKING:
    from spike.client.nexus import NexusClient
    from spike.client.system_backup import SystemBackupParts
    from spike.lifecycle.system_backup_reader import Summary
    from spike.wire.system_backup import SystemBackupReceiveAnswer


def option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a restore from a system backup; the command gets `from_file` and `set_aside`."""
    command = click.option(
        "--set-aside",
        is_flag=True,
        help="With --from: keep what the store holds now beside the new state; undo puts it back.",
    )(command)
    return click.option(
        "--from",
        "from_file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Bring the whole store up from this system backup.",
    )(command)


def chosen(from_file: Path | None, backup_file: Path | None, *, set_aside: bool) -> Arrival | None:
    """Return the system backup that was named, read to its end, or None.

    Raises:
        click.UsageError: the options contradict each other.
        FormatError, SettingError: the file is none, damaged, or cannot be read.
    """
    if from_file is None:
        if set_aside:
            raise click.UsageError("--set-aside goes with --from.")
        return None
    if backup_file is not None:
        raise click.UsageError("Name --from or --backup, not both.")
    line, total = Line(), system_backup_file.size_of(from_file)
    try:
        summary = system_backup_file.examine(
            from_file, lambda read: line.draw(f"{bar(read, total)} read")
        )
    finally:
        line.clear()
    output.note("\n".join([f"{from_file} holds:", *system_backup_text.lines_of(summary)]))
    return Arrival(from_file, summary, set_aside)


@dataclass(slots=True)
class Arrival:
    """One system backup that was found whole; `answer` is what Nexus said when all of it was there."""

    path: Path
    summary: Summary
    set_aside: bool
    answer: SystemBackupReceiveAnswer | None = field(default=None)

    @property
    def parts(self) -> SystemBackupParts:
        """What Nexus is shown before anything is sent."""
        from spike.client.system_backup import SystemBackupParts

        manifest = self.summary.manifest.raw
        return SystemBackupParts(self.summary.backup_raw, manifest, self.set_aside)

    def by_sending(self, nexus: NexusClient) -> Complete:
        """Return how this restore is carried out."""

        def complete(confirm: str) -> bytes | None:
            from spike.client.system_backup import PART_BYTES

            line, total = Line(), self.summary.size_bytes
            try:
                pieces = system_backup_file.pieces_of(self.path, PART_BYTES)
                for answer in nexus.send_system_backup(confirm, pieces):
                    got = answer.received_bytes
                    line.draw(f"{bar(got, total)} {size(got)} restored")
                    self.answer = answer
            finally:
                line.clear()
            if self.answer is None or not self.answer.restored:
                raise AnswerError(
                    "restore failed: the server did not complete it", "look at the server's log"
                )
            return self.answer.anchor

        return complete

    def data(self) -> dict[str, object]:
        """Return what came of it."""
        told = self.answer
        if told is None:
            return {}
        return {"newLineage": told.lineage, "setAside": told.aside, "rotation": told.rotation}

    def lines(self) -> list[str]:
        """Return the same for people, and what to do next."""
        told = self.answer
        if told is None:
            return []
        found = [
            f"  New lineage: {told.lineage}; anchors, Keepers and backups of the old one do not count here",
        ]
        if told.aside:
            found.append(f"  Set aside: {told.aside}; spike restore undo puts it back")
        if told.rotation:
            found.append(f"  A rotation follows: {told.rotation} (spike key status)")
        else:
            found.append(
                "  A rotation has to follow, since the old machine and its backups hold the same keys: "
                "spike key rotate"
            )
        return found
