"""`spike operator`: recovery shards, which people keep and bring together when the root key is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from spike.client.nexus import NexusClient, ShardOf
from spike.error import AnswerError, FormatError, RefusedError, UnreachableError
from spike.lifecycle import shard_text
from spike.lifecycle.recovery_shard import SHARD_BYTES
from spike.lifecycle.refusal import Reason, RefusalError
from spike.memory.key_memory import KeyMemory
from spike.memory.process import harden
from spike.pilot import output, preview, prompt, shard_file, system_restore
from spike.pilot.command.restore import read_backup, show_result
from spike.pilot.failure import Exit
from spike.pilot.output import Format
from spike.pilot.preview import Shown
from spike.pilot.session import Session
from spike.pilot.source import wiped
from spike.pilot.system_restore import Arrival
from spike.wire.operator import RecoverAnswer, ShardRestoreAnswer

_KEEPING = """\
Give each file to another person, who keeps it apart from the others and from the backup; then
delete the files here (docs/guide/recovery-shard.md)."""


@click.group()
def operator() -> None:
    """Hand out recovery shards, and bring the root key back with them."""


@operator.command(
    epilog="""\b
Examples:
  spike operator recover
  spike operator recover --dir /media/shard --format json
"""
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write the files to this directory [$SPIKE_PILOT_RECOVERY_DIR or ~/.spike/recover].",
)
@click.option(
    "--three-part",
    is_flag=True,
    help="Write them as the Go command does: without set and checksum.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before older shards become useless.")
@output.option
def recover(*, directory: Path | None, three_part: bool, yes: bool, output_format: Format) -> None:
    """Make recovery shards, one file each; a few of them together bring the root key back.

    Needs the recover role, and a Nexus that has its root key. New shards make all shards that were
    handed out before useless. Nothing of a shard is shown; files that are there are never
    overwritten.
    """
    harden()
    session = Session.of_process()
    into = directory or shard_file.directory_of(session.environment)
    with shard_file.prepared(into):
        with session.connect_for_dialogue() as nexus:
            answer = _recovered(nexus, yes)
        paths = _written(into, answer, three_part)
    needed = f"{answer.threshold} of these {len(paths)} shards bring the root key back"
    data = {
        "setId": answer.set_id,
        "threshold": answer.threshold,
        "files": [str(path) for path in paths],
    }
    human = [f"Recovery shards, set {answer.set_id}: {needed}.", *(f"  {path}" for path in paths)]
    output.show(data, output_format, human)
    output.note(_KEEPING)


def _recovered(nexus: NexusClient, yes: bool) -> RecoverAnswer:
    try:
        return _asked(nexus, only_first=not yes)
    except RefusalError as refusal:
        if refusal.reason is not Reason.SHARDS_EXIST:
            raise
        output.note("There are recovery shards already. New ones make every one of them useless.")
    if not prompt.confirm("Make new ones?"):
        raise RefusedError("nothing was changed: not confirmed", "answer y, or give --yes")
    return _asked(nexus, only_first=False)


def _asked(nexus: NexusClient, *, only_first: bool) -> RecoverAnswer:
    """Ask for shards; and where no answer comes, say what that may mean."""
    try:
        return nexus.recover(only_first=only_first)
    except (UnreachableError, AnswerError) as error:
        lost = "should the answer be lost, older shards are useless: then run it again with --yes"
        raise type(error)(
            error.message, f"{error.next_step}; {lost}" if error.next_step else lost
        ) from error


def _written(into: Path, answer: RecoverAnswer, three_part: bool) -> list[Path]:
    paths = []
    for index, octets in sorted(answer.shards.items()):
        with _locked(octets) as value, wiped(_text(answer, three_part, index, value)) as text:
            paths.append(shard_file.write(into, index, text))
    return paths


def _text(answer: RecoverAnswer, three_part: bool, index: int, value: KeyMemory) -> bytearray:
    try:
        # A Nexus of Go names no set.
        if three_part or not answer.set_id:
            return shard_text.encode_three_part(index, value)
        return shard_text.encode_shard_text(answer.set_id, answer.threshold, index, value)
    except ValueError as error:
        raise AnswerError(
            f"recover failed: the server gave what cannot be a shard ({error})",
            "look at the server's log",
        ) from error


def _locked(octets: list[int]) -> KeyMemory:
    if len(octets) != SHARD_BYTES:
        raise AnswerError("recover failed: a shard has not 32 bytes", "look at the server's log")
    value = KeyMemory.allocate(SHARD_BYTES)
    with value.view() as view:
        for position, octet in enumerate(octets):
            view[position] = octet
    return value


@operator.command(
    "check-shard",
    epilog="""\b
