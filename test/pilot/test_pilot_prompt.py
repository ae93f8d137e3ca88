"""The hidden prompt on a real terminal (a pseudo-terminal) and the other sources of a password."""

from __future__ import annotations

import os
import pty
import re
import select
import socket
import termios
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pilot_kit import MOMENT, Site, SmallNexus, site
from spike.error import InputError, SettingError
from spike.pilot import prompt, source
from spike.pilot.source import FromDescriptor, FromFile
from spike.server.response import Response
from spike.wire.go_json import encode
from spike.wire.own import RestoreAnswer, RestorePreview
from terminal_kit import PATIENCE_S, terminal

PASSWORD = "seven otters juggle turnips"


@pytest.fixture
def made() -> Iterator[Site[SmallNexus]]:
    with site(SmallNexus()) as made:
        yield made


def test_init_asks_twice_shows_nothing_and_warns(made: Site[SmallNexus]) -> None:
    with terminal(made, "superuser", "init") as typed:
        typed.answer_hidden("New password: ", PASSWORD)
        typed.answer_hidden("The same again: ", PASSWORD)
        assert typed.end() == 0
    assert "The store is initialized." in typed.shown
    assert "lost for good" in typed.shown
    assert "otters" not in typed.shown
    assert made.nexus.password == PASSWORD.encode()
    assert not any(b"otters" in sealed for sealed in made.nexus.sealed)


def test_two_different_passwords_initialize_nothing(made: Site[SmallNexus]) -> None:
    with terminal(made, "superuser", "init") as typed:
        typed.answer_hidden("New password: ", PASSWORD)
        typed.answer_hidden("The same again: ", PASSWORD + "!")
        assert typed.end() == 1
    assert "the two passwords differ; nothing was done" in typed.shown
    assert made.nexus.state == "uninitialized"


def test_a_weak_password_is_refused_before_it_is_asked_again(made: Site[SmallNexus]) -> None:
    with terminal(made, "superuser", "init") as typed:
        typed.answer_hidden("New password: ", "too short")
        assert typed.end() == 1
    assert "it is too short: at least 15 characters are needed" in typed.shown
    assert "The same again" not in typed.shown


def test_ctrl_c_at_the_prompt_ends_it_with_echo_back_on(made: Site[SmallNexus]) -> None:
    with terminal(made, "superuser", "init") as typed:
        typed.wait_for("New password: ")
        typed.wait_for_no_echo()
        typed.type("half a pass\x03")
        typed.wait_for("Stopped")
        assert typed.echoes()
        assert typed.end() == 1
    assert "half" not in typed.shown
    assert made.nexus.state == "uninitialized"


def test_ctrl_d_at_the_prompt_is_no_password(made: Site[SmallNexus]) -> None:
    with terminal(made, "superuser", "init") as typed:
        typed.wait_for("New password: ")
        typed.wait_for_no_echo()
        typed.type("\x04")
        assert typed.end() == 1
    assert "no whole line was typed" in typed.shown


def test_a_generated_password_is_shown_once_and_confirmed(made: Site[SmallNexus]) -> None:
    with terminal(made, "superuser", "init", "--generate") as typed:
        typed.wait_for("Have you written it down? [y/N]")
        typed.type("y\n")
        assert typed.end() == 0
    words = re.findall(r"^(?:[a-z]{3,8}-){9}[a-z]{3,8}\r$", typed.shown, re.MULTILINE)
    assert len(words) == 1
    assert made.nexus.password.decode() == words[0].strip()
    assert not any(
        made.nexus.password in file.read_bytes()
        for file in made.directory.rglob("*")
        if file.is_file()
    )


def test_a_generated_password_that_is_not_written_down_is_not_used(made: Site[SmallNexus]) -> None:
    with terminal(made, "superuser", "init", "--generate") as typed:
        typed.wait_for("Have you written it down? [y/N]")
        typed.type("\n")
        assert typed.end() == 1
    assert "nothing was done" in typed.shown
    assert made.nexus.state == "uninitialized"


