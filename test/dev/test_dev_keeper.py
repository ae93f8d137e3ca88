"""The Keepers of `spike dev`: what they bring back by themselves, and what they cannot."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from dev_kit import DevProcess, eventually
from spike.pilot.demo.stage import Stage, is_there
from spike.pilot.dev.keeper import KEEPER_ID
from spike.pilot.dev.place import DevPlace
from spike.pilot.dev.world import NEXUS_ID

JSON = ("--port", "0", "--format", "json")
RESTORE = "spiffe://spike.ist/spike/pilot/role/restore"


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that is short enough for sockets, whatever the test is called."""
    return tmp_path_factory.mktemp("d") / "dev"


@pytest.fixture
def stage(directory: Path) -> Stage:
    """A second terminal."""
    return Stage(DevPlace(directory), "1h")


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["event"] for event in events]


def kill(stage: Stage, *identities: str) -> None:
    """Kill the processes that have these identities, at once."""
    numbers = [stage.process_of(identity) for identity in identities]
    for number in numbers:
        os.kill(number, signal.SIGKILL)
    eventually("they are gone", lambda: not any(is_there(number) for number in numbers))


def authority_of(stage: Stage) -> int:
    told = json.loads(stage.run_well("spike-authority", "status", "--format", "json"))
    return int(told["pid"])


def keeper(index: int) -> str:
    return f"{KEEPER_ID}/{index}"


def all_current(stage: Stage) -> bool:
    states = [each["state"] for each in stage.status()[1].get("keepers") or ()]
    return states == ["current"] * 3


def test_first_start_ends_with_three_keepers_that_hold_shares(
    directory: Path, stage: Stage
) -> None:
    with DevProcess("--data", str(directory), *JSON) as dev:
        served = dev.event("served")
        assert served["keepers"] == {"current": 3, "total": 3, "threshold": 2}
        code, status = stage.status()
        assert code == 0
        assert status["keeperMargin"] == 1
        assert [each["identity"] for each in status["keepers"]] == [keeper(n) for n in (1, 2, 3)]
        assert len({stage.process_of(keeper(n)) for n in (1, 2, 3)}) == 3
        files = {file.name: int(file.read_text()) for file in (directory / "run").glob("*.pid")}
        assert files == {
            "authority.pid": authority_of(stage),
            "nexus.pid": stage.process_of(NEXUS_ID),
            **{f"keeper-{n}.pid": stage.process_of(keeper(n)) for n in (1, 2, 3)},
        }
        assert dev.interrupt() == 0
        assert not list((directory / "run").glob("*.pid"))


def test_killed_nexus_comes_back_by_itself(directory: Path, stage: Stage) -> None:
    with DevProcess("--data", str(directory), *JSON) as dev:
        dev.event("served")
        stage.run_well("spike", "secret", "put", "a/b", "k=kept")
        for _ in range(2):
            kill(stage, NEXUS_ID)
            told = dev.events_until("served")
            assert "came-back" in names(told) or told[-1]["state"] == "open"
            assert not {"locked", "left-locked", "password"} & set(names(told))
            assert stage.run_well("spike", "secret", "get", "a/b", "k") == "kept\n"
        assert dev.interrupt() == 0


def test_killed_keepers_get_their_shares_again_and_can_bring_the_key_back(
    directory: Path, stage: Stage
) -> None:
    with DevProcess("--data", str(directory), *JSON) as dev:
        dev.event("served")
        for index in (1, 2, 3):
            kill(stage, keeper(index))
            death = dev.event("death")
            assert (death["name"], death["code"]) == (f"Keeper {index}", -signal.SIGKILL)
            nexus = stage.process_of(NEXUS_ID)
            assert given_again(stage, index)
            assert stage.process_of(NEXUS_ID) == nexus
        kill(stage, NEXUS_ID)
        assert dev.event("served")["state"] == "open"
        assert dev.interrupt() == 0


def given_again(stage: Stage, index: int) -> bool:
    """Wait until Nexus's log says that this Keeper was given a share once more."""
    said = f"Keeper {index} was given its share"
    log = stage.place.log / "nexus.log"
    eventually(said, lambda: said in log.read_text())
    return True


def test_too_few_keepers_leave_it_locked_until_the_password_comes(
    directory: Path, stage: Stage
) -> None:
    with DevProcess("--data", str(directory), *JSON) as dev:
        password = dev.event("password")["password"]
        dev.event("served")
        stage.run_well("spike", "secret", "put", "a/b", "k=kept")
        kill(stage, NEXUS_ID, keeper(1), keeper(3))
        locked = dev.event("locked")
        assert "Keeper 1" in locked["recovery"]
        assert "Keeper 3" in locked["recovery"]
        assert "Keeper 2" not in locked["recovery"]
        assert "spike restore" in dev.event("left-locked")["restore"]
        assert dev.event("served")["state"] == "locked"
        command = ("spike", "restore", "--password-stdin", "--yes")
        ran = stage.run_as(RESTORE, *command, given=password)
        assert ran.code == 0, ran.errors
        dev.event("unlocked")
        assert stage.run_well("spike", "secret", "get", "a/b", "k") == "kept\n"
        eventually("all Keepers have new shares", lambda: all_current(stage))
        kill(stage, NEXUS_ID)
        assert dev.event("served")["state"] == "open"
        assert dev.interrupt() == 0


def test_prompt_ends_when_somebody_else_was_quicker(directory: Path, stage: Stage) -> None:
    with DevProcess("--data", str(directory), *JSON) as dev:
        password = dev.event("password")["password"]
        dev.event("served")
        assert dev.interrupt() == 0
    with DevProcess("--data", str(directory), "--port", "0", terminal=True) as dev:
        dev.wait_for("Password: ")
        eventually("the prompt is hidden", lambda: not dev.echoes())
        command = ("spike", "restore", "--password-stdin", "--yes")
        ran = stage.run_as(RESTORE, *command, given=password)
        assert ran.code == 0, ran.errors
        dev.wait_for("The store is open.")
        said = dev.wait_for("Ctrl-C stops everything.")
        assert "SPIKE runs on this machine; the store is open." in said
        assert dev.echoes()
        dev.type("\x03")
        dev.wait_for("asks for its password.")
        assert dev.process.wait(30) == 0


def test_later_start_finds_the_keepers_empty_on_their_old_ports(
    directory: Path, stage: Stage
) -> None:
    with DevProcess("--data", str(directory), *JSON) as dev:
        dev.event("served")
        before = [each["url"] for each in stage.status()[1]["keepers"]]
        assert dev.interrupt() == 0
    with DevProcess("--data", str(directory), *JSON) as dev:
        locked = dev.event("locked")
        for index in (1, 2, 3):
            assert f"Keeper {index}: it holds no share" in locked["recovery"]
        assert dev.event("served")["keepers"]["current"] == 0
        code, status = stage.status()
        assert code == 3
        assert "it holds no share" in status["summary"]
        assert [each["url"] for each in status["keepers"]] == before
        assert dev.interrupt() == 0
