"""Each runbook is followed to the letter, on real processes in the state it begins with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from around_recovery_kit import AroundRecovery
from around_rotation_kit import Around
from doc_kit import DOCS
from process_kit import BIN, PASSWORD, Installation
from runbook_kit import play


def fresh_machine(directory: Path, kept: Path) -> Installation:
    """A file of an old machine, its password, and an empty Nexus."""
    old = directory / "old"
    old.mkdir()
    with Installation(old) as spike:
        spike.init()
        spike.client.put_secret("fixture/one", {"key": "one"})
        done = spike.spike("system-backup", "create", str(kept / "spike.system-backup"))
        assert done.returncode == 0, done.stderr.decode()
    password = kept / "password.txt"
    password.touch(mode=0o600)
    password.write_bytes(PASSWORD)
    new = directory / "new"
    new.mkdir()
    return Installation(new)


BEGINNING: dict[str, Callable[[Path, Path], Installation]] = {
    "restore-fresh-machine.md": fresh_machine,
}
"""The state each runbook begins with: what lies in the directory it is followed in, and what runs."""


@pytest.mark.parametrize("name", sorted(BEGINNING))
def test_a_runbook_does_what_it_says(name: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    with BEGINNING[name](tmp_path, kept) as spike:
        environment = {**spike.environment, "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin"}
        assert play(f"docs/runbook/{name}", environment, kept) > 0


OF_ROTATION = (
    "emergency-rotation.md",
    "failed-rotation.md",
    "planned-rotation.md",
    "rollback.md",
)
"""They begin with three Keepers and some secrets, and say themselves what happens meanwhile."""


@pytest.mark.parametrize("name", OF_ROTATION)
def test_a_runbook_of_a_rotation_does_what_it_says(name: str, tmp_path: Path) -> None:
    with Installation(tmp_path, keepers=3, threshold=2) as spike:
        around = Around(spike)
        around.furnish()
        environment = {**spike.environment, "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin"}
        assert play(f"docs/runbook/{name}", environment, tmp_path, around.happen) >= 5


OF_RECOVERY = {
    "processes": (
        "nexus-restart.md",
        "keeper-lost.md",
        "memory-lost.md",
        "keyring-lost.md",
        "older-store.md",
        "move-keeper.md",
    ),
    "people": (
        "recovery-shard.md",
        "leaving-holder.md",
        "suspected-compromise.md",
        "password-lost.md",
        "factory-reset.md",
    ),
}
"""They begin as those of rotations do, and go on, one after the other, where the one before has ended."""


@pytest.mark.parametrize("names", OF_RECOVERY.values(), ids=OF_RECOVERY)
def test_the_runbooks_of_recoveries_do_what_they_say(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    with Installation(tmp_path, keepers=3, threshold=2) as spike:
        around = AroundRecovery(spike, kept)
        around.furnish()
        environment = {**spike.environment, "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin"}
        for name in names:
            assert play(f"docs/runbook/{name}", environment, kept, around.happen) >= 5


def test_every_runbook_with_commands_is_followed() -> None:
    with_commands = {
        path.name for path in (DOCS / "runbook").glob("*.md") if "```console" in path.read_text()
    }
    followed = [*BEGINNING, *OF_ROTATION, *(name for each in OF_RECOVERY.values() for name in each)]
    assert with_commands == set(followed)
    assert len(followed) == len(set(followed))
