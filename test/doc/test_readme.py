"""The README does what it says: its blocks are run in order, by a shell and a terminal, on real processes.

A block `console` holds commands (`$ …`) and what they print. `[…]` stands for anything, alone on its line for
any lines; `[exit N]` is the code if it is not 0. A block `python` is a file, named in the text before it.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import pytest

from console_kit import Command, commands, pattern
from doc_kit import ROOT, fences, page, rows, sections
from process_kit import free_port

PATIENCE_S: Final = 60.0
SPIKE: Final = Path(sys.executable).parent / "spike"
# The first terminal that the leader of a session opens becomes the one that controls it (tty(4)).
TAKE_TERMINAL: Final = """
import os, sys
os.close(os.open(os.ttyname(0), os.O_RDWR))
os.execv(sys.argv[1], sys.argv[1:])
"""
PASSWORD: Final = re.compile(r"^ {4}((?:[a-z]+-){9}[a-z]+)\s*$", re.MULTILINE)
END: Final = "end of command"


@dataclass(frozen=True)
class File:
    """A file that the reader is told to write."""

    name: str
    text: str


def steps(text: str) -> Iterator[Command | File]:
    """Yield what the reader of a page does, in order."""
    before = 0
    for language, content in fences(text):
        place = text.index(content, before)
        if language == "python":
            (*_, name) = re.findall(r"`(\w+\.py)`", text[before:place])
            yield File(name, content)
        else:
            assert language == "console", f"a block {language!r} is not run by this test"
            yield from commands(content)
        before = place + len(content)


class Shell:
    """The second terminal: one bash for all commands, with a user's ordinary environment."""

    def __init__(self, home: Path) -> None:
        directory = home / "somewhere"
        directory.mkdir()
        self.directory = directory
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"HOME": str(home), "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            cwd=directory,
        )

    def run(self, command: str) -> tuple[str, int]:
        """Type a command; return what it printed and its code."""
        typed, shown = _stream(self._process.stdin), _stream(self._process.stdout)
        typed.write(f"{command}\nprintf '\\n{END} %d\\n' $?\n".encode())
        typed.flush()
        lines: list[str] = []
        while not (lines and (match := re.fullmatch(rf"{END} (\d+)\n", lines[-1]))):
            line = shown.readline().decode()
            assert line, f"the shell ended: {''.join(lines)}"
            lines.append(line)
        output = "".join(lines[:-1])
        return output.removesuffix("\n") if output.endswith(
            "\n\n"
        ) or output == "\n" else output, int(match[1])

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        _stream(self._process.stdin).close()
        _stream(self._process.stdout).close()


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


