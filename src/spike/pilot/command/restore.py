"""`spike restore`: the root key back into memory, from a password."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from spike.client.anchor import SeenAnchor
from spike.client.nexus import NexusClient, PasswordFor
from spike.error import AnswerError, FormatError, RefusedError, SettingError
from spike.lifecycle import backup
from spike.memory.process import harden
from spike.pilot import output, prompt, source
from spike.pilot.output import Format
from spike.pilot.session import Session
from spike.pilot.source import FromDescriptor, FromFile, Source, wiped
from spike.wire.own import RestoreAnswer, RestorePreview


@click.command(
    epilog="""\b
Examples:
  spike restore
  spike restore --slot alice --backup /mnt/backup/spike-0123456789abcdef.key-backup
  spike restore --password-stdin --yes < password.txt
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
@click.option("-y", "--yes", is_flag=True, help="Do not ask before going on.")
@source.option
@output.option
def restore(
    *,
    password: bool,
    slot_name: str,
    backup_file: Path | None,
    yes: bool,
    password_file: Path | None,
    password_fd: int | None,
    password_stdin: bool,
    output_format: Format,
) -> None:
    """Bring the root key back after the memory that held it is gone.

    Needs the restore role. First shows what would be brought back and compares it with what Pilot
    saw of this store before; then asks. A wrong password or a foreign, old or damaged backup
    changes nothing.
    """
    del password  # the only way there is; the option says so in scripts
    chosen = source.choose(password_file, password_fd, password_stdin)
    if not yes and chosen == FromDescriptor(0):
        raise click.UsageError("--password-stdin leaves no input to ask on: give --yes too.")
    held_backup = None if backup_file is None else _read_backup(backup_file)
    harden()
    session = Session.of_process()
    anchors, seen = session.anchors, session.anchors.latest(session.server)
    with wiped(_obtain(chosen)) as entered, session.connect_for_dialogue() as nexus:
        answer = nexus.preview_restore(
            PasswordFor(entered, slot_name), seen.raw if seen else b"", held_backup
        )
        preview, confirm = _parts(answer)
        known = anchors.get(preview.store_id)
        _require_current(preview, known)
        output.note("\n".join(_description(preview, known, seen, answer.remarks or [])))
        if not yes and not prompt.confirm("Bring this root key back?"):
            raise RefusedError("nothing was restored: not confirmed", "answer y, or give --yes")
        done = _completed(nexus, confirm)
    session.keep_anchor(done.anchor)
    data = {"restored": True, **msgspec.to_builtins(preview)}
    output.show(data, output_format, ["The root key is back.", *_lines(preview)])


def _obtain(chosen: Source) -> bytearray:
    match chosen:
        case FromFile() | FromDescriptor():
            return source.read(chosen)
        case _:
            with prompt.terminal() as terminal:
                return prompt.ask_hidden(terminal, "Password: ")


def _read_backup(path: Path) -> bytes:
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


def _parts(answer: RestoreAnswer) -> tuple[RestorePreview, str]:
    if answer.preview is None or not answer.confirm:
        raise AnswerError(
            "restore failed: the server gave no preview",
            "see that the server and this client fit together",
        )
    return answer.preview, answer.confirm


def _require_current(preview: RestorePreview, known: SeenAnchor | None) -> None:
    """Refuse a store that shows less than Pilot saw of it.

    Nexus weighs the anchors it is given by their MACs; this catches an old copy also where its root
    key can no longer authenticate the anchor.
    """
    if known is None:
        return
    seen = known.statement
    if preview.lineage != seen.lineage:
        behind = preview.epoch <= seen.epoch
    else:
        behind = (preview.epoch, preview.revision) < (seen.epoch, seen.revision)
    if behind:
        raise RefusedError(
            f"nothing was restored: store {preview.store_id} is an old copy (lineage "
            f"{preview.lineage}, epoch {preview.epoch}, revision {preview.revision}); on "
            f"{known.seen_at} Pilot saw it at lineage {seen.lineage}, epoch {seen.epoch}, revision "
            f"{seen.revision}",
            "put the newest copy of the store back, or name a newer backup with --backup",
        )


def _description(
    preview: RestorePreview, known: SeenAnchor | None, seen: SeenAnchor | None, remarks: list[str]
) -> list[str]:
    lines = ["This would be brought back:", *_lines(preview)]
    if known is not None:
        reached = known.statement
        lines.append(
            f"  Pilot saw this store on {known.seen_at}: epoch {reached.epoch}, revision "
            f"{reached.revision}; this is not older"
        )
    else:
        lines.append("  Pilot has not seen this store before: compare the store id yourself")
    if seen is not None and seen.statement.store_id != preview.store_id:
        lines.append(
            f"  Warning: at this address Pilot last saw another store, {seen.statement.store_id}"
        )
    return lines + [f"  Remark: {remark}" for remark in remarks]


def _lines(preview: RestorePreview) -> list[str]:
    return [
        f"  Store: {preview.store_id}",
        f"  Lineage: {preview.lineage}",
        f"  Root key: generation {preview.generation}, sealed {preview.sealed_at}",
        f"  Keyring: epoch {preview.epoch}, revision {preview.revision}",
        f"  Slot: {preview.slot}",
        f"  Audit head: {preview.audit_head or 'none'}",
    ]


def _completed(nexus: NexusClient, confirm: str) -> RestoreAnswer:
    done = nexus.confirm_restore(confirm)
    if not done.restored:
        raise AnswerError(
            "restore failed: the server did not complete it", "look at the server's log"
        )
    return done
