"""Nexus, or the command that asked, killed at every durable step of a restore, its undo and a factory reset.

Afterwards the same command completes it, nothing that was acknowledged is lost, and whatever the Keepers hold by then
brings back what is in force and nothing else.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from process_kit import BIN, PASSWORD, RESTORE, Installation, eventually
from size import PROOF, record, seed
from spike.error import NotFoundError
from spike.pilot.preview import phrase_for
from spike.storage.sqlite_directory import DATABASE

KILLING = Path(__file__).parent.parent / "killing_recovery.py"
FROM_FILE = ("restore", "--set-aside", "--password-stdin", "--yes", "--from")
UNDO = ("restore", "undo", "--yes")
RESET = ("factory-reset", "--no-backup", "--phrase")
NOBODY = (-1, "nexus")
FEW = 1
"""So many steps beside those that are named, where this is no proof."""

Kill = tuple[int, str]
"""At which step, from 0, and who: `nexus` or `command`."""


@dataclass
class Scene:
    """One installation whose files can be put back to what they were; its Keepers are empty then."""

    spike: Installation
    kept: Path
    killing: Path
    file: Path
    store_id: str = ""

    def keep(self) -> None:
        """Take note of the files as they are. Nexus must not run."""
        for name in ("store", "backup", "pilot"):
            shutil.copytree(self.spike.directory / name, self.kept / name)

    def begin(self) -> None:
        """Go back to what was kept, with a Nexus that will kill."""
        spike = self.spike
        spike.kill_nexus()
        for name in ("store", "backup", "pilot"):
            shutil.rmtree(spike.directory / name, ignore_errors=True)
            if (self.kept / name).exists():
                shutil.copytree(self.kept / name, spike.directory / name)
        self.restart_keepers()
        spike.nexus_command = [sys.executable, str(KILLING), str(self.killing)]
        spike.start_nexus()
        spike.nexus_command = []

    def restart_keepers(self) -> None:
        for index in self.spike.keeper:
            self.spike.kill_keeper(index)
            self.spike.start_keeper(index)

    def carry_out(self, kill: Kill, *arguments: str, identity: str = "") -> list[str]:
        """Run a command and kill there; return the steps before. Nexus runs as it is shipped then."""
        spike, (at, victim) = self.spike, kill
        for path in self.killing.iterdir():
            path.unlink()
        (self.killing / "aim").write_text(f"{at} {victim}")
        assert spike.nexus is not None
        spike.nexus.send_signal(10)
        eventually("it is armed", (self.killing / "steps").exists)
        run = [str(BIN / "spike"), *arguments]
        if identity:
            run = [str(BIN / "spike-authority"), "run", "--id", identity, "--", *run]
        shell = (
            f"echo $$ > {self.killing}/group.new; mv {self.killing}/group.new {self.killing}/group"
        )
        subprocess.run(
            ["bash", "-c", f'{shell}; exec "$@"', "bash", *run],
            input=PASSWORD,
            capture_output=True,
            env=dict(spike.environment),
            check=False,
            start_new_session=True,
        )
        steps = (self.killing / "steps").read_text().splitlines()
        spike.kill_nexus()
        spike.start_nexus()
        return steps

    def again(self, *arguments: str, done: str, identity: str = "") -> None:
        """Run the command again: it completes what was begun, or says that nothing is left to do."""
        told = self.spike.spike(*arguments, stdin=PASSWORD, identity=identity)
        assert told.returncode == 0 or done in told.stderr.decode(), told.stderr.decode()

    def require_own_key(self, path: str) -> None:
        """The Keepers hold the key of what is in force: alone they bring it back, and a secret with it."""
        self.spike.wait_for_keepers()
        self.spike.kill_nexus()
        self.spike.start_nexus()
        self.spike.wait_until_open()
        assert self.spike.client.get_secret(path) == {"k": path}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """A store with the secret `own` behind a system backup with the secret `old`."""
    place = {name: tmp_path / name for name in ("spike", "kept", "killing")}
    for path in place.values():
        path.mkdir(mode=0o700)
    with Installation(place["spike"], keepers=3) as spike:
        made = Scene(spike, place["kept"], place["killing"], tmp_path / "spike.system-backup")
        spike.init()
        made.store_id = spike.client.get_status().store_id or ""
        spike.client.put_secret("old", {"k": "old"})
        assert spike.spike("system-backup", "create", str(made.file)).returncode == 0
        spike.client.put_secret("own", {"k": "own"})
        spike.kill_nexus()
        yield made


def restored(scene: Scene) -> None:
    done = scene.spike.spike(*FROM_FILE, str(scene.file), stdin=PASSWORD, identity=RESTORE)
    assert done.returncode == 0, done.stderr.decode()


def accept_restored(scene: Scene) -> None:
    """Open a new lineage that the killed command never heard of: what Pilot saw last is the old one, and it asks."""
    ways: tuple[tuple[str, ...], ...] = (
        (),
        ("--accept-older-store", "--phrase", phrase_for(scene.store_id)),
    )
    for more in ways:
        told = scene.spike.spike(
            "restore", "--password-stdin", "--yes", *more, stdin=PASSWORD, identity=RESTORE
        )
        if told.returncode == 0:
            return
        assert "--accept-older-store" in told.stderr.decode(), told.stderr.decode()
    raise AssertionError("it does not open")


def asides(scene: Scene, prefix: str) -> list[Path]:
    return sorted((scene.spike.store / "aside").glob(f"{prefix}-*/{DATABASE}"))


def secrets_in(file: Path) -> int:
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as store:
        (count,) = store.execute("SELECT count(*) FROM record WHERE kind = 'secret'").fetchone()
    return int(count)


def each_kill(scene: Scene, play: Callable[[Kill], list[str]], *named: str) -> tuple[int, int]:
    """Play with a kill at every step, or at the named ones and a few more; return how many kills, and the seed.

    A name stands for the step behind the last one of that name: what it changed is there, and what follows is not.
    """
    number = seed()
    print(f"SPIKE_SEED={number}")
    steps = play(NOBODY)
    points = set(range(len(steps) + 1))
    chosen = {len(steps) - steps[::-1].index(name) for name in named}
    chance = random.Random(number)
    victims: tuple[str, ...] = ("nexus", "command")
    if not PROOF:
        points = chosen | set(chance.sample(sorted(points), FEW))
        victims = (chance.choice(victims),)
    kills = [(at, victim) for at in sorted(points) for victim in victims]
    for kill in kills:
        print(kill, steps[: kill[0]][-1:])
        play(kill)
    return len(kills), number


def test_an_undo_that_is_killed_is_completed_by_the_same_command(scene: Scene) -> None:
    spike = scene.spike
    scene.restart_keepers()
    spike.start_nexus()
    restored(scene)
    spike.kill_nexus()
    scene.keep()

    def play(kill: Kill) -> list[str]:
        scene.begin()
        spike.restore()
        spike.wait_for_keepers()
        spike.client.put_secret("new", {"k": "new"})
        steps = scene.carry_out(kill, *UNDO, identity=RESTORE)
        scene.again(*UNDO, identity=RESTORE, done="no restore has set anything aside")
        assert spike.client.get_status().state == "locked"
        assert asides(scene, "set-aside") == []
        (kept,) = asides(scene, "undone")
        assert secrets_in(kept) == 2, "what was acknowledged before the undo is kept"
        scene.restart_keepers()
        spike.restore()
        with pytest.raises(NotFoundError):
            spike.client.get_secret("new")
        assert spike.client.get_secret("old") == {"k": "old"}
        scene.require_own_key("own")
        return steps

    # Both states are aside then, and the place of the store is empty.
    count, number = each_kill(scene, play, f"os.rename {DATABASE}")
    record(
        "an undo of a restore killed, Nexus or the command",
        count,
        "the same command completed it",
        seed=number,
    )


def test_a_restore_from_a_file_that_is_killed_is_completed_and_can_be_undone(scene: Scene) -> None:
    spike = scene.spike
    scene.keep()

    def play(kill: Kill) -> list[str]:
        scene.begin()
        steps = scene.carry_out(kill, *FROM_FILE, str(scene.file), identity=RESTORE)
        if not asides(scene, "set-aside"):
            spike.restore()  # nothing has happened
            assert spike.client.get_secret("own") == {"k": "own"}
            return steps
        if spike.client.get_status().state == "uninitialized":
            restored(scene)
        elif not spike.client.get_status().ready:
            accept_restored(scene)
        scene.require_own_key("old")
        with pytest.raises(NotFoundError):
            spike.client.get_secret("own")
        done = spike.spike(*UNDO, identity=RESTORE)
        assert done.returncode == 0, done.stderr.decode()
        scene.restart_keepers()
        spike.restore()
        scene.require_own_key("own")
        return steps

    count, number = each_kill(scene, play, f"os.rename {DATABASE}")
    record(
        "a restore from a file beside what was there killed, Nexus or the command",
        count,
        "not begun, or completed and undone",
        seed=number,
    )


def test_a_factory_reset_that_is_killed_is_completed_and_its_keepers_forget(scene: Scene) -> None:
    spike = scene.spike
    scene.keep()

    def phrase() -> Sequence[str]:
        shown = spike.spike("factory-reset", "--dry-run", "--format", "json")
        return (*RESET, json.loads(shown.stdout)["phrase"]) if shown.returncode == 0 else ()

    def play(kill: Kill) -> list[str]:
        scene.begin()
        spike.restore()
        spike.wait_for_keepers()
        spike.client.put_secret("new", {"k": "new"})
        steps = scene.carry_out(kill, *phrase())
        if (spike.store / DATABASE).exists() and secrets_in(spike.store / DATABASE):
            scene.require_own_key("own")
            assert spike.client.get_secret("new") == {"k": "new"}
        if again := phrase():
            scene.again(*again, done="")
        assert spike.client.get_status().state == "uninitialized"
        assert phrase() == (), "something is left to be reset"
        # They take the key of another store only because they hold nothing of this one.
        spike.init()
        spike.client.put_secret("next", {"k": "next"})
        scene.require_own_key("next")
        with pytest.raises(NotFoundError):
            spike.client.get_secret("own")
        return steps

    count, number = each_kill(scene, play, f"os.remove {DATABASE}", "Keeper: erase")
    record(
        "a factory reset killed, Nexus or the command",
        count,
        "not begun, or completed by the same command",
        seed=number,
    )
