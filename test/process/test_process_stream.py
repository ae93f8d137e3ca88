"""Standard streams that are closed or full: one sentence and a code, and never a file of ours in their place."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilot_kit import Site, SmallNexus, site
from process_kit import BIN

PROGRAMS = ("spike", "spike-nexus", "spike-keeper", "spike-authority")
OPENS_A_FILE = """
import os, sys
from spike.memory import standard_stream
standard_stream.occupy()
with open(sys.argv[1], "w") as file:
    print("said", file=sys.stderr)
    assert file.fileno() > 2, file.fileno()
assert None not in (sys.stdin, sys.stdout, sys.stderr)
for number in (0, 1, 2):
    assert os.get_inheritable(number)
for attempt in (lambda: os.read(0, 1), lambda: os.write(1, b"x")):
    try:
        attempt()
    except OSError:
        continue
    assert os.fstat(0).st_mode, "a stream that was open works"
"""


def sh(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the shell, which closes streams; `$@` is the arguments."""
    return subprocess.run(
        ["/bin/sh", "-c", script, "sh", *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_no_file_gets_the_number_of_a_standard_stream(closed: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    command = (sys.executable, "-c", OPENS_A_FILE, str(file))
    ran = sh(f'exec "$@" {closed}', *command)
    assert ran.returncode == 0, ran.stderr
    assert file.read_text() == "", "what was said went into a file"


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("full", [">/dev/full", ">&-", ">/dev/full 2>/dev/full", ">&- 2>&- <&-"])
def test_help_that_cannot_be_written_is_one_sentence_and_a_code(program: str, full: str) -> None:
    ran = sh(f'"$@" {full}', str(BIN / program), "--help")
    assert ran.returncode == 1, ran
    assert ran.stderr.count("\n") <= 1
    if "2>" not in full:
        assert "standard" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("program", PROGRAMS[1:3])
def test_what_serves_says_why_it_does_not_start_or_ends_quietly(
    program: str, tmp_path: Path
) -> None:
    home = str(tmp_path)  # whoever may, makes his store before he is told that he has no identity
    ran = sh('"$@" <&- >&- 2>&-', str(BIN / program), HOME=home)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", "")
    ran = sh('"$@" <&- >&-', str(BIN / program), HOME=home)
    assert "SPIFFE_ENDPOINT_SOCKET" in ran.stderr


def test_wrong_usage_keeps_its_code_where_nobody_hears_of_it() -> None:
    for program in ("spike", "spike-authority"):
        assert sh('"$@" 2>/dev/full', str(BIN / program), "no-such-command").returncode == 2
        assert sh('"$@" 2>&-', str(BIN / program), "no-such-command").returncode == 2


@pytest.fixture(scope="module")
def made() -> Iterator[Site[SmallNexus]]:
    with site(SmallNexus()) as made:
        begun = made.spike("superuser", "init", "--password-stdin", stdin=b"seven otters juggle")
        assert begun.exit == 0
        yield made


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("printf data | spike cipher encrypt >&-", "standard input or output"),
        ("printf data | spike cipher encrypt >/dev/full", "No space left"),
        ("spike cipher encrypt <&-", "standard input cannot be read"),
        ("spike secret put a k=- <&-", "standard input cannot be read"),
        ("spike operator restore --yes <&-", "standard input cannot be read"),
        ("spike secret list >/dev/full", "No space left"),
        ("spike secret list --format json >/dev/full", "No space left"),
        ("spike secret list >&-", "standard input or output"),
        ("spike status >&-", "standard input or output"),
        ("spike secret get nope 2>&-", ""),
        ("spike secret get nope >&- 2>/dev/full", ""),
    ],
)
def test_a_command_says_in_one_sentence_which_stream_failed_it(
    made: Site[SmallNexus], script: str, said: str
) -> None:
    environment = made.environment("superuser")
    environment["PATH"] = f"{BIN}:{environment['PATH']}"
    ran = sh(script, **environment)
    assert ran.returncode in (1, 2), ran
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "Exception ignored" not in ran.stderr
    assert ran.stderr.count("\n") <= 2
    assert made.nexus.secrets == {}
