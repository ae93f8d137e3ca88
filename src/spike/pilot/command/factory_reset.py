"""`spike factory-reset`: everything gone, after it was shown, backed up and confirmed by a phrase."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from spike.error import RefusedError
from spike.pilot import output, prompt, reset_record, system_backup_file
from spike.pilot.output import Format
from spike.pilot.progress import Line, bar, size
from spike.pilot.session import Session

if TYPE_CHECKING:
    from spike.client.nexus import NexusClient
    from spike.wire.reset import FactoryResetAnswer


@click.command(
    "factory-reset",
    epilog="""\b
Examples:
  spike factory-reset
  spike factory-reset --backup /mnt/backup/last.system-backup
  spike factory-reset --dry-run --format json
  spike factory-reset --no-backup --phrase "erase store 0123abcd zebra lamp orbit"
""",
)
@click.option(
    "--backup",
    "backup_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the last system backup to this file; without it to one in this directory.",
)
@click.option("--no-backup", is_flag=True, help="Take no last system backup.")
@click.option("--dry-run", is_flag=True, help="Show what would be lost and the phrase for it.")
@click.option("--phrase", metavar="TEXT", help="The phrase that --dry-run has shown.")
@output.option
def factory_reset(
    *,
    backup_file: Path | None,
    no_backup: bool,
    dry_run: bool,
    phrase: str | None,
    output_format: Format,
) -> None:
    """Erase the whole store, so that a new one can be made with spike init.

    Needs the superuser role. Shows what would be lost, takes a last system backup, and wants a phrase
    typed that Nexus gave for this once. Keepers erase their shares; who is out of reach is named. Key
    backups stay where they are. Killed, run the same command again.
    """
    if no_backup and backup_file is not None:
        raise click.UsageError("Name --backup or --no-backup, not both.")
    session = Session.of_process()
    with session.connect_for_dialogue() as nexus:
        pending = reset_record.unfinished(session.state_directory, session.server)
        # Asked for again, a phrase that is good stays the same.
        asked = nexus.ask_factory_reset(pending)
        output.note("\n".join(_losses(asked)))
        if dry_run:
            output.show(_data(asked), output_format, [f"The phrase is: {asked.phrase}"])
            return
        store_id = asked.store_id or ""
        last = None if no_backup else _last_backup(nexus, asked.state, backup_file, store_id)
        given = _typed(asked) if phrase is None else phrase
        reset_record.note(
            session.state_directory, "begun", session.server, store_id, backup=str(last or "")
        )
        try:
            done = nexus.factory_reset(given, pending)
        except RefusedError:
            reset_record.note(session.state_directory, "refused", session.server, store_id)
            raise
        records = sum(done.records.values())
        reset_record.note(
            session.state_directory,
            "ended",
            session.server,
            store_id,
            records=records,
            backup=str(last or ""),
        )
    human = ["The store is empty.", *_done(done)]
    if last is not None:
        human.append(f"  Last system backup: {last}")
    human.append("  Make a new store: spike init")
    output.show({**_data(done), "backup": str(last or "")}, output_format, human)


def _last_backup(nexus: NexusClient, state: str, named: Path | None, store_id: str) -> Path | None:
    """Take it; return where it lies. None where nothing is left to be backed up."""
    if state == "uninitialized":
        return None
    if state != "open":
        raise RefusedError(
            "nothing was erased: a locked store gives no system backup",
            "bring its root key back first (spike restore), or go on without: --no-backup",
        )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    path = named or Path(f"spike-{store_id[:8]}-{stamp}.system-backup")
    system_backup_file.require_free(path)
    begun, line = nexus.begin_system_backup(), Line()
    try:
        system_backup_file.create(
            path,
            nexus.read_system_backup(begun.session),
            lambda done: line.draw(f"{bar(done, begun.size_bytes)} {size(done)} backed up"),
        )
    finally:
        line.clear()
    output.note(f"The last system backup is {path.absolute()}.")
    return path.absolute()


def _typed(asked: FactoryResetAnswer) -> str:
    instead = f'give the phrase: --phrase "{asked.phrase}"'
    with prompt.terminal(instead) as terminal:
        given = prompt.ask(terminal, f'To erase all of it type "{asked.phrase}": ')
    if given.strip() != asked.phrase:
        raise RefusedError("nothing was erased: the phrase is another one", "run it again")
    return given.strip()


def _data(answer: FactoryResetAnswer) -> dict[str, object]:
    return dict(msgspec.to_builtins(answer))


def _losses(answer: FactoryResetAnswer) -> list[str]:
    lines = [
        "This would be LOST for good, but for what a backup and a password bring back:",
        f"  Store: {answer.store_id or 'without a readable keyring'} ({answer.state})",
        *(f"  {kind}: {count} records" for kind, count in answer.records.items()),
        *(f"  Keeper {k.index}: {k.state}{_detail(k.detail)}" for k in answer.keepers),
        *(f"  Stays: {each.place}" for each in answer.places if each.place),
        *(f"  Stays aside: {name}" for name in answer.asides),
    ]
    if answer.state == "locked":
        lines.append(
            "  It is locked: while a password, recovery shards or a key backup is left, spike restore "
            "brings it back"
        )
    return lines


def _done(answer: FactoryResetAnswer) -> list[str]:
    return [
        f"  Store {answer.store_id or ''} is gone: {sum(answer.records.values())} records",
        *(
            f"  Keeper {k.index}: {k.state}{_detail(k.detail)}"
            + ("" if k.state in ("erased", "empty") else "; restart it to empty it")
            for k in answer.keepers
        ),
        *(f"  Key backup stays: {each.place}" for each in answer.places if each.place),
        *(f"  Not recorded: {each.detail}" for each in answer.places if not each.place),
        *(f"  Stays aside: {name}" for name in answer.asides),
    ]


def _detail(text: str) -> str:
    return f" ({text})" if text else ""
