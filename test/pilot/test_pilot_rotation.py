"""`spike key rotate` and what goes with it, as its user sees it: scripts, a terminal, Ctrl-C, JSON lines."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import pytest

from pilot_kit import Site, site
from rotation_kit import BACK, ID, Looked
from rotation_site import RotatingNexus
from script_kit import parse, play
from spike.nexus.rotation_view import Asked
from terminal_kit import terminal

SCRIPTS = sorted(Path(__file__).with_name("rotation").glob("*.txt"))


@pytest.fixture
def made() -> Iterator[Site[RotatingNexus]]:
    with site(RotatingNexus()) as made:
        yield made


class Pilot(NamedTuple):
    """A running `spike`, and what it writes."""

    process: subprocess.Popen[str]
    output: IO[str]
    errors: IO[str]


@contextmanager
def rotating(made: Site[RotatingNexus], *options: str) -> Iterator[Pilot]:
    """Run `spike key rotate` until it ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "spike.pilot", "key", "rotate", *options],
        env=made.environment("superuser"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    with process, process.stdout, process.stderr:
        yield Pilot(process, process.stdout, process.stderr)


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 5


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_the_script_is_what_a_user_sees(made: Site[RotatingNexus], path: Path) -> None:
    assert play(parse(path.read_text()), made, made.nexus.happenings()) > 5


def test_every_option_comes_to_nexus(made: Site[RotatingNexus]) -> None:
    run = made.spike(
        *("superuser", "key", "rotate", "--data-only", "--reason", "r", "--max-rate", "7"),
        *("--rollback-window", "1h30m", "--without-keeper", "2", "--without-keeper", "3"),
        *("--without-keepers", "--force"),
    )
    assert run.exit == 0, run.stderr
    (asked,) = made.nexus.rotations.asked
    assert asked == Asked(asked.scope, "r", 5400, 7, None, ("2", "3"), True, True)
    assert asked.scope.value == "data-only"


def test_without_a_window_nexus_takes_the_usual_one_and_0_is_none(
    made: Site[RotatingNexus],
) -> None:
    for window in ((), ("--rollback-window", "0")):
        assert made.spike("superuser", "key", "rotate", "--dry-run", *window).exit == 0
    assert [asked.window_s for asked in made.nexus.rotations.asked] == [None, 0]


@pytest.mark.parametrize("form", ["human", "json"])
def test_a_dry_run_that_fails_says_on_one_line_of_standard_error_which_checks_and_what_next(
    made: Site[RotatingNexus], form: str
) -> None:
    made.nexus.rotations.checks = [
        Looked("storage", "ok", "it answers"),
        Looked("keepers", "fail", "1 of 3 answers", "see spike keeper status"),
        Looked("clock", "warn", "3 s behind", "set it"),
        Looked("disk", "fail", "0 MiB free", "make room"),
    ]
    run = made.spike("superuser", "key", "rotate", "--dry-run", "--format", form)
    assert run.exit == 1
    assert run.stderr == (
        "Error: it could not begin, nothing was changed: keepers, disk. "
        "Next: see spike keeper status; make room.\n"
    )
    if form == "json":
        told = json.loads(run.stdout)
        assert [each["result"] for each in told["checks"]] == ["ok", "fail", "warn", "fail"]
    else:
        assert "FAIL keepers: 1 of 3 answers" in run.stdout


def test_a_script_reads_progress_as_one_json_object_a_line(made: Site[RotatingNexus]) -> None:
    made.nexus.rotations.stride = 3
    run = made.spike("superuser", "key", "rotate", "--wait", "--format", "json")
    assert run.exit == 0, run.stderr
    told = [json.loads(line) for line in run.stdout.splitlines()]
    assert {each["id"] for each in told} == {ID}
    assert told[-1]["phase"] == "verified"
    assert len(told) > 2
    for each in told:
        if walk := each.get("progress"):
            parts = ("reEncrypted", "alreadyCurrent", "skipped", "vanished", "failed")
            assert walk["scanned"] == sum(walk[part] for part in parts)
    assert run.stderr == ""


def test_a_terminal_shows_a_bar_with_counts_rate_and_time_left(made: Site[RotatingNexus]) -> None:
    made.nexus.rotations.stride = 1
    with terminal(made, "superuser", "key", "rotate", "--wait") as typed:
        typed.wait_for("500 of 1000, 100/s, 5 s left")
        assert typed.end() == 0
    assert "[############............]  50%" in typed.shown
    assert "\x1b[K" in typed.shown
    assert "is verified: no record is left under a key that was replaced" in typed.shown


def test_progress_stays_on_one_line_of_a_narrow_terminal(made: Site[RotatingNexus]) -> None:
    made.nexus.rotations.stride = 3
    with terminal(made, "superuser", "key", "rotate", "--wait") as typed:
        termios.tcsetwinsize(typed.descriptor, (24, 40))
        typed.wait_for("re-encrypting")
        assert typed.end() == 0
    drawn = [part.partition("\r")[0] for part in typed.shown.split("\x1b[K")[1:-1]]
    assert all(len(part) < 40 for part in drawn), drawn


def test_ctrl_c_ends_the_looking_alone_and_says_how_to_look_again(
    made: Site[RotatingNexus],
) -> None:
    with terminal(made, "superuser", "key", "rotate", "--wait") as typed:
        typed.wait_for("prepared")
        typed.type("\x03")
        assert typed.end() == 1
    assert f"Rotation {ID} goes on in Nexus. Look again: spike key watch" in typed.shown
    assert made.nexus.rotations.now is not None
    assert made.nexus.rotations.now.phase == "prepared"
    made.nexus.rotations.steps("verified")
    assert made.spike("superuser", "key", "watch").exit == 0


def test_a_question_is_asked_on_the_terminal(made: Site[RotatingNexus]) -> None:
    emergency = ("key", "rotate", "--emergency", "--leaked", "root", "--reason", "stolen")
    with terminal(made, "superuser", *emergency) as typed:
        typed.wait_for("Replace every key now? [y/N] ")
        typed.type("y\n")
        assert typed.end() == 0
    assert "EMERGENCY: every key" in typed.shown
    assert made.nexus.rotations.now is not None


def test_a_locked_nexus_is_asked_on_and_that_is_said(made: Site[RotatingNexus]) -> None:
    with rotating(made, "--wait") as pilot:
        assert pilot.errors.readline() == "prepared\n"
        made.nexus.lose_memory()
        assert "The rotation goes on when it is back; asking again." in pilot.errors.readline()
        made.nexus.rotations.steps("verified")
        made.nexus.state = "open"
        assert pilot.process.wait(60) == 0
        assert "is verified" in pilot.output.read()


def test_a_rotation_that_ended_while_nexus_was_away_is_looked_up_in_the_history(
    made: Site[RotatingNexus],
) -> None:
    with rotating(made, "--wait=finalized") as pilot:
        assert pilot.errors.readline() == "prepared\n"
        made.nexus.lose_memory()
        assert "asking again" in pilot.errors.readline()
        made.nexus.rotations.steps("verified")
        made.nexus.loop_run(made.nexus.rotations.finalize("nexus"))
        made.nexus.rotations.steps("finalized")
        made.nexus.forget()
        made.nexus.state = "open"
        assert pilot.process.wait(60) == 0
        assert f"Rotation {ID} is finalized: what was replaced is destroyed." in pilot.output.read()


def test_who_waits_for_a_rotation_is_told_that_an_emergency_took_its_place(
    made: Site[RotatingNexus],
) -> None:
    with rotating(made, "--wait=finalized") as pilot:
        assert pilot.errors.readline() == "prepared\n"
        made.nexus.rotations.steps("verified")
        made.nexus.supersede()
        said = pilot.output.read()
        assert pilot.process.wait(60) == 1
    assert f"Rotation {ID} was superseded by emergency {BACK}." in said
    assert (
        f"Next: see what took its place: spike key status; its report: spike key report {ID}"
        in said
    )


def test_the_end_of_an_earlier_try_is_not_taken_for_that_of_the_rotation(
    made: Site[RotatingNexus],
) -> None:
    with rotating(made, "--wait=finalized") as pilot:
        assert pilot.errors.readline() == "prepared\n"
        made.nexus.rotations.steps("verified")
        made.nexus.supersede(in_force=False)
        said = pilot.errors.read()
        assert pilot.process.wait(60) == 1
    assert f"rotation {ID} is not the one that goes on now" in said


def test_another_rotation_in_its_place_is_not_taken_for_it(made: Site[RotatingNexus]) -> None:
    with rotating(made, "--wait=finalized") as pilot:
        assert pilot.errors.readline() == "prepared\n"
        made.nexus.rotations.steps("verified")
        made.nexus.loop_run(made.nexus.rotations.rollback("", "somebody"))
        said = pilot.errors.read()
        assert pilot.process.wait(60) == 1
    assert f"rotation {ID} is not the one that goes on now" in said


def test_an_interrupt_without_a_terminal_says_so_too(made: Site[RotatingNexus]) -> None:
    with rotating(made, "--wait", "--format", "json") as pilot:
        first = json.loads(pilot.output.readline())
        pilot.process.send_signal(signal.SIGINT)
        assert f"Rotation {first['id']} goes on in Nexus" in pilot.errors.read()
        assert pilot.process.wait(60) == 1
