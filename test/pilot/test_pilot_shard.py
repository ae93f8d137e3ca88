"""`spike operator`: shards into files and back, named where they do not fit; against `spike-nexus` itself."""

from __future__ import annotations

import json
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilot_kit import ShippedNexus, Site, SmallNexus, site
from spike.error import SettingError
from spike.pilot import shard_file
from spike.server.response import Response
from spike_fork import Run
from terminal_kit import terminal

PASSWORD = "seven otters juggle turnips"
PASSWORD_RESTORE = ("restore", "--password-file", "password.txt", "--yes")
Made = Site[ShippedNexus]


@pytest.fixture(scope="module")
def installed() -> Iterator[Made]:
    """One store for all tests here: an init takes its time."""
    with site(ShippedNexus()) as made:
        file = made.directory / "password.txt"
        file.write_text(PASSWORD)
        file.chmod(0o600)
        ran(made, "superuser", "init", "--password-file", str(file))
        ran(made, "superuser", "secret", "put", "a/b", "key=value")
        yield made


@pytest.fixture
def made(installed: Made) -> Made:
    """The store, open, and no files of shards."""
    for name in ("shard", "other", "copy"):
        shutil.rmtree(installed.directory / name, ignore_errors=True)
    if not served(installed):
        ran(installed, "restore", *PASSWORD_RESTORE)
    return installed


def ran(made: Made, role: str, *arguments: str, stdin: str = "", code: int = 0) -> Run:
    run = made.spike(role, *arguments, stdin=stdin.encode())
    assert run.exit == code, (arguments, run)
    return run


def recovered(made: Made, *more: str) -> list[Path]:
    """Hand new shards out into the directory `shard`."""
    arguments = ("operator", "recover", "--dir", "shard", "--yes", "--format", "json", *more)
    told = json.loads(ran(made, "recover", *arguments).stdout)
    assert (told["threshold"], len(told["files"]), len(told["setId"])) == (2, 3, 32)
    return [made.directory / path for path in told["files"]]


def served(made: Made) -> bool:
    return made.spike("superuser", "secret", "get", "a/b", "key").stdout == "value\n"


def test_shards_go_into_files_of_their_owner_alone_and_nothing_of_them_is_shown(made: Made) -> None:
    run = ran(made, "recover", "operator", "recover", "--dir", "shard", "--yes")
    directory = made.directory / "shard"
    files = sorted(directory.iterdir())
    assert [file.name for file in files] == [f"spike.recovery.{n}.txt" for n in (1, 2, 3)]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for index, file in enumerate(files, 1):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        text = file.read_text()
        assert text.startswith("spike-shard:1:")
        value = text.split(":")[5]
        assert text.split(":")[3:5] == ["2", str(index)]
        assert value not in run.stdout + run.stderr
    assert "2 of these 3 shards bring the root key back" in run.stdout
    assert "docs/guide/recovery-shard.md" in run.stderr
    status = made.spike("superuser", "status")
    assert status.exit == 0
    assert "shards slot shards" in status.stdout.splitlines()[0]


def test_files_that_are_there_are_never_overwritten_and_keep_their_set(made: Made) -> None:
    first = recovered(made)
    texts = [file.read_text() for file in first]
    run = ran(made, "recover", "operator", "recover", "--dir", "shard", "--yes", code=1)
    assert "never overwritten" in run.stderr
    assert [file.read_text() for file in first] == texts
    open_to_all = made.directory / "open"
    open_to_all.mkdir(mode=0o755)
    run = ran(made, "recover", "operator", "recover", "--dir", "open", "--yes", code=2)
    assert "chmod 700" in run.stderr
    made.nexus.lose_memory()
    ran(made, "restore", "operator", "restore", "--yes", stdin="\n".join(texts[:2]))
    assert served(made), "the refused ones have asked Nexus for nothing"


def test_new_shards_are_made_only_after_saying_that_the_older_ones_become_useless(
    made: Made,
) -> None:
    older = recovered(made)
    run = ran(made, "recover", "operator", "recover", "--dir", "other", stdin="n\n", code=1)
    assert "useless" in run.stderr
    assert not (made.directory / "other").exists()
    run = ran(made, "recover", "operator", "recover", "--dir", "other", stdin="y\n")
    made.nexus.lose_memory()
    arguments = [part for file in older for part in ("--file", str(file))]
    run = ran(made, "restore", "operator", "restore", "--yes", *arguments, code=1)
    assert run.stderr.count("older set") == 3
    new = sorted((made.directory / "other").iterdir())
    arguments = [part for file in (older[0], *new[1:]) for part in ("--file", str(file))]
    run = ran(made, "restore", "operator", "restore", *arguments, stdin="y\n")
    assert "Taken: shard 3; 2 collected, 0 more needed." in run.stderr
    assert "The root key is back." in run.stdout
    assert served(made)


