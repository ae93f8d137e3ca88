"""Several backup places: each holds a whole copy, and any one of them is enough."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from process_kit import PASSWORD, RESTORE, Installation


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: sockets lie below it."""
    made = Path(tempfile.mkdtemp(prefix="spike-place-"))
    yield made
    shutil.rmtree(made)


def copies(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_with_store_keyring_and_one_place_lost_the_other_place_brings_the_key_back(
    directory: Path,
) -> None:
    first, second = directory / "first", directory / "second"
    with Installation(directory, SPIKE_NEXUS_BACKUP_DIR=f"{first}:{second}") as spike:
        spike.init()
        spike.client.put_secret("a", {"k": "v"})
        assert copies(first) == copies(second)
        assert sorted(path.suffix for path in first.iterdir()) == [".anchor", ".key-backup"]
        spike.kill_nexus()
        shutil.rmtree(first)
        with sqlite3.connect(spike.store / "store.sqlite") as store:
            assert store.execute("DELETE FROM record WHERE kind = 'keyring'").rowcount == 1
        store.close()
        spike.start_nexus()
        (backup,) = second.glob("*.key-backup")
        done = spike.spike(
            *("restore", "--password-stdin", "--yes", "--backup", str(backup)),
            stdin=PASSWORD,
            identity=RESTORE,
        )
        assert done.returncode == 0, done.stderr.decode()
        assert spike.client.get_secret("a") == {"k": "v"}
        assert copies(first) == copies(second)
