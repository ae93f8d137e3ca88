"""Engines are found by name among what is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spike.error import SettingError
from spike.storage.registry import open_store

ENGINE = """
from pathlib import Path
from spike.storage.memory import MemoryStore
async def open_store(directory: Path):
    return MemoryStore()
"""


def install(site: Path, package: str, entry_points: str) -> None:
    """Lay down what an installer would: a module, and its metadata."""
    (site / f"{package}.py").write_text(ENGINE)
    metadata = site / f"{package}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[spike.storage]\n{entry_points}\n")


async def test_an_unknown_name_is_refused_listing_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="'postgres'") as caught:
        await open_store("postgres", tmp_path / "store")
    assert "memory" in caught.value.next_step
    assert "sqlite" in caught.value.next_step
    assert not (tmp_path / "store").exists()


async def test_another_packages_engine_is_found_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "spike_shelf", "shelf = spike_shelf:open_store")
    monkeypatch.syspath_prepend(tmp_path)
    store = await open_store("shelf", tmp_path / "store")
    assert await store.census() == {}
    await store.close()


@pytest.mark.parametrize("value", ["spike_shelf:no_such_name", "no_such_module:open_store"])
async def test_an_engine_that_does_not_load_is_refused_naming_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    install(tmp_path, "spike_shelf", f"broken = {value}")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingError, match=value):
        await open_store("broken", tmp_path / "store")


async def test_a_name_two_packages_claim_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "spike_shelf", "sqlite = spike_shelf:open_store")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SettingError, match="several packages") as caught:
        await open_store("sqlite", tmp_path / "store")
    assert "spike_shelf" in caught.value.message
    assert not (tmp_path / "store").exists()


def test_importing_the_engines_opens_nothing_and_loads_no_other_part_of_spike() -> None:
    program = """
import sys
before = set(sys.modules)
import spike.storage.registry, spike.storage.memory, spike.storage.sqlite
import threading
loaded = {it for it in sys.modules if it.startswith("spike")}
assert all(it in ("spike", "spike.error") or it.startswith("spike.storage") for it in loaded), loaded
assert threading.active_count() == 1
"""
    subprocess.run([sys.executable, "-c", program], check=True)
