"""The pending key backup: beside the one in force, and no way to the root key before its keyring is in force."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import pytest

import lifecycle_kit
from lost_kit import PASSWORD, SECRETS, Lost, lose
from nexus_kit import SUPERUSER, RunningNexus, running
from spike.error import StoreUnavailableError
from spike.lifecycle import anchor, backup, keyring, restore
from spike.nexus.place import Place
from spike.nexus.vault import KEYRING_ID, Vault
from spike.storage.protocol import Delete

STORE = "0a" * 16


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path / "backup")
    made.prepare()
    return made


def test_the_pending_backup_lies_beside_the_one_in_force(place: Place) -> None:
    place.write_backup(STORE, b"in force")
    assert place.read_pending(STORE) is None
    place.write_pending(STORE, b"first")
    place.write_pending(STORE, b"second")
    assert (place.read_backup(STORE), place.read_pending(STORE)) == (b"in force", b"second")
    path = place.directory / f"spike-{STORE}.key-backup.pending"
    assert path.stat().st_mode & 0o777 == 0o600
    place.remove_pending(STORE)
    place.remove_pending(STORE)
    assert (place.read_backup(STORE), place.read_pending(STORE)) == (b"in force", None)
    assert [path.name for path in place.directory.iterdir()] == [f"spike-{STORE}.key-backup"]


def test_a_place_that_is_gone_says_so(place: Place) -> None:
    shutil.rmtree(place.directory)
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        place.write_pending(STORE, b"x")
    with pytest.raises(StoreUnavailableError, match="cannot be removed"):
        place.remove_pending(STORE)


def test_a_write_that_fails_leaves_the_pending_backup_before(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.write_pending(STORE, b"first")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreUnavailableError, match="No space left"):
        place.write_pending(STORE, b"second")
    assert place.read_pending(STORE) == b"first"


@pytest.fixture
def lost(tmp_path: Path) -> Lost:
    return lose(tmp_path)


def pending_backup(vault: Vault) -> bytes:
    """Return the pending backup of a keyring that is to follow the present one."""
    held, root = vault.opened.document, vault.opened.ring.root
    following = restore.recovered(held, lifecycle_kit.AT, "nexus", held.slots[0].id)
    access = vault.opened.policies.access_generation
    statement = anchor.encode(anchor.anchor_of(following, access), root)
    raw = keyring.encode(following, root)
    return backup.encode(raw, statement, lifecycle_kit.AT, following, root, pending=True)


async def lose_keyring(nexus: RunningNexus) -> None:
    record = await nexus.store.get(KEYRING_ID)
    assert record is not None
    await nexus.store.apply([Delete(record.id, record.revision)], fence=None)


async def test_a_pending_backup_brings_nothing_back_unless_it_came_into_force(lost: Lost) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        pending = pending_backup(nexus.vault)
        before = nexus.vault.opened.anchor_raw()
    reached = backup.decode_untrusted(pending).anchor_raw
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await lose_keyring(nexus)
        for seen in (b"", before):
            status, told = await nexus.restore(PASSWORD, backup=pending, anchor=seen)
            assert (status, told["err"]) == (400, "refused_pending"), told
            assert ".pending" in told["nextStep"]
        # Not even when it was copied over the one in force, whose anchor would count.
        in_force = lost.backup_path.read_bytes()
        lost.backup_path.write_bytes(pending)
        status, told = await nexus.restore(PASSWORD, backup=pending)
        assert (status, told["err"]) == (400, "refused_pending"), told
        lost.backup_path.write_bytes(in_force)
        # Who has seen the store that far knows that it came into force.
        status, told = await nexus.restore(PASSWORD, backup=pending, anchor=reached)
        assert status == 200, told
        assert await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "a"}) == (
            200,
            {"data": {"k": "1"}},
        )