def test_the_three_part_form_is_given_and_taken(made: Made) -> None:
    files = recovered(made, "--three-part")
    texts = [file.read_text() for file in files]
    assert all(text.startswith(f"spike:{index}:") for index, text in enumerate(texts, 1))
    made.nexus.lose_memory()
    run = ran(made, "restore", "operator", "restore", "--yes", stdin="\n\n".join(texts[1:]))
    assert "Taken: shard 2; 1 collected, 1 more needed." in run.stderr
    assert served(made)


def test_a_mistyped_shard_is_named_without_repeating_it_and_spoils_nothing(made: Made) -> None:
    texts = [file.read_text().strip() for file in recovered(made)]
    parts = texts[0].split(":")
    digit = "0" if parts[5][7] != "0" else "1"
    mistyped = ":".join([*parts[:5], parts[5][:7] + digit + parts[5][8:], parts[6]])
    unchecked = f"spike:1:{parts[5][:7] + digit + parts[5][8:]}"
    made.nexus.lose_memory()
    lines = ["no shard at all", mistyped, unchecked, texts[1]]
    run = ran(made, "restore", "operator", "restore", "--yes", stdin="\n".join(lines), code=1)
    assert "line 2: the checksum does not fit" in run.stderr
    assert "line 3: this is not shard 1 of set" in run.stderr
    assert "1 collected, 1 more needed" in run.stderr
    assert parts[5][9:] not in run.stderr + run.stdout
    (backup,) = (made.directory / "backup").glob("*.key-backup")
    given = ("--yes", "--backup", str(backup))
    ran(made, "restore", "operator", "restore", *given, stdin=texts[0])
    assert served(made), "what was collected before counts on"


def test_shards_are_asked_for_hidden_one_at_a_time_and_then_it_asks(made: Made) -> None:
    texts = [file.read_text().strip() for file in recovered(made)]
    made.nexus.lose_memory()
    with terminal(made, "restore", "operator", "restore") as typed:
        for times, text in enumerate(("spike:9:xyz", texts[2], texts[0]), 1):
            typed.wait_for("Recovery shard (empty to stop): ", times)
            typed.wait_for_no_echo()
            typed.type(f"{text}\n")
        typed.wait_for("Bring this root key back? [y/N] ")
        typed.type("y\n")
        assert typed.end() == 0, typed.shown
    assert "Not taken: this shard" in typed.shown
    assert "Slot: shards" in typed.shown
    assert not any(text.split(":")[5] in typed.shown for text in texts)
    assert served(made)


def test_an_empty_line_stops_and_says_what_is_missing(made: Made) -> None:
    texts = [file.read_text().strip() for file in recovered(made)]
    made.nexus.lose_memory()
    with terminal(made, "restore", "operator", "restore") as typed:
        typed.answer_hidden("Recovery shard", texts[0])
        typed.wait_for("Recovery shard", 2)
        typed.wait_for_no_echo()
        typed.type("\n")
        assert typed.end() == 1
    assert "1 collected, 1 more needed" in typed.shown
    assert not served(made)


def test_shards_on_standard_input_need_a_yes_and_a_phrase_needs_its_option(made: Made) -> None:
    run = ran(made, "restore", "operator", "restore", stdin="x\n", code=2)
    assert "give --yes too" in run.stderr
    for command in (("operator", "restore"), ("restore",)):
        run = ran(made, "restore", *command, "--yes", "--phrase", "x", code=2)
        assert "--accept-older-store" in run.stderr


def older(made: Made) -> str:
    """Put yesterday's copy of the store back; return the phrase that accepts it."""
    made.nexus.copy_store()
    made.nexus.lose_memory()
    ran(made, "restore", *PASSWORD_RESTORE)
    ran(made, "superuser", "secret", "put", "since/then", "key=value")
    shown = json.loads(made.spike("superuser", "status", "--format", "json").stdout)
    made.nexus.put_old_copy_back()
    return f"accept older store {shown['storeId'][:8]}"


def test_an_older_store_is_refused_until_its_phrase_is_given(made: Made) -> None:
    phrase = older(made)
    arguments = PASSWORD_RESTORE
    run = ran(made, "restore", *arguments, code=1)
    assert "--accept-older-store" in run.stderr
    run = ran(made, "restore", *arguments, "--accept-older-store", code=2)
    assert phrase in run.stderr, "without a terminal it says which phrase it wants"
    run = ran(made, "restore", *arguments, "--accept-older-store", "--dry-run")
    assert "had seen epoch" in run.stderr, "a dry run says what it would meet"
    seen = [line for line in run.stderr.splitlines() if "had seen epoch" in line]
    assert len(seen) == len(set(seen)), "and each thing once"
    assert not served(made)
    password = str(made.directory / "password.txt")
    typing = ("restore", "--password-file", password, "--accept-older-store")
    for answer, code in (("yes", 1), (phrase, 0)):
        assert not served(made), "a wrong phrase changes nothing"
        with terminal(made, "restore", *typing) as typed:
            typed.wait_for(f'To go on type "{phrase}": ')
            typed.type(f"{answer}\n")
            assert typed.end() == code, typed.shown
    for told in ("OLDER store", "LOST", "had seen epoch", "last changed in its keyring on 20"):
        assert told in typed.shown
    assert served(made)
    assert made.spike("superuser", "secret", "get", "since/then").exit == 1
    status = made.spike("superuser", "status")
    assert "behind" not in status.stderr, "Pilot keeps the anchor of the store that was accepted"
    made.nexus.lose_memory()
    ran(made, "restore", *arguments)
    assert served(made), "and no objection is left"