Exit codes:
  0  every shard is one that was handed out, and its check-in is noted
  1  one is not
\b
Examples:
  spike operator check-shard
  spike operator check-shard --file /media/one/spike.recovery.1.txt
""",
)
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read a shard from this file; once for each shard.",
)
@output.option
@click.pass_context
def check_shard(context: click.Context, files: tuple[Path, ...], output_format: Format) -> None:
    """Show that a recovery shard is there and right, and note the date; nothing of it is revealed.

    Needs the superuser or the recover role. The shard stays on this machine: Nexus is told its digest, which it knows.
    A shard that is mistyped, of an older set or of another store is named at once. spike status shows the roster.
    """
    typed = not files and os.isatty(0)
    harden()
    found: list[dict[str, object]] = []
    with Session.of_process().connect_for_dialogue() as nexus:
        for name, text in _texts(files, typed):
            found.append(_checked(nexus, name, text))
    if not found:
        raise RefusedError("no shard was given", "name its file: --file")
    human = [f"{each['name']}: {each['result']}" for each in found]
    output.show({"shards": found}, output_format, human)
    context.exit(Exit.SUCCESS if all(each["good"] for each in found) else Exit.FAILED)


def _checked(nexus: NexusClient, name: str, text: bytearray) -> dict[str, object]:
    """Check one shard in; return what came of it."""
    try:
        shard = shard_text.decode_shard_text_untrusted(text)
    except FormatError as error:
        return {"name": name, "good": False, "result": f"NOT RIGHT: {error.message}"}
    with shard.value:
        try:
            told = nexus.check_shard(ShardOf(shard.index, shard.value, shard.set_id or ""))
        except RefusalError as refusal:
            if refusal.reason is not Reason.WRONG_SHARD:
                raise
            why = refusal.message.removeprefix("check-shard was refused: ")
            return {"name": name, "good": False, "result": f"NOT RIGHT: {why}"}
    result = (
        f"right: shard {shard.index} of {told.shares}, set {told.set_id}, of which any {told.threshold} bring the "
        "root key back; its check-in is noted"
    )
    return {"name": name, "good": True, "result": result}


@operator.command(
    epilog="""\b
Examples:
  spike operator restore
  spike operator restore --file /media/one/spike.recovery.1.txt --file /media/two/spike.recovery.2.txt
  spike operator restore --yes < shards.txt
"""
)
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Read a shard from this file; once for each shard.",
)
@click.option(
    "--backup",
    "backup_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Restore from this key backup; without it from the store's own copy.",
)
@system_restore.option
@preview.option
@output.option
def restore(
    *,
    files: tuple[Path, ...],
    backup_file: Path | None,
    from_file: Path | None,
    set_aside: bool,
    yes: bool,
    accept_older: bool,
    phrase: str | None,
    dry_run: bool,
    output_format: Format,
) -> None:
    """Bring the root key back with recovery shards.

    Needs the restore role. Shards are asked for one at a time, hidden; or read from files, or from
    standard input, one a line. A shard that is mistyped, of an older set or of another store is
    named at once, and spoils nothing. Nexus keeps what it was given for ten minutes, so people can
    bring their shards from different places.
    """
    decided = preview.decision(
        yes=yes or dry_run, accept_older=accept_older, phrase=phrase, dry_run=dry_run
    )
    typed = not files and os.isatty(0)
    if not files and not typed and not decided.yes:
        raise click.UsageError("Shards on standard input leave nothing to ask on: give --yes too.")
    arrival = system_restore.chosen(from_file, backup_file, set_aside=set_aside)
    held_backup = None if backup_file is None else read_backup(backup_file)
    harden()
    session = Session.of_process()
    seen = session.anchors.latest(session.server)
    with session.connect_for_dialogue() as nexus:
        collected = _Collected(
            nexus,
            seen.raw if seen else b"",
            _Given(held_backup, arrival),
            accept_older=accept_older,
        )
        try:
            if not any(collected.is_enough(name, text) for name, text in _texts(files, typed)):
                raise collected.too_few()
            complete = (
                preview.by_confirming(nexus) if arrival is None else arrival.by_sending(nexus)
            )
            back = preview.carry_out(session, collected.again, complete, decided)
        finally:
            collected.forget()
    show_result(back, arrival, output_format)


def _texts(files: tuple[Path, ...], typed: bool) -> Iterator[tuple[str, bytearray]]:
    """Give each shard's text with a name for it; a text is overwritten when the next one is asked for."""
    if typed:
        yield from _typed()
    elif files:
        for path in files:
            with wiped(shard_file.read(path)) as text:
                yield str(path), text
    else:
        for number, text in enumerate(shard_file.lines_of_input(), 1):
            yield f"line {number}", text