def test_restore_asks_hidden_shows_what_comes_back_and_asks_before_it_goes_on(
    made: Site[SmallNexus],
) -> None:
    assert made.spike("superuser", "init", "--password-stdin", stdin=PASSWORD.encode()).exit == 0
    made.nexus.lose_memory()
    with terminal(made, "restore", "restore") as typed:
        typed.answer_hidden("Password: ", PASSWORD)
        typed.wait_for("Bring this root key back? [y/N]")
        assert "Pilot saw this store on" in typed.shown
        assert made.nexus.state == "locked"
        typed.type("y\n")
        assert typed.end() == 0
    assert "otters" not in typed.shown
    assert made.nexus.state == "open"
    assert made.nexus.seen_anchor  # Nexus was given what Pilot had seen


@pytest.mark.parametrize("objections", [[], ["Keeper 2 had seen access generation 7"]])
def test_a_store_that_nexus_objects_to_is_not_called_the_newest_one(
    made: Site[SmallNexus], objections: list[str]
) -> None:
    assert made.spike("superuser", "init", "--password-stdin", stdin=PASSWORD.encode()).exit == 0
    made.nexus.lose_memory()
    ledger = made.nexus.ledger
    shown = RestorePreview(
        *(ledger.store_id, ledger.lineage, 1, ledger.epoch, ledger.revision, MOMENT, "admin"),
        objections=objections,
    )
    answer = RestoreAnswer(False, shown, "0" * 32)
    made.nexus.answers = [None, Response(200, encode(answer))]
    given = ("--password-stdin", "--yes", "--accept-older-store", "--phrase", "another")
    run = made.spike("restore", "restore", *given, stdin=PASSWORD.encode())
    assert "Pilot saw this store on" in run.stderr, run
    assert ("this is not older" in run.stderr) is (not objections)
    assert ("This is an OLDER store" in run.stderr) is bool(objections)


def test_what_was_typed_before_the_question_is_no_answer() -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"typed too early\n")
        select.select([theirs], [], [], PATIENCE_S)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(prompt.ask_hidden, theirs, "? ")
            while termios.tcgetattr(theirs)[3] & termios.ECHO:
                os.sched_yield()
            os.write(ours, b"the answer\n")
            assert asked.result(PATIENCE_S) == b"the answer"
    finally:
        os.close(ours)
        os.close(theirs)


def file_of(directory: Path, content: bytes, mode: int = 0o600) -> FromFile:
    path = directory / "password"
    path.write_bytes(content)
    path.chmod(mode)
    return FromFile(path)


@pytest.mark.parametrize(
    ("content", "password"),
    [
        (b"word\n", b"word"),
        (b"word", b"word"),
        (b"word\n\n", b"word\n"),
        (b" word \n", b" word "),
        (b"x" * 4096 + b"\n", b"x" * 4096),
    ],
)
def test_exactly_one_newline_at_the_end_is_no_part_of_a_password(
    tmp_path: Path, content: bytes, password: bytes
) -> None:
    assert source.read(file_of(tmp_path, content)) == password


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 4097, b"x" * 100_000])
def test_no_password_and_one_without_end_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError):
        source.read(file_of(tmp_path, content))


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o622, 0o604])
def test_a_password_file_that_others_can_use_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(SettingError, match="used by others"):
        source.read(file_of(tmp_path, b"word\n", mode))


def test_a_password_comes_in_pieces_from_a_descriptor() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        for piece in (b"seven ", b"otters", b"\n"):
            theirs.send(piece)
        theirs.shutdown(socket.SHUT_WR)
        assert source.read(FromDescriptor(ours.fileno())) == b"seven otters"


def test_a_descriptor_that_is_not_open_is_named() -> None:
    with pytest.raises(SettingError, match="descriptor 987"):
        source.read(FromDescriptor(987))


def test_a_buffer_is_wiped_in_place_however_its_use_ends() -> None:
    buffer = bytearray(b"seven otters")
    view = memoryview(buffer)
    with pytest.raises(KeyboardInterrupt), source.wiped(buffer):
        raise KeyboardInterrupt
    assert view == b"\0" * 12
