"""tool/open_backup.py, alone with `cryptography`: opens any slot of a backup, and a pending one when told to."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lifecycle_kit
from lost_kit import PASSWORD, put
from nexus_kit import running
from slot_kit import ALICE, OTHER, ask, give_slot
from spike.lifecycle import anchor, backup, keyring, restore

TOOL = Path(__file__).parents[2] / "tool" / "open_backup.py"


class Kept:
    """A store with several slots, one of them changed and one removed, its backup, and one that is pending."""

    def __init__(self, directory: Path) -> None:
        self.store = directory / "data" / "store.sqlite"
        self.place = directory / "backup"
        self.pending = directory / "pending"

    @property
    def backup(self) -> Path:
        (path,) = self.place.glob("*.key-backup")
        return path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    held = Kept(tmp_path_factory.mktemp("kept"))

    async def live() -> None:
        async with running(
            held.store.parent, place=held.place, password=b"the first password of all"
        ) as nexus:
            await put(nexus, "a", "1")
            await give_slot(nexus, "alice", PASSWORD)
            assert (await ask(nexus, "change", "alice", ALICE))[0] == 200
            await give_slot(nexus, "bob", OTHER)
            assert (await ask(nexus, "remove", "admin"))[0] == 200
            opened = nexus.vault.opened
            document, root = opened.document, opened.ring.root
            following = restore.recovered(document, lifecycle_kit.AT, "nexus", "0" * 32)
            raw = keyring.encode(following, root)
            statement = anchor.encode(anchor.anchor_of(following, 0), root)
            held.pending.write_bytes(
                backup.encode(raw, statement, lifecycle_kit.AT, following, root, pending=True)
            )

    asyncio.run(live())
    return held


def alone(directory: Path, password: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    program = shutil.copy(TOOL, directory)
    return subprocess.run(
        [sys.executable, "-I", program, *arguments],
        input=password + b"\n",
        capture_output=True,
        start_new_session=True,  # without a terminal it reads the password from standard input
        env={"PATH": os.environ["PATH"]},
        check=False,
        cwd=directory,
    )


@pytest.mark.parametrize(("slot", "password"), [("alice", ALICE), ("bob", OTHER)])
def test_each_slot_opens_backup_and_secret(
    kept: Kept, tmp_path: Path, slot: str, password: bytes
) -> None:
    store = shutil.copy(kept.store, tmp_path)
    done = alone(tmp_path, password, str(kept.backup), slot, str(store), "a")
    assert done.returncode == 0, done.stderr
    assert f"slot {slot}, root key of generation 1".encode() in done.stdout
    assert done.stdout.endswith(b'{"k": "1"}\n')


def test_a_wrong_password_or_slot_is_said(kept: Kept, tmp_path: Path) -> None:
    done = alone(tmp_path, PASSWORD, str(kept.backup), "alice")
    assert done.returncode == 1
    assert b"the password does not open this slot" in done.stderr
    done = alone(tmp_path, PASSWORD, str(kept.backup), "admin")
    assert done.returncode == 1
    assert b"the slots are: alice, bob" in done.stderr


def test_a_pending_backup_opens_when_it_is_told_to(kept: Kept, tmp_path: Path) -> None:
    done = alone(tmp_path, ALICE, str(kept.pending))
    assert done.returncode == 1
    assert b"pending" in done.stderr
    done = alone(tmp_path, ALICE, "--pending", str(kept.pending))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("position", [0, 0.3, 0.6, 0.9, 0.999])
def test_a_changed_byte_is_told(kept: Kept, tmp_path: Path, position: float) -> None:
    raw = bytearray(kept.backup.read_bytes())
    raw[int(position * len(raw))] ^= 1
    (tmp_path / "changed").write_bytes(raw)
    done = alone(tmp_path, ALICE, str(tmp_path / "changed"))
    assert done.returncode != 0
    assert b"root key of generation" not in done.stdout
