"""Every format that was ever released opens for good: a whole installation of each, from its store or its backup."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from nexus_kit import SUPERUSER, WORKLOAD, RunningNexus, running
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
    assert INSTALLATIONS == ["installation-1"]


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
