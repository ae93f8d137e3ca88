"""What a stored value, a server or an argument did to the administrator's terminal, or to `spike`."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from spike.error import InputError
from spike.pilot import output
from spike.pilot.output import Format
from spike.pilot.value import read_values

# CSI in one character, a text that runs backwards, an escape sequence, DEL, invisible tags.
HOSTILE = "a\x9b2Jb\u202ec\x1b]0;title\x07d\x7fe\U000e0041f\r\ng é 漢 🦊"
CREATE = (b"policy", b"create", b"--permissions=read", b"--spiffeid-pattern=spiffe://a/b")
HARMLESS_CONTROLS = set("\n\t")


def hostile_in(text: str) -> set[str]:
    return {
        each
        for each in text
        if each not in HARMLESS_CONTROLS
        and (ord(each) < 0x20 or 0x7F <= ord(each) < 0xA0 or each in "\u202e\U000e0041")
    }


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_a_value_steers_no_terminal_in_any_form_and_is_still_all_there(
    form: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"value": HOSTILE, HOSTILE: [HOSTILE]}
    output.show(data, form, [])
    shown = capsys.readouterr().out
    assert not hostile_in(shown)
    read = json.loads(shown) if form is Format.JSON else yaml.safe_load(shown)
    assert read == data


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML])
def test_letters_of_every_script_are_shown_as_they_are(
    form: Format, capsys: pytest.CaptureFixture[str]
) -> None:
    output.show({"value": "é 漢 🦊"}, form, [])
    assert "é 漢 🦊" in capsys.readouterr().out


def test_what_goes_to_standard_error_steers_no_terminal_either() -> None:
    script = (
        "from spike.pilot import output; import sys; "
        "output.note(sys.stdin.read()); sys.stderr.flush()"
    )
    leader, follower = pty.openpty()
    try:
        process = subprocess.run(
            [sys.executable, "-c", script],
            input="said \x9b2J\x1b]0;t\x07".encode(),
            stderr=follower,
            check=True,
            timeout=20,
        )
        assert process.returncode == 0
        assert os.read(leader, 4096) == b"said \\x9b2J\\x1b]0;t\\x07\r\n"
    finally:
        os.close(leader)
        os.close(follower)


def test_a_value_that_is_no_text_is_refused_without_being_shown() -> None:
    with pytest.raises(InputError) as refused:
        read_values(["key=\udcffhunter2"], io.BytesIO())
    assert "hunter2" not in refused.value.message


@pytest.mark.parametrize(
    "arguments",
    [
        [b"secret", b"put", b"a/b", b"key=\xffhunter2"],
        [b"secret", b"put", b"a/\xff", b"key=hunter2"],
        [b"secret", b"get", b"a/\xff"],
        [b"policy", b"get", b"\xff"],
        [*CREATE, b"--name=\xff", b"--path-pattern=a"],
        [*CREATE, b"--name=a", b"--path-pattern=\xff"],
        [b"policy", b"list", b"--path-pattern=\xff"],
    ],
)
def test_an_argument_that_is_no_utf_8_is_a_sentence_and_no_traceback(
    arguments: list[bytes], tmp_path: Path
) -> None:
    spike = os.fsencode(Path(sys.executable).with_name("spike"))
    environment = {**os.environ, "SPIFFE_ENDPOINT_SOCKET": f"unix://{tmp_path}/none.sock"}
    ended = subprocess.run(
        [spike, *arguments], env=environment, capture_output=True, timeout=30, check=False
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 2 or b"Error: " in said
    assert b"Traceback" not in said
    assert b"hunter2" not in said
