"""What `spike cipher` does with files, and that what it shows in parts fits together again."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot_kit import Site, SmallNexus, site
from spike.error import InputError, SettingError
from spike.pilot.command.cipher import for_terminal
from spike.pilot.file import read_bounded, write_whole

ANY_BYTES = bytes(range(256)) * 9


@pytest.fixture(scope="module")
def made() -> Iterator[Site[SmallNexus]]:
    with site(SmallNexus()) as made:
        assert (
            made.spike("superuser", "init", "--password-stdin", stdin=b"seven otters juggle").exit
            == 0
        )
        yield made


def test_the_parts_that_encrypt_shows_are_what_decrypt_takes(made: Site[SmallNexus]) -> None:
    given = base64.b64encode(ANY_BYTES)
    shown = made.spike("superuser", "cipher", "encrypt", "--plaintext", "-", stdin=given)
    assert (shown.exit, shown.stderr) == (0, "")
    parts = json.loads(shown.stdout)
    assert set(parts) == {"version", "nonce", "ciphertext"}
    version, nonce = ("--version", str(parts["version"])), ("--nonce", parts["nonce"])
    ciphertext = ("--ciphertext", "-")
    back = made.spike(
        "superuser",
        *("cipher", "decrypt", *version, *nonce, *ciphertext, "--out", "back.bin"),
        stdin=parts["ciphertext"].encode(),
    )
    assert (back.exit, back.stdout, back.stderr) == (0, "", "")
    assert (made.directory / "back.bin").read_bytes() == ANY_BYTES


def test_any_bytes_come_back_as_they_were_in_a_file_for_the_owner_alone(
    made: Site[SmallNexus],
) -> None:
    (made.directory / "sealed.bin").write_text("an older file, open to all")
    (made.directory / "sealed.bin").chmod(0o666)
    sealed = made.spike("superuser", "cipher", "encrypt", "-o", "sealed.bin", stdin=ANY_BYTES)
    assert sealed.exit == 0
    back = made.spike("superuser", "cipher", "decrypt", "-f", "sealed.bin", "-o", "plain.bin")
    assert back.exit == 0
    assert (made.directory / "plain.bin").read_bytes() == ANY_BYTES
    for name in ("sealed.bin", "plain.bin"):
        assert stat.S_IMODE((made.directory / name).stat().st_mode) == 0o600


def test_a_refused_decrypt_leaves_the_file_that_was_there(made: Site[SmallNexus]) -> None:
    target = made.directory / "kept.txt"
    target.write_text("kept")
    refused = made.spike("superuser", "cipher", "decrypt", "-o", "kept.txt", stdin=b"\1nothing")
    assert refused.exit == 1
    assert target.read_text() == "kept"
    assert not list(made.directory.glob(".kept*"))


def test_a_secret_given_without_base64_is_not_repeated(made: Site[SmallNexus]) -> None:
    run = made.spike("superuser", "cipher", "encrypt", "--plaintext", "hunter2!")
    assert run.exit == 2
    assert "hunter2" not in run.stdout + run.stderr


def test_only_a_regular_file_is_replaced(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("kept")
    link = tmp_path / "link"
    link.symlink_to(target)
    for place in (Path("/dev/null"), link, tmp_path, tmp_path / "no" / "directory"):
        with pytest.raises(SettingError):
            write_whole(place, b"data")
    assert target.read_text() == "kept"
    assert sorted(tmp_path.iterdir()) == [link, target]


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    with pytest.raises(InputError, match="more than 4 bytes"):
        read_bounded(path, 4)
    with pytest.raises(SettingError):
        read_bounded(tmp_path, 4)


def test_what_goes_to_a_terminal_cannot_steer_it() -> None:
    assert for_terminal("line\n\ttext é".encode()) == "line\n\ttext é".encode()
    assert for_terminal(b"a\x1b[2Jb") == rb"a\x1b[2Jb"
    with pytest.raises(InputError, match="no text"):
        for_terminal(b"\xff\xfe")
