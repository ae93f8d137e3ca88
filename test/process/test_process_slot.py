"""Slots, verification and export with real processes and the real cost of Argon2id; what of them is left in memory."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from memory_scan import find_in_process
from process_kit import PASSWORD, RESTORE, Installation, eventually
from size import record, size

RECOVER = "spiffe://spike.ist/spike/pilot/role/recover"
ALICE = b"wicker plume 41 glacier dune hatch"
BOB = b"quartz ember 8 lantern moss fjord"
TOOL = Path(__file__).parents[2] / "tool" / "open_backup.py"


@pytest.fixture
def spike(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path) as started:
        started.init()
        yield started


def files(directory: Path) -> Mapping[bytes, str]:
    """Write each password to a file of its owner's alone."""
    made = {}
    for number, password in enumerate((PASSWORD, ALICE, BOB)):
        path = directory / f"password-{number}"
        path.write_bytes(password + b"\n")
        path.chmod(0o600)
        made[password] = str(path)
    return made


def run(spike: Installation, *arguments: str, code: int = 0, **more: object) -> str:
    done = spike.spike(*arguments, **more)  # type: ignore[arg-type]
    said = done.stdout.decode() + done.stderr.decode()
    assert done.returncode == code, said
    return said


def opens(spike: Installation, password: bytes, slot: str, *more: str) -> bool:
    """Kill Nexus and tell whether a password brings back what was there."""
    spike.kill_nexus()
    spike.drop_client()
    spike.start_nexus()
    done = spike.spike(
        *("restore", "--password-stdin", "--yes", "--slot", slot, *more),
        stdin=password,
        identity=RESTORE,
    )
    return done.returncode == 0 and spike.client.get_secret("a") == {"k": "v"}


def test_the_life_of_slots_and_copies(spike: Installation, tmp_path: Path) -> None:
    password = files(tmp_path)
    spike.client.put_secret("a", {"k": "v"})
    admin = ("--with-slot", "admin", "--existing-password-file", password[PASSWORD])
    said = run(spike, "backup", "slot", "add", "alice", "--password-file", password[ALICE], code=1)
    assert "--with-slot" in said
    said = run(spike, "backup", "slot", "add", "alice", "--password-file", password[ALICE], *admin)
    assert "Slot alice is added" in said
    assert said.count(": good") == 2
    said = run(spike, "backup", "verify", "--slot", "alice", "--password-file", password[ALICE])
    assert "every copy opens with its password; due again" in said
    listed = json.loads(run(spike, "backup", "slot", "list", "--format", "json"))
    assert [slot["name"] for slot in listed["slots"]] == ["admin", "alice"]

    # Change and removal by the recover role, which shows no existing password.
    said = run(
        *(spike, "backup", "slot", "change-password", "admin"),
        *("--password-file", password[BOB], "--no-rotate"),
        identity=RECOVER,
    )
    assert "has a new password" in said
    assert "ROTATION" not in said
    said = run(spike, "backup", "slot", "remove", "alice", "--yes", "--no-rotate", identity=RECOVER)
    assert "Slot alice is removed" in said
    said = run(spike, "backup", "slot", "remove", "admin", "--yes", code=1, identity=RECOVER)
    assert "nothing would be left" in said
    status = run(spike, "status", code=4)
    assert "The old password of slot admin still opens root-key generation 1" in status

    # The processes hold none of the passwords, nor did they write them.
    assert spike.nexus is not None
    wanted = {"admin's": PASSWORD, "alice's": ALICE, "bob's": BOB}
    assert not find_in_process(spike.nexus.pid, wanted)
    for path in (*spike.store.rglob("*"), *spike.place.rglob("*"), spike.log):
        if path.is_file():
            assert not any(each in path.read_bytes() for each in wanted.values()), path

    exported = tmp_path / "kept"
    exported.mkdir()
    run(spike, "backup", "export", str(exported))
    (file,) = exported.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    run(spike, "backup", "export", str(file))
    assert not opens(spike, PASSWORD, "admin")
    assert opens(spike, BOB, "admin", "--backup", str(file))
    # The restore is an epoch: what was exported before is older, and is replaced; the newer one is not.
    run(spike, "backup", "export", str(file))
    alone = subprocess.run(
        [sys.executable, "-I", str(TOOL), str(file)],
        input=BOB,
        capture_output=True,
        start_new_session=True,
        check=False,
    )
    assert alone.returncode == 0, alone.stderr


def test_a_changed_password_is_followed_by_a_new_root_key(
    spike: Installation, tmp_path: Path
) -> None:
    spike.client.put_secret("a", {"k": "v"})
    password = files(tmp_path)
    said = run(
        *(spike, "backup", "slot", "change-password", "admin", "--format", "json"),
        *("--password-file", password[ALICE]),
        identity=RECOVER,
    )
    assert json.loads(said[said.index("{") :])["rotation"]
    eventually("a new root key", lambda: spike.client.get_status().root_generation == 2)
    eventually("good copies", lambda: spike.client.verify_backup().good)
    backup = spike.client.get_status().backup
    assert backup is not None
    # Until the old one is destroyed, after the window in which one can go back to it.
    assert [each.generation for each in backup.retired] == [1]
    assert opens(spike, ALICE, "admin")
    assert not opens(spike, PASSWORD, "admin")


def test_an_export_takes_the_place_of_no_other_file(spike: Installation, tmp_path: Path) -> None:
    other = tmp_path / "letter"
    other.write_text("dear all")
    assert "this is no backup" in run(spike, "backup", "export", str(other), code=1)
    assert other.read_text() == "dear all"
    (file,) = spike.place.glob("*.key-backup")
    newer = tmp_path / "newer"
    shutil.copy(file, newer)
    text = newer.read_bytes().replace(b"spike-backup 1", b"spike-backup 9")
    newer.write_bytes(text)
    run(spike, "backup", "export", str(newer), code=1)
    assert newer.read_bytes() == text
    run(spike, "backup", "export", str(tmp_path / "none" / "file"), code=2)


def test_wrong_passwords_are_slowed_down_and_lock_nobody_out(spike: Installation) -> None:
    spike.client.put_secret("a", {"k": "v"})
    spike.kill_nexus()
    spike.drop_client()
    spike.start_nexus()
    arguments = ("restore", "--password-stdin", "--yes")

    def attempt(password: bytes) -> str:
        done = spike.spike(*arguments, stdin=password, identity=RESTORE)
        return "" if done.returncode == 0 else done.stderr.decode()

    # At least so many tries, and so many of them derived: the others come too soon, and are told how long to wait.
    tries, derived = size(test=5, proof=20), size(test=3, proof=9)
    tried, counted, longest = 0, 0, 0
    while tried < tries or counted < derived:
        said = attempt(b"the wrong password, number %d" % tried)
        tried += 1
        told = re.search(r"try again in (\d+) s", said)
        if told is None:
            assert "does not open slot" in said
            counted += 1
            continue
        longest = max(longest, int(told[1]))
        if counted < derived:
            time.sleep(int(told[1]))
    # It is the slot that waits: also who has the right password, and comes too soon, does.
    while (said := attempt(PASSWORD)) != "":
        told = re.search(r"try again in (\d+) s", said)
        assert told is not None, said
        longest = max(longest, int(told[1]))
        time.sleep(int(told[1]))
    assert longest <= 60
    assert spike.client.get_secret("a") == {"k": "v"}
    record("wrong passwords, with real processes", tried, f"waits up to {longest} s, then let in")
