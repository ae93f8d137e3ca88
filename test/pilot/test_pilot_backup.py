"""`spike backup` as a person types it: hidden prompts, wrong usage said first, and the file of an export."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

import lifecycle_kit
from pilot_kit import ShippedNexus, Site, site
from spike.error import RefusedError, SettingError
from spike.lifecycle import anchor, backup, keyring, restore
from spike.pilot import backup_file
from terminal_kit import terminal

ADMIN = "seven otters juggle turnips"
ALICE = "wicker plume 41 glacier dune hatch"


@pytest.fixture(scope="module")
def made() -> Iterator[Site[ShippedNexus]]:
    with site(ShippedNexus()) as made:
        done = made.spike("superuser", "init", "--password-stdin", stdin=ADMIN.encode())
        assert done.exit == 0, done.stderr
        yield made


def test_slots_are_added_changed_and_removed_at_the_prompt(made: Site[ShippedNexus]) -> None:
    with terminal(
        made, "superuser", *["backup", "slot", "add", "alice", "--with-slot", "admin"]
    ) as typed:
        typed.answer_hidden("Password of slot admin: ", ADMIN)
        typed.answer_hidden("New password: ", ALICE)
        typed.answer_hidden("The same again: ", ALICE)
        assert typed.end() == 0
    assert "Slot alice is added" in typed.shown
    # Without --with-slot the slot's own old password is asked for.
    with terminal(
        made, "superuser", *["backup", "slot", "change-password", "alice", "--generate"]
    ) as typed:
        typed.answer_hidden("Password of slot alice: ", ALICE)
        typed.wait_for("Have you written it down? [y/N]")
        typed.type("y\n")
        assert typed.end() == 0
    assert "Slot alice has a new password" in typed.shown
    assert "A ROTATION OF THE ROOT KEY IS DUE" in typed.shown or "is being replaced" in typed.shown
    with terminal(made, "superuser", *["backup", "verify", "--password"]) as typed:
        typed.answer_hidden("Password: ", ADMIN)
        assert typed.end() == 0, typed.shown
    assert "every copy opens with its password" in typed.shown
    with terminal(
        made, "superuser", *["backup", "slot", "remove", "alice", "--with-slot", "admin"]
    ) as typed:
        typed.answer_hidden("Password of slot admin: ", ADMIN)
        typed.wait_for("Remove slot alice? [y/N]")
        typed.type("n\n")
        assert typed.end() == 1
    assert "nothing was done" in typed.shown
    for shown in (ADMIN, ALICE):
        assert shown not in typed.shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("slot add no/name", "The name is refused"),
        ("slot add x --existing-password-fd 3", "--with-slot"),
        ("slot add x --with-slot a --password-fd 3 --existing-password-fd 3", "from one source"),
        ("slot add x --generate --password-stdin", "not several"),
        ("verify --slot x", "--password"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_asked(
    made: Site[ShippedNexus], arguments: str, said: str
) -> None:
    run = made.spike("superuser", "backup", *arguments.split())
    assert run.exit == 2
    assert said in run.stderr


def test_without_a_terminal_a_password_s_source_has_to_be_named(
    made: Site[ShippedNexus], tmp_path: Path
) -> None:
    run = made.spike("superuser", "backup", "slot", "add", "bob", "--with-slot", "admin")
    assert run.exit == 2
    assert "there is no terminal to ask on" in run.stderr
    new = tmp_path / "new.txt"
    new.touch(mode=0o600)
    new.write_text("quartz ember 8 lantern moss fjord")
    given = ("slot", "change-password", "admin", "--password-file", str(new))
    run = made.spike("superuser", "backup", *given)
    assert run.exit == 2
    told = "password of slot admin comes from: --with-slot admin and --existing-password-file"
    assert told in run.stderr
    run = made.spike("superuser", "backup", "slot", "remove", "admin", "--yes")
    assert run.exit == 1
    assert "--with-slot" in run.stderr


def test_the_data_of_a_list_holds_no_password(made: Site[ShippedNexus]) -> None:
    run = made.spike("superuser", "backup", "slot", "list", "--format", "yaml")
    assert run.exit == 0
    assert "name: admin" in run.stdout
    assert "passwordNeeded: true" in run.stdout


def backup_of(born: lifecycle_kit.Born, revision: int = 0, *, pending: bool = False) -> bytes:
    document, root = born.ring.document, born.ring.root
    for _ in range(revision):
        document = restore.recovered(document, lifecycle_kit.AT, "nexus", "0" * 32)
    statement = anchor.encode(anchor.anchor_of(document, 0), root)
    raw = keyring.encode(document, root)
    return backup.encode(raw, statement, lifecycle_kit.AT, document, root, pending=pending)


def test_an_export_replaces_an_older_backup_of_its_store_and_nothing_else(tmp_path: Path) -> None:
    born, other = lifecycle_kit.born(), lifecycle_kit.born()
    path = backup_file.target_of(tmp_path, born.ring.document.store_id)
    backup_file.export(path, backup_of(born, 1))
    backup_file.export(path, backup_of(born, 2))
    assert path.read_bytes() == backup_of(born, 2)
    assert path.stat().st_mode & 0o777 == 0o600
    for raw, said in (
        (backup_of(born, 1), "is newer"),
        (backup_of(other, 5), "another store"),
    ):
        with pytest.raises(RefusedError, match=said):
            backup_file.export(path, raw)
        assert path.read_bytes() == backup_of(born, 2)
    path.write_bytes(backup_of(born, 1, pending=True))
    with pytest.raises(RefusedError, match="pending"):
        backup_file.export(path, backup_of(born, 2))
    for held in (b"", b"dear all", backup_of(born, 1)[:-1]):
        path.write_bytes(held)
        with pytest.raises(RefusedError):
            backup_file.export(path, backup_of(born, 2))
        assert path.read_bytes() == held
    assert [each.name for each in tmp_path.iterdir()] == [path.name], "nothing half-written is left"


@pytest.mark.parametrize("step", ["os.fsync", "pathlib.Path.read_bytes", "pathlib.Path.replace"])
def test_an_export_that_fails_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    born, path = lifecycle_kit.born(), tmp_path / "kept"
    backup_file.export(path, backup_of(born, 1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(step, full)
        with pytest.raises(SettingError, match="No space left"):
            backup_file.export(path, backup_of(born, 2))
    assert path.read_bytes() == backup_of(born, 1)
    assert [each.name for each in tmp_path.iterdir()] == ["kept"]


def test_a_disk_that_gives_back_something_else_does_not_replace_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    born, path = lifecycle_kit.born(), tmp_path / "kept"
    backup_file.export(path, backup_of(born, 1))
    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.read_bytes", lambda _: b"rotten")
        with pytest.raises(SettingError, match="not what was written"):
            backup_file.export(path, backup_of(born, 2))
    assert path.read_bytes() == backup_of(born, 1)