class Terminal:
    """The first terminal: `make run` in it, and somebody who answers what it asks."""

    def __init__(self, home: Path, port: int) -> None:
        self._home = home
        self._port = port
        self._shown = ""
        self._read = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._descriptor = -1
        self.password = ""

    def make_run(self, expected: tuple[str, ...]) -> None:
        """Start what `make run` starts, and go along with all that is expected to be shown."""
        self.end()
        self._shown, self._read = "", 0
        ours, theirs = pty.openpty()
        environment = {"HOME": str(self._home), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-c", TAKE_TERMINAL, str(SPIKE)),
                *("dev", "--port", str(self._port)),
            ],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self._descriptor = ours
        for line in expected:
            if line not in ("", "[…]"):
                self._go_along(line)
        if not self.password:
            (self.password,) = PASSWORD.findall(self._shown)

    def _go_along(self, line: str) -> None:
        if line == "Password: […]":
            self._wait_for("Password: ")
            self._wait_until_hidden()
            self._type(self.password)
        elif line.endswith("[y/N] y"):
            self._wait_for(line.removesuffix(" y"))
            self._type("y")
        else:
            self._wait_for(line)

    def _wait_for(self, line: str) -> None:
        wanted = re.compile(re.escape(line.strip()).replace(re.escape("[…]"), ".*"))
        end = time.monotonic() + PATIENCE_S
        while (match := wanted.search(self._shown, self._read)) is None:
            assert time.monotonic() < end, f"{line!r} was not shown: {self._shown}"
            self._look()
        self._read = match.end()

    def _wait_until_hidden(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while termios.tcgetattr(self._descriptor)[3] & termios.ECHO:
            assert time.monotonic() < end, "the terminal shows what is typed"
            self._look()

    def _look(self) -> None:
        if select.select([self._descriptor], [], [], 0.05)[0]:
            try:
                data = os.read(self._descriptor, 4096)
            except OSError:  # EIO: the other side is closed
                data = b""
            assert data, f"it ended: {self._shown}"
            self._shown += data.decode(errors="replace").replace("\r\n", "\n")

    def _type(self, text: str) -> None:
        os.write(self._descriptor, f"{text}\n".encode())

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit code."""
        os.write(self._descriptor, b"\x03")
        self._wait_for("Stopped.")
        assert self._process is not None
        return self._process.wait(PATIENCE_S)

    def end(self) -> None:
        """End whatever runs. Its parts end with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            os.close(self._descriptor)
            self._process = None


@pytest.fixture
def home() -> Iterator[Path]:
    """A user's home: a short path, because sockets lie below it."""
    directory = Path(tempfile.mkdtemp(prefix="spike-readme-"))
    yield directory
    shutil.rmtree(directory)


def processes_below(home: Path) -> list[str]:
    """Return the command lines of living processes whose HOME it is."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            environment = (path / "environ").read_bytes().split(b"\0")
            if f"HOME={home}".encode() in environment:
                found.append((path / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if line]


def test_every_block_does_what_the_page_says(home: Path) -> None:
    terminal, shell = Terminal(home, free_port()), Shell(home)
    count = 0
    try:
        for step in steps(page("README.md")):
            match step:
                case File(name=name, text=text):
                    (shell.directory / name).write_text(text, encoding="utf-8")
                case Command(text="make run", expected=expected):
                    terminal.make_run(expected)
                case Command(text=typed, expected=expected, code=code):
                    shown, found = shell.run(typed)
                    assert found == code, f"$ {typed}\n{shown}"
                    assert pattern(expected).fullmatch(shown), f"$ {typed}\n{shown}"
            count += 1
        assert count > 15
        assert terminal.interrupt() == 0
    finally:
        shell.end()
        terminal.end()
    end = time.monotonic() + PATIENCE_S
    while left := processes_below(home):
        assert time.monotonic() < end, f"still running: {left}"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("expected", "shown", "fits"),
    [
        (("OK",), "OK\n", True),
        (("OK",), "OK\nand more\n", False),
        ((), "", True),
        ((), "something\n", False),
        (("a […] c", "[…]", "z"), "a b c\n1\n2\nz\n", True),
        (("a […] c", "[…]", "z"), "a b c\nz\n", True),
        (("a […] c", "[…]", "z"), "a b\nz\n", False),
    ],
)
def test_a_difference_is_noticed(expected: tuple[str, ...], shown: str, fits: bool) -> None:
    assert bool(pattern(expected).fullmatch(shown)) is fits


def recipe(target: str, *arguments: str) -> str:
    """Return the last command that make would run for a target."""
    done = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", target, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1].rstrip()


def test_make_run_and_make_demo_start_what_is_tested_here() -> None:
    assert recipe("run", "ARGS=--port 0").endswith("/spike dev --port 0")
    assert recipe("demo", "STORY=main").endswith("/spike dev --demo main")


def test_every_make_command_named_is_a_target_and_ci_calls_those_of_the_table() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", page("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z-]+)", page("README.md")))
    assert named <= targets
    table = [row[0].strip("`") for row in rows(sections(page("README.md"))["Working on it"])]
    assert re.findall(r"make [a-z-]+", page(".ci/run")) == table
