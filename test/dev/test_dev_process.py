"""`spike dev` with real processes: its first start, the later ones, its end, however it comes."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest

from dev_kit import BIN, DevProcess, eventually, run_dev
from spike.pilot.demo.stage import Stage, descendants, files_below, is_there
from spike.pilot.dev.place import DevPlace

QUIET = ("--port", "0")


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that is short enough for sockets, whatever the test is called."""
    return tmp_path_factory.mktemp("d") / "dev"


def part(dev: DevProcess, program: str) -> int:
    """Return the process below `dev` that runs a program."""
    found = [
        number
        for number in descendants(dev.process.pid)
        if program.encode() in Path(f"/proc/{number}/cmdline").read_bytes()
    ]
    assert len(found) == 1, found
    return found[0]


def gone(numbers: tuple[int, ...]) -> bool:
    return not any(is_there(number) for number in numbers)


def command(directory: Path, *arguments: str, given: str = "") -> str:
    """Run a command in the environment the second terminal gets."""
    return Stage(DevPlace(directory), "1h").run_well(*arguments, given=given)


def test_first_start_shows_a_password_once_and_keeps_it_nowhere(directory: Path) -> None:
    with DevProcess("--data", str(directory), *QUIET) as dev:
        shown = dev.wait_for("Ctrl-C stops everything.")
        password = next(line.strip() for line in shown.split("\n") if line.startswith("    "))
        assert len(password.split("-")) == 10
        assert shown.count(password) == 1
        assert f"  . {directory}/env\n" in shown
        command(directory, "spike", "secret", "put", "a/b", "k=first")
        assert command(directory, "spike", "secret", "get", "a/b", "k") == "first\n"
        below = descendants(dev.process.pid)
        assert len(below) >= 2
        assert dev.interrupt() == 0
        assert "Stopped." in dev.wait_for("asks for its password.")
        assert gone(below)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in files_below(directory):
        assert password.encode() not in path.read_bytes(), path
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_later_start_asks_for_the_password_until_it_is_right(directory: Path) -> None:
    with DevProcess("--data", str(directory), *QUIET, "--format", "json") as dev:
        password = dev.event("password")["password"]
        dev.event("served")
        command(directory, "spike", "secret", "put", "a/b", "k=kept")
        assert dev.interrupt() == 0
    with DevProcess("--data", str(directory), *QUIET, terminal=True) as dev:
        assert "The store is locked" in dev.wait_for("Password: ")
        dev.type("not-the-password-at-all-but-long\n")
        said = dev.wait_for("Password: ")
        assert "the password does not open" in said
        assert "not-the-password" not in said
        assert f". {directory}/env && spike-authority run --id" in said, "where an option can go"
        said = "Password: "
        while said.endswith("Password: "):  # after a wrong one the next has to wait a second
            eventually("the prompt is hidden again", lambda: not dev.echoes())
            dev.type(password + "\n")
            said = dev.wait_for("[y/N]", or_else="Password: ")
            assert password not in said
        dev.type("y\n")
        dev.wait_for("Ctrl-C stops everything.")
        assert command(directory, "spike", "secret", "get", "a/b", "k") == "kept\n"
        below = descendants(dev.process.pid)
        dev.type("\x03")
        dev.wait_for("asks for its password.")
        assert dev.process.wait(30) == 0
        assert gone(below)


def test_interrupt_at_the_prompt_leaves_nothing_and_a_terminal_that_echoes(
    directory: Path,
) -> None:
    with DevProcess("--data", str(directory), *QUIET, "--format", "json") as dev:
        dev.event("served")
        assert dev.interrupt() == 0
    for ending in ("typed", "sent"):
        with DevProcess("--data", str(directory), *QUIET, terminal=True) as dev:
            assert dev.echoes()
            dev.wait_for("Password: ")
            below = descendants(dev.process.pid)
            eventually("the prompt is hidden", lambda: not dev.echoes())
            if ending == "typed":
                dev.type("\x03")
            else:
                dev.process.terminate()
            dev.wait_for("asks for its password.")
            assert dev.process.wait(30) == 0
            assert gone(below)
            assert dev.echoes()


def test_without_a_terminal_a_locked_store_is_served_and_the_way_to_open_it_named(
    directory: Path,
) -> None:
    with DevProcess("--data", str(directory), *QUIET, "--format", "json") as dev:
        password = dev.event("password")["password"]
        dev.event("served")
        assert dev.interrupt() == 0
    with DevProcess("--data", str(directory), *QUIET) as dev:
        said = dev.wait_for("Ctrl-C stops everything.")
        assert "there is no terminal to ask on" in said
        start = said.index(f". {directory}")
        way = said[start : said.index("spike restore", start) + len("spike restore")]
        _shell(f"{way} --password-stdin --yes", password)
        assert command(directory, "spike", "secret", "list") == "No secrets found.\n"


