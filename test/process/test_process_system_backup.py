"""A machine is gone, and all that is left of it is one file: real processes, an empty directory, the file."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from process_kit import BIN, PASSWORD, RESTORE, Installation
from spike.client.system_backup import PART_BYTES
from spike.error import FormatError, NotFoundError, SettingError
from spike.pilot import system_backup_file
from spike.pilot.reset_record import NAME

SECRETS = 40


@pytest.fixture(scope="module")
def backup(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one file; the machine it was made on is gone."""
    directory = tmp_path_factory.mktemp("old")
    file = tmp_path_factory.mktemp("kept") / "spike.system-backup"
    with Installation(directory) as spike:
        spike.init()
        for number in range(SECRETS):
            spike.client.put_secret(f"a/{number}", {"k": f"{number} " + "x" * 50_000})
        limited = subprocess.run(
            ["bash", "-c", f"ulimit -f 500; exec {BIN}/spike system-backup create {file}"],
            capture_output=True,
            env=dict(spike.environment),
            check=False,
        )
        assert limited.returncode == 2, limited.stderr
        assert b"cannot be written: File too large" in limited.stderr
        assert list(file.parent.iterdir()) == []
        done = spike.spike("system-backup", "create", str(file))
        assert done.returncode == 0, done.stderr.decode()
        assert file.stat().st_mode & 0o777 == 0o600
    return file


def restore(spike: Installation, file: Path, *more: str) -> subprocess.CompletedProcess[bytes]:
    return spike.spike(
        "restore",
        *("--from", str(file), "--password-stdin", "--yes", "--format", "yaml", *more),
        stdin=PASSWORD,
        identity=RESTORE,
    )


def require_all(spike: Installation) -> None:
    for number in range(SECRETS):
        assert spike.client.get_secret(f"a/{number}")["k"].startswith(f"{number} ")


def test_an_empty_machine_comes_up_from_the_file_alone(backup: Path, tmp_path: Path) -> None:
    with Installation(tmp_path, keepers=3) as spike:
        tried = restore(spike, backup, "--dry-run")
        assert tried.returncode == 0, tried.stderr.decode()
        assert yaml.safe_load(tried.stdout) == {"restored": False}
        assert spike.client.get_status().state == "uninitialized"
        done = restore(spike, backup)
        assert done.returncode == 0, done.stderr.decode()
        told = yaml.safe_load(done.stdout)
        assert told["newLineage"] != told["lineage"]
        require_all(spike)
        spike.wait_for_keepers()
        spike.kill_nexus()
        spike.start_nexus()
        # Its own Keepers bring the root key of the new lineage back.
        spike.wait_until_open()
        require_all(spike)
        assert spike.client.get_status().lineage == told["newLineage"]


