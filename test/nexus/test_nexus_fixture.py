"""Every format that was ever released opens for good: a whole installation of each, from its store or its backup."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import shutil
from pathlib import Path

import pytest

from around_kit import eventually
from nexus_kit import RESTORE, SUPERUSER, WORKLOAD, RunningNexus, running
from rotating_kit import generations, until
from spike.client.anchor import AnchorStore
from spike.lifecycle import backup
from spike.lifecycle.keyring import Phase
from spike.lifecycle.shard_text import decode_shard_text_untrusted
from spike.nexus.performer import Performer
from spike.nexus.vault import KEYRING_ID
from spike.storage.protocol import Delete

FIXTURE = Path(__file__).resolve().parent.parent / "fixture"
PASSWORD = b"the password of a fixture, no secret"
INSTALLATIONS = sorted(path.name for path in FIXTURE.glob("installation-*"))


def copied(name: str, target: Path) -> Path:
    """Copy a fixture with the modes a checkout does not keep."""
    target = Path(shutil.copytree(FIXTURE / name, target / name))
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    return target


async def holds_everything(nexus: RunningNexus) -> bool:
    got = "/v1/store/secrets?action=get"
    for path, version, expected in (
        ("fixture/one", 0, (200, {"data": {"key": "one 2"}})),
        ("fixture/one", 1, (200, {"data": {"key": "one 0"}})),
        ("fixture/two", 3, (200, {"data": {"key": "two 2"}})),
        ("fixture/two", 2, (404, {"err": "api_not_found"})),
    ):
        for caller in (SUPERUSER, WORKLOAD):
            assert await nexus.call(caller, got, {"path": path, "version": version}) == expected
    return True


def test_there_is_a_fixture_of_each_format() -> None:
    names = ["installation-1", "installation-1-keeper", "installation-2-rotation"]
    assert names == INSTALLATIONS


@pytest.mark.parametrize("name", INSTALLATIONS)
async def test_an_old_installation_is_restored_and_goes_on(tmp_path: Path, name: str) -> None:
    old = copied(name, tmp_path)
    async with running(old / "data", place=old / "backup", born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        assert await holds_everything(nexus)
        asked = {"path": "fixture/one", "values": {"key": "new"}}
        assert await nexus.call(SUPERUSER, "/v1/store/secrets", asked) == (200, {})
    async with running(old / "data", place=old / "backup", born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200


@pytest.mark.parametrize("name", INSTALLATIONS)
async def test_an_old_key_backup_brings_a_lost_keyring_back(tmp_path: Path, name: str) -> None:
    old = copied(name, tmp_path)
    (backup,) = (old / "backup").glob("*.key-backup")
    async with running(old / "data", place=old / "backup", born=False) as nexus:
        record = await nexus.store.get(KEYRING_ID)
        assert record is not None
        await nexus.store.apply([Delete(KEYRING_ID, record.revision)], fence=None)
        assert (await nexus.restore(PASSWORD, backup=backup.read_bytes()))[0] == 200
        assert await holds_everything(nexus)


SHARED = FIXTURE / "installation-1-keeper"
PLAINTEXT = b"a plaintext of a fixture"


async def test_old_recovery_shards_bring_it_back(tmp_path: Path) -> None:
    old = copied(SHARED.name, tmp_path)
    async with running(old / "data", place=old / "backup", born=False) as nexus:
        for index in (1, 3):
            text = bytearray((old / "shard" / f"spike.recovery.{index}.txt").read_bytes())
            shard = decode_shard_text_untrusted(text)
            with shard.value.view() as view:
                asked = {"id": shard.index, "shard": list(view), "setId": shard.set_id}
            shard.value.wipe()
            status, told = await nexus.call(RESTORE, "/v1/operator/restore", asked)
            assert status == 200, told
        assert told["restored"] is True
        assert await holds_everything(nexus)


async def test_what_was_encrypted_once_is_decrypted(tmp_path: Path) -> None:
    old = copied(SHARED.name, tmp_path)
    async with running(old / "data", place=old / "backup", born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        triple = json.loads((old / "cipher" / "triple.json").read_bytes())
        status, told = await nexus.call(SUPERUSER, "/v1/cipher/decrypt", triple)
        assert (status, base64.b64decode(told["plaintext"])) == (200, PLAINTEXT)
        blob = (old / "cipher" / "blob").read_bytes()
        assert await asyncio.to_thread(_decrypted, nexus, blob) == PLAINTEXT


def _decrypted(nexus: RunningNexus, blob: bytes) -> bytes:
    context = nexus.context_of(SUPERUSER)
    wire = http.client.HTTPSConnection("127.0.0.1", nexus.server.port, context=context, timeout=30)
    with contextlib.closing(wire):
        headers = {"Content-Type": "application/octet-stream"}
        wire.request("POST", "/v1/cipher/decrypt", blob, headers)
        return wire.getresponse().read()


async def test_what_pilot_remembered_of_it_still_counts(tmp_path: Path) -> None:
    old = copied(SHARED.name, tmp_path)
    (file,) = (old / "pilot").glob("*.anchor")
    seen = AnchorStore(old / "pilot").get(file.stem)
    assert seen is not None
    async with running(old / "data", place=tmp_path / "other", born=False) as nexus:
        asked = {**await nexus.seal(RESTORE, PASSWORD), "slotName": ""}
        asked["anchor"] = base64.b64encode(seen.raw).decode()
        _, told = await nexus.call(RESTORE, "/v1/operator/restore?action=password", asked)
        assert told["preview"]["epoch"] == seen.statement.epoch == 3
        assert "remarks" not in told, "the anchor confirms that this is the newest copy"


async def test_an_old_rotation_goes_on(tmp_path: Path) -> None:
    old = copied("installation-2-rotation", tmp_path)
    (pending,) = (old / "backup").glob("*.pending")
    async with running(
        old / "data", place=old / "backup", born=False, performer=Performer()
    ) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        assert await generations(nexus) == {1, 2}
        await nexus.rotations.set_max_rate(0, SUPERUSER)
        await nexus.rotations.resume(SUPERUSER)
        await until(nexus, Phase.VERIFIED)
        assert await generations(nexus) == {2}
        assert await holds_everything(nexus)
        await nexus.rotations.finalize(SUPERUSER)
        await until(nexus, "finalized")
        await eventually(lambda: not pending.exists())


async def test_an_old_pending_backup_is_still_read(tmp_path: Path) -> None:
    old = copied("installation-2-rotation", tmp_path)
    (pending,) = (old / "backup").glob("*.pending")
    held = backup.decode_untrusted(pending.read_bytes())
    assert held.pending
    assert held.keyring.hint.active_root.number == 2