def test_killed_it_leaves_nothing_running(directory: Path) -> None:
    with DevProcess("--data", str(directory), *QUIET, "--format", "json") as dev:
        dev.event("served")
        below = descendants(dev.process.pid)
        assert len(below) >= 2
        dev.process.kill()
        dev.process.wait()
        eventually("the parts end", lambda: gone(below))
    # and the lock went with it
    with DevProcess("--data", str(directory), *QUIET, "--format", "json") as dev:
        assert dev.event("served")["state"] == "locked"


def test_twin_is_refused_and_told_of_the_other(directory: Path) -> None:
    with DevProcess("--data", str(directory), *QUIET, "--format", "json") as dev:
        dev.event("served")
        ran = run_dev("--data", str(directory), *QUIET)
        assert ran.returncode == 2
        assert f"`spike dev` already runs in {directory} (process {dev.process.pid})" in ran.stderr
        assert f". {directory}/env" in ran.stderr
        assert command(directory, "spike", "secret", "list") == "No secrets found.\n"


def test_parts_that_die_are_started_again(directory: Path) -> None:
    with DevProcess("--data", str(directory), *QUIET, "--format", "json") as dev:
        dev.event("served")
        authority, nexus = part(dev, "spike-authority"), part(dev, "spike-nexus")
        os.kill(authority, signal.SIGKILL)
        death = dev.event("death")
        assert (death["name"], death["code"]) == ("Authority", -signal.SIGKILL)
        stage = Stage(DevPlace(directory), "1h")
        eventually("Authority is back", lambda: stage.run("spike-authority", "status").code == 0)
        # Nexus went on, with its key and the identity its launcher asked for again.
        listing = ("spike", "secret", "list")
        eventually("Nexus has taken over the new CA", lambda: stage.run(*listing).code == 0)
        assert part(dev, "spike-nexus") == nexus
        os.kill(nexus, signal.SIGKILL)
        death = dev.event("death")
        assert (death["name"], death["code"]) == ("Nexus", -signal.SIGKILL)
        assert dev.event("served")["state"] == "open"
        assert part(dev, "spike-nexus") != nexus
        assert dev.interrupt() == 0


def test_second_interrupt_ends_a_part_that_hangs(directory: Path) -> None:
    with DevProcess("--data", str(directory), *QUIET, "--format", "json") as dev:
        dev.event("served")
        below = descendants(dev.process.pid)
        os.kill(part(dev, "spike-nexus"), signal.SIGSTOP)
        dev.process.send_signal(signal.SIGINT)
        dev.event("stopping")
        assert dev.interrupt() == 0
        assert gone(below)


def test_ephemeral_store_is_gone_at_the_end(directory: Path) -> None:
    with DevProcess("--data", str(directory), *QUIET, "--ephemeral", "--format", "json") as dev:
        assert dev.event("served")["state"] == "open"
        assert directory.is_dir()
        dev.process.terminate()
        assert dev.event("stopped")["left"] is None
        assert dev.process.wait(30) == 0
    assert not directory.exists()


def test_fresh_store_lies_in_a_new_directory_each_time(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    seen, above = set(), tmp_path_factory.mktemp("f")  # short enough for sockets
    for _ in range(2):
        with DevProcess("--fresh", *QUIET, "--format", "json", TMPDIR=str(above)) as dev:
            assert dev.event("password")["password"]
            seen.add(dev.event("served")["directory"])
            assert dev.interrupt() == 0
    assert len(seen) == 2
    assert {path.parent for path in map(Path, seen)} == {above}


def test_part_that_does_not_start_is_named_with_its_own_words(directory: Path) -> None:
    (directory / "authority").mkdir(parents=True, mode=0o700)
    directory.chmod(0o700)
    (directory / "authority" / "entry.json").write_text("{nonsense")
    (directory / "authority" / "entry.json").chmod(0o600)
    ran = run_dev("--data", str(directory), *QUIET)
    assert ran.returncode == 2
    assert ran.stderr.startswith("Error: Authority does not start: Error: ")
    assert f"Next: see {directory}/log/authority.log" in ran.stderr


def test_variables_of_another_spike_do_not_reach_the_parts(directory: Path) -> None:
    with DevProcess(
        *("--data", str(directory), *QUIET, "--format", "json"),
        SPIKE_NEXUS_DATA_DIR="/nonexistent/store",
        SPIKE_TRUST_ROOT="example.org",
        SPIFFE_ENDPOINT_SOCKET="unix:///nonexistent",
    ) as dev:
        served = dev.event("served")
        assert served["state"] == "open"
        assert served["store"] == str(directory / "data")


def _shell(script: str, given: str) -> None:
    import subprocess

    subprocess.run(
        ["sh", "-c", script],
        input=given,
        text=True,
        check=True,
        env={"PATH": f"/usr/bin:/bin:{BIN}", "HOME": "/nonexistent"},
        start_new_session=True,
    )