def test_nexus_killed_between_parts_comes_up_by_the_same_command(
    backup: Path, tmp_path: Path
) -> None:
    parts = -(-backup.stat().st_size // PART_BYTES)
    assert parts > 3
    with Installation(tmp_path) as spike:
        for sent in (1, parts - 1):
            kill_after(spike, backup, sent)
            spike.start_nexus()
            assert spike.client.get_status().state == "uninitialized"
            refused = spike.spike("init", "--password-stdin", stdin=PASSWORD)
            assert refused.returncode == 1
            assert b"the store holds records but no keyring" in refused.stderr
        done = restore(spike, backup)
        assert done.returncode == 0, done.stderr.decode()
        require_all(spike)


def test_a_restore_onto_a_full_disk_says_so_and_works_once_there_is_room(
    backup: Path, tmp_path: Path
) -> None:
    with Installation(tmp_path) as spike:
        assert spike.nexus is not None
        whole = resource.prlimit(spike.nexus.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(spike.nexus.pid, resource.RLIMIT_FSIZE, (400_000, whole[1]))
        full = restore(spike, backup)
        assert full.returncode != 0
        assert b"Next:" in full.stderr, full.stderr.decode()
        assert spike.client.get_status().state == "uninitialized"
        resource.prlimit(spike.nexus.pid, resource.RLIMIT_FSIZE, whole)
        done = restore(spike, backup)
        assert done.returncode == 0, done.stderr.decode()
        require_all(spike)


def kill_after(spike: Installation, file: Path, parts: int) -> None:
    """Send so many parts of the file, then kill Nexus."""
    assert spike.nexus is not None
    probe = Path(__file__).parents[1] / "system_restore_probe.py"
    command = [sys.executable, str(probe), str(file), str(parts), str(spike.nexus.pid)]
    done = subprocess.run(
        [str(BIN / "spike-authority"), "run", "--id", RESTORE, "--", *command],
        input=PASSWORD,
        capture_output=True,
        env=dict(spike.environment),
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    spike.nexus.wait()


def test_a_killed_create_leaves_no_file_of_the_name_and_the_next_one_makes_it(
    backup: Path, tmp_path: Path
) -> None:
    file = tmp_path / "again.system-backup"
    script = f"""
import os, signal
from pathlib import Path
from spike.pilot import system_backup_file
from spike.pilot.reset_record import NAME
def pieces():
    for number, piece in enumerate(system_backup_file.pieces_of(Path({str(backup)!r}), 1 << 16)):
        yield piece
        if number == 3:
            os.kill(os.getpid(), signal.SIGKILL)
system_backup_file.create(Path({str(file)!r}), pieces(), lambda _: None)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["again.system-backup.part"]
    pieces = system_backup_file.pieces_of(backup, 1 << 16)
    system_backup_file.create(file, pieces, lambda _: None)
    assert file.read_bytes() == backup.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    with pytest.raises(SettingError, match="is there already"):
        system_backup_file.create(file, [], lambda _: None)


def test_what_came_damaged_takes_no_name(backup: Path, tmp_path: Path) -> None:
    file = tmp_path / "damaged"
    raw = bytearray(backup.read_bytes())
    raw[len(raw) // 2] ^= 1
    with pytest.raises(FormatError, match="a frame differs from its digest"):
        system_backup_file.create(file, [bytes(raw)], lambda _: None)
    assert list(tmp_path.iterdir()) == []


def test_a_reset_store_is_empty_and_its_keepers_have_forgotten_it(tmp_path: Path) -> None:
    file = tmp_path / "last.system-backup"
    with Installation(tmp_path, keepers=3) as spike:
        spike.init()
        spike.wait_for_keepers()
        spike.client.put_secret("a", {"k": "v"})
        shown = spike.spike("factory-reset", "--dry-run", "--format", "json")
        assert shown.returncode == 0, shown.stderr.decode()
        told = json.loads(shown.stdout)
        assert [each["state"] for each in told["keepers"]] == ["holding"] * 3
        wrong = spike.spike("factory-reset", "--no-backup", "--phrase", "erase it")
        assert wrong.returncode == 1
        assert spike.client.get_secret("a") == {"k": "v"}
        shown = spike.spike("factory-reset", "--dry-run", "--format", "json")
        phrase = json.loads(shown.stdout)["phrase"]
        spike.lose_keeper(3)
        done = spike.spike("factory-reset", "--backup", str(file), "--phrase", phrase)
        assert done.returncode == 0, done.stderr.decode()
        assert b"Keeper 1: erased" in done.stdout
        assert b"Keeper 3: unreachable" in done.stdout
        assert spike.client.get_status().state == "uninitialized"
        lines = [json.loads(line) for line in (tmp_path / "pilot" / NAME).read_bytes().splitlines()]
        assert [line["step"] for line in lines] == ["begun", "refused", "begun", "ended"]
        assert lines[-1]["store_id"] == told["storeId"]
        assert lines[-1]["backup"] == str(file)
        spike.start_keeper(3)
        spike.init()
        spike.wait_for_keepers()
        with pytest.raises(NotFoundError):
            spike.client.get_secret("a")
    assert spike.spike("system-backup", "inspect", str(file)).returncode == 0


def test_recovery_shards_bring_an_empty_machine_up_too(tmp_path: Path) -> None:
    file, shards = tmp_path / "spike.system-backup", tmp_path / "shard"
    old, new = tmp_path / "old", tmp_path / "new"
    for each in (shards, old, new):
        each.mkdir(mode=0o700)
    recover = "spiffe://spike.ist/spike/pilot/role/recover"
    with Installation(old) as spike:
        spike.init()
        spike.client.put_secret("a", {"k": "v"})
        done = spike.spike("operator", "recover", "--yes", "--dir", str(shards), identity=recover)
        assert done.returncode == 0, done.stderr.decode()
        assert spike.spike("system-backup", "create", str(file)).returncode == 0
    shown = subprocess.run(
        [str(BIN / "spike"), "system-backup", "inspect", str(file)],
        capture_output=True,
        check=False,
        env={"PATH": "/usr/bin:/bin"},  # neither a Nexus nor an identity is needed
    )
    assert shown.returncode == 0, shown.stderr.decode()
    assert b"2 of 3 recovery shards" in shown.stdout
    first, second, _ = sorted(shards.iterdir())
    brought = ["--file", str(first), "--file", str(second)]
    with Installation(new) as spike:
        arguments = ["operator", "restore", "--from", str(file), "--yes", *brought]
        done = spike.spike(*arguments, "--dry-run", identity=RESTORE)
        assert done.returncode == 0, done.stderr.decode()
        assert spike.client.get_status().state == "uninitialized"
        done = spike.spike(*arguments, identity=RESTORE)
        assert done.returncode == 0, done.stderr.decode()
        assert b"New lineage" in done.stdout
        assert spike.client.get_secret("a") == {"k": "v"}