def test_shards_accept_an_older_store_in_the_same_way(made: Made) -> None:
    texts = "".join(file.read_text() for file in recovered(made))
    made.nexus.copy_store()
    made.nexus.lose_memory()
    ran(made, "restore", "operator", "restore", "--yes", stdin=texts)
    made.nexus.put_old_copy_back()
    run = ran(made, "restore", "operator", "restore", "--yes", stdin=texts, code=1)
    assert "old copy" in run.stderr
    told = json.loads(made.spike("superuser", "status", "--format", "json").stdout)
    assert told["state"] == "locked"
    accept = ("operator", "restore", "--yes", "--accept-older-store", "--phrase")
    run = ran(made, "restore", *accept, "x", stdin=texts, code=1)
    phrase = run.stderr.split('"')[-2]
    assert phrase.startswith("accept older store ")
    ran(made, "restore", *accept, phrase, stdin=texts)
    assert served(made)


def short_of_room(made: Site[Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `spike` so that no file of it can take more than 64 KiB, as on a disk that is nearly full."""
    command = [sys.executable, "-m", "spike.pilot", *arguments]
    return subprocess.run(
        ["/bin/bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *command],
        env=made.environment("recover"),
        cwd=made.directory,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_room_for_a_set_nexus_is_not_asked_and_nothing_is_left() -> None:
    with site(SmallNexus()) as made:
        run = short_of_room(made, "operator", "recover", "--dir", "new/shard", "--yes")
        assert (run.returncode, made.nexus.targets) == (2, []), run
        assert "older shards are as good as before" in run.stderr
        assert not (made.directory / "new").exists()
        (made.directory / "own").mkdir(mode=0o700)
        run = short_of_room(made, "operator", "recover", "--dir", "own", "--yes")
        assert (run.returncode, made.nexus.targets) == (2, [])
        assert not list((made.directory / "own").iterdir())


def test_a_shard_that_cannot_be_written_whole_leaves_no_file(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, limits[1]))
    try:
        with pytest.raises(SettingError, match="shard 1 cannot be written"):
            shard_file.write(tmp_path, 1, bytearray(b"s" * 100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
    path = shard_file.write(tmp_path, 1, bytearray(b"s" * 100))
    with pytest.raises(SettingError, match="exists"):
        shard_file.write(tmp_path, 1, bytearray(b"t"))
    assert path.read_bytes() == b"s" * 100 + b"\n", "what was there is no part of ours"


def test_a_refused_recover_leaves_no_directory() -> None:
    with site(SmallNexus()) as made:
        denied = {"err": "unauthorized"}
        made.nexus.answers = [Response(401, json.dumps(denied).encode())]
        run = made.spike("workload", "operator", "recover")
        assert run.exit == 1, run
        assert not (made.directory / ".spike").exists()


def test_without_a_home_directory_no_place_is_made_up() -> None:
    with site(SmallNexus()) as made:
        run = made.spike("recover", "operator", "recover", more={"HOME": None})
        assert (run.exit, made.nexus.targets) == (2, []), run
        assert "--dir" in run.stderr
        assert not (made.directory / "~").exists()


def test_an_answer_that_is_lost_or_cannot_be_is_told_and_writes_no_shard() -> None:
    whole = [7] * 32
    answers = {
        "older shards are useless": (500, {"err": "api_internal_error"}),
        "a shard has not 32 bytes": (200, {"shards": {"1": whole[:-1]}}),
        "what cannot be a shard": (200, {"shards": {"0": whole}}),
        "cannot be a shard": (200, {"shards": {"1": whole}, "setId": "x", "threshold": 2}),
    }
    with site(SmallNexus()) as made:
        for told, (status, body) in answers.items():
            made.nexus.answers = [Response(status, json.dumps(body).encode())]
            run = made.spike("recover", "operator", "recover", "--dir", "shard")
            assert (run.exit, told in run.stderr) == (1, True), run
            assert not (made.directory / "shard").exists()
        go = {"shards": {str(index): [index] * 32 for index in (1, 2)}}
        made.nexus.answers = [Response(200, json.dumps(go).encode())]
        run = made.spike("recover", "operator", "recover", "--dir", "shard")
        assert run.exit == 0, run
        second = (made.directory / "shard" / "spike.recovery.2.txt").read_text()
        assert second == f"spike:2:{'02' * 32}\n", "a Nexus of Go names no set"