def _typed() -> Iterator[tuple[str, bytearray]]:
    with prompt.terminal("name the files of the shards: --file") as terminal:
        while True:
            with wiped(prompt.ask_hidden(terminal, "Recovery shard (empty to stop): ")) as text:
                if not text.strip():
                    return
                yield "this shard", text


class _Given(NamedTuple):
    """What is restored from: a key backup, a system backup, or with neither the store's own copy."""

    backup: bytes | None
    arrival: Arrival | None


class _Collected:
    """What Nexus was given so far. `seen` is the anchor Pilot saw last at this address, or empty."""

    def __init__(
        self, nexus: NexusClient, seen: bytes, given: _Given, *, accept_older: bool
    ) -> None:
        self._nexus = nexus
        self._seen = seen
        self._given = given
        self._accept_older = accept_older
        self._last: ShardOf | None = None
        self._told: ShardRestoreAnswer | None = None

    def is_enough(self, name: str, text: bytearray) -> bool:
        """Bring one shard and tell how it went. Return whether no more are needed."""
        try:
            found = shard_text.decode_shard_text_untrusted(text)
        except FormatError as error:
            output.note(f"Not taken: {name}: {error.message}.")
            return False
        self.forget()
        self._last = ShardOf(found.index, found.value, found.set_id or "")
        try:
            self._told = self._bring(self._last, self._seen)
        except RefusalError as refusal:
            if refusal.reason is not Reason.WRONG_SHARD:
                raise
            why = refusal.message.removeprefix("restore was refused: ")
            output.note(f"Not taken: {name}: {why}.")
            return False
        told = self._told
        output.note(
            f"Taken: shard {found.index}; {told.collected} collected, {told.remaining} more needed."
        )
        return told.remaining == 0

    def again(self, anchor: bytes) -> Shown:
        """Return the preview; ask for it once more if it is to be held against another anchor."""
        assert self._last is not None  # `is_enough` has said so
        assert self._told is not None
        if anchor != self._seen:
            self._told, self._seen = self._bring(self._last, anchor), anchor
        return preview.parts(self._told.preview, self._told.confirm, self._told.remarks)

    def too_few(self) -> RefusedError:
        """Say what is missing."""
        if self._told is None:
            return RefusedError("nothing was restored: no shard was taken", "bring another one")
        return RefusedError(
            f"nothing is restored yet: {self._told.collected} collected, {self._told.remaining} more needed",
            "bring more within ten minutes: spike operator restore",
        )

    def forget(self) -> None:
        """Wipe the shard that was brought last. Idempotent."""
        if self._last is not None:
            self._last.value.wipe()

    def _bring(self, shard: ShardOf, anchor: bytes) -> ShardRestoreAnswer:
        arrival = self._given.arrival
        if arrival is None:
            return self._nexus.bring_shard(
                shard, anchor, self._given.backup, accept_older=self._accept_older
            )
        parts = arrival.parts
        return self._nexus.bring_shard(
            shard,
            anchor,
            parts.backup,
            accept_older=self._accept_older,
            manifest=parts.manifest,
            set_aside=parts.set_aside,
        )
