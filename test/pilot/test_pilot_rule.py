"""Pilot's pure rules: what status means, which exit code, what a terminal may be shown."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import click
import pytest

from spike import error as errors
from spike.pilot.app import COMMANDS, spike
from spike.pilot.command.status import keeper_lines
from spike.pilot.failure import Exit, exit_of, text_of
from spike.pilot.output import printable
from spike.pilot.recoverability import judge
from spike.pilot.value import LIMIT_BYTES, read_values
from spike.wire.message import GoTime
from spike.wire.own import BackupPlace, StatusAnswer, StatusKeeper, StatusSlot, StatusStorage

MOMENT = GoTime("2026-11-23T12:00:00Z")


def slot(name: str, state: str = "usable") -> StatusSlot:
    return StatusSlot(name, "password", state, MOMENT)


def status(
    *slots: StatusSlot,
    places: tuple[str, ...] = ("current",),
    healthy: bool = True,
    keepers: str = "",
    threshold: int = 2,
) -> StatusAnswer:
    """`keepers`: the state of each, separated by spaces."""
    known = [
        StatusKeeper(index, f"https://localhost:{index}", "", state)
        for index, state in enumerate(keepers.split(), 1)
    ]
    current = sum(each.state == "current" for each in known)
    return StatusAnswer(
        True,
        state="open",
        slots=list(slots),
        places=[BackupPlace("/backup", state) for state in places],
        storage=StatusStorage("sqlite", healthy),
        keepers=known or None,
        keeper_threshold=threshold if known else None,
        keeper_margin=current - threshold if known else None,
    )


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (status(slot("a"), slot("b")), 0, "by 2 ways: password slot a, password slot b"),
        (status(slot("a")), 4, "BY ONE WAY ONLY: password slot a"),
        (status(slot("a"), slot("b", "renew")), 4, "ONE WAY ONLY: password slot a"),
        (status(slot("a", "renew")), 1, "NOT RECOVERABLE"),
        (status(), 1, "NOT RECOVERABLE"),
        (status(slot("a"), places=("failed",)), 4, "ONE WAY"),
        (status(slot("a"), healthy=False), 4, "ONE WAY"),
        (status(slot("a"), slot("b"), places=("failed",), healthy=False), 1, "NOT RECOVERABLE"),
        (status(slot("a"), places=(), healthy=False), 1, "NOT RECOVERABLE"),
        (
            status(slot("a"), keepers="current current current"),
            0,
            "by 2 ways: Keepers (3 of 3 current, threshold 2, margin 1), password slot a",
        ),
        (
            status(keepers="current unreachable current"),
            4,
            "ONE WAY ONLY: Keepers (2 of 3 current, threshold 2, margin 0)",
        ),
        (status(slot("a"), keepers="current empty suspect"), 4, "ONE WAY ONLY: password slot a"),
        (status(slot("a"), keepers="unknown unknown unknown"), 4, "ONE WAY ONLY: password slot a"),
        (status(keepers="current foreign old"), 1, "NOT RECOVERABLE"),
        (status(keepers="current current", healthy=False), 1, "NOT RECOVERABLE"),
        (
            status(slot("a"), slot("b"), keepers="current current", healthy=False),
            0,
            "by 2 ways: password slot a, password slot b",
        ),
        (StatusAnswer(True), 3, "CANNOT TELL: Nexus is ready"),
        (StatusAnswer(False), 3, "CANNOT TELL: Nexus is not ready"),
        (StatusAnswer(False, state="uninitialized"), 3, "spike init"),
        (
            StatusAnswer(
                False,
                state="uninitialized",
                storage=StatusStorage("sqlite", healthy=True, records={"secret": 40, "history": 2}),
            ),
            3,
            "KEYRING LOST: the store holds 42 records and no keyring. Bring it back from a key backup: spike restore",
        ),
        (StatusAnswer(False, state="locked"), 3, "spike restore"),
        (
            StatusAnswer(False, state="locked", recovery="a share is missing"),
            3,
            "a share is missing.",
        ),
    ],
)
def test_status_says_by_how_many_ways_the_key_would_come_back(
    answer: StatusAnswer, code: int, said: str
) -> None:
    finding = judge(answer)
    assert finding.exit == code
    assert said in finding.line
    assert "\n" not in finding.line


def test_status_lists_each_keeper_under_what_they_can_do_together() -> None:
    answer = StatusAnswer(
        True,
        state="open",
        keepers=[
            StatusKeeper(
                1, "https://k1.example.org:8443", "spiffe://spike.ist/spike/keeper/1", "current"
            ),
            StatusKeeper(2, "https://k2.example.org:8443", "", "suspect", "it lies"),
        ],
        keeper_threshold=2,
        keeper_margin=-1,
    )
    assert list(keeper_lines(answer)) == [
        "  Keepers: 1 of 2 current, threshold 2, margin -1",
        "    Keeper 1: current, https://k1.example.org:8443, spiffe://spike.ist/spike/keeper/1",
        "    Keeper 2: suspect (it lies), https://k2.example.org:8443, no identity pinned",
    ]
    assert list(keeper_lines(StatusAnswer(True, state="open"))) == []
    locked = StatusAnswer(
        False,
        state="locked",
        keepers=[StatusKeeper(1, "https://a:8443", "", "unknown", "not looked at yet")],
        keeper_threshold=2,
        keeper_margin=-2,
    )
    assert list(keeper_lines(locked)) == ["    Keeper 1: https://a:8443, no identity pinned"]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (click.UsageError("x"), Exit.USAGE),
        (click.FileError("x"), Exit.FAILED),
        (errors.SettingError("x"), Exit.USAGE),
        (errors.NotReadyError("x"), Exit.UNREACHABLE),
        (errors.UnreachableError("x"), Exit.UNREACHABLE),
        (errors.WorkloadApiError("x"), Exit.UNREACHABLE),
        (errors.IdentityError("x"), Exit.FAILED),
        (errors.DeniedError("x"), Exit.FAILED),
        (errors.NotFoundError("x"), Exit.FAILED),
        (errors.RefusedError("x"), Exit.FAILED),
    ],
)
def test_each_error_has_its_exit_code(
    error: errors.SpikeError | click.ClickException, code: Exit
) -> None:
    assert exit_of(error) is code


def test_an_error_says_what_failed_and_what_to_do_next() -> None:
    assert text_of(errors.InputError("it is wrong", "do it right")) == (
        "Error: it is wrong.\nNext: do it right."
    )
    assert text_of(errors.InputError("it is wrong")) == "Error: it is wrong."


def test_a_value_cannot_steer_the_terminal_it_is_shown_on() -> None:
    value = "a\x1b]0;title\x07b\tc\nd\u202ee\x9bf é 漢 🦊"
    shown = printable(value, terminal=True)
    assert shown == "a\\x1b]0;title\\x07b\tc\nd\\u202ee\\x9bf é 漢 🦊"
    assert printable(value, terminal=False) == value


def test_a_value_larger_than_nexus_takes_is_refused_while_it_is_read(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(b"x" * (LIMIT_BYTES + 1))
    for argument, stdin in ((f"k=@{large}", b""), ("k=-", large.read_bytes())):
        with pytest.raises(errors.InputError, match="larger than 1 MiB"):
            read_values([argument], io.BytesIO(stdin))
    with pytest.raises(errors.InputError, match="not UTF-8"):
        read_values(["k=-"], io.BytesIO(b"\xff"))
    assert read_values(["k="], io.BytesIO()) == {"k": ""}


def _walk(command: click.Command, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    found = [path]
    if isinstance(command, click.Group):
        with click.Context(command) as context:
            for name in command.list_commands(context):
                below = command.get_command(context, name)
                assert below is not None
                found += _walk(below, (*path, name))
    return found


def test_every_command_has_help_and_those_that_act_show_an_example() -> None:
    paths = _walk(spike, ())
    assert len(paths) >= 20
    for path in paths:
        command: click.Command = spike
        for name in path:
            assert isinstance(command, click.Group)
            below = command.get_command(click.Context(command), name)
            assert below is not None
            command = below
        assert command.help, path
        if not isinstance(command, click.Group):
            assert "Example" in (command.epilog or ""), path


def test_help_loads_no_command_and_none_of_what_they_need() -> None:
    code = (
        "import sys; from spike.pilot.__main__ import run; code = run(['--help']); "
        "print(code, [m for m in sys.modules if m.startswith(('spike.pilot.command', "
        "'spike.client', 'cryptography', 'grpclib', 'msgspec'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("\n0 []\n")
    assert all(f"  {name}" in done.stdout for name in COMMANDS)


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{sys.executable} -m spike.pilot --help | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
