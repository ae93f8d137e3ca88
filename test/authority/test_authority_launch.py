"""`spike-authority run` and the launcher behind it, with real processes."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from authority_kit import (
    CLI,
    FOLLOW,
    RESTORE,
    SUPERUSER,
    WAIT_S,
    WEB,
    AuthorityProcess,
    await_line,
    eventually,
    next_line,
)
from spike.client.control import Granted, GrantRequest, Status, StatusRequest
from spike.client.launch import Command, Launcher
from spike.error import InputError, SettingError, UnreachableError
from spike.spiffe.id import SpiffeId

FOLLOWER = [sys.executable, "-c", FOLLOW]
WEB_ID = SpiffeId.parse_untrusted(WEB)


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[AuthorityProcess]:
    with AuthorityProcess(tmp_path) as started:
        yield started


@pytest.fixture
def running() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


def run(
    authority: AuthorityProcess,
    stack: contextlib.ExitStack,
    command: list[str],
    spiffe_id: str = WEB,
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [CLI, "run", "--id", spiffe_id, "--", *command],
        env=authority.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    )
    stack.callback(end, process)
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def command_pid(launcher: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])


def status(authority: AuthorityProcess) -> Status:
    with authority.ask() as control:
        return control.call(StatusRequest(), Status)


def test_the_command_has_the_identity_instead_of_its_users(
    authority: AuthorityProcess, running: contextlib.ExitStack
) -> None:
    for spiffe_id in (WEB, RESTORE):
        process = run(authority, running, FOLLOWER, spiffe_id)
        assert next_line(process).split()[0] == spiffe_id


def test_what_the_command_starts_is_its_users_again(
    authority: AuthorityProcess, running: contextlib.ExitStack
) -> None:
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {FOLLOW!r}])"
    process = run(authority, running, [sys.executable, "-c", child])
    assert next_line(process).split()[0] == SUPERUSER


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill $$", 143)]
)
def test_the_exit_code_is_the_commands(authority: AuthorityProcess, script: str, code: int) -> None:
    assert authority.cli("run", "--id", WEB, "--", "sh", "-c", script).returncode == code


def test_streams_descriptors_environment_and_signal_settings_go_through(
    authority: AuthorityProcess,
) -> None:
    script = (
        "cat; cat /proc/self/fd/$GIVEN; echo $MARK $SPIFFE_ENDPOINT_SOCKET; "
        "grep -E 'Sig(Blk|Ign)' /proc/self/status; echo wrong >&2; ls /proc/self/fd | wc -l"
    )

    def said(start: list[str], endpoint: str) -> tuple[str, str]:
        read, write = os.pipe()
        os.write(write, b"through the descriptor\n")
        os.close(write)
        own = {"MARK": "m", "GIVEN": str(read), "SPIFFE_ENDPOINT_SOCKET": endpoint}
        done = subprocess.run(
            [*start, "sh", "-c", script],
            env={**authority.environment, **own},
            input="in\n",
            capture_output=True,
            text=True,
            pass_fds=(read,),
            check=True,
        )
        os.close(read)
        return done.stdout, done.stderr

    plain = said([], authority.endpoint)
    assert plain[0].startswith("in\nthrough the descriptor\nm unix://")
    assert said([CLI, "run", "--id", WEB, "--"], "unix:///elsewhere") == plain


def test_a_signal_to_the_launcher_reaches_the_command(
    authority: AuthorityProcess, running: contextlib.ExitStack
) -> None:
    script = (
        "import signal\n"
        "def take(number, frame):\n"
        "    print(signal.Signals(number).name, flush=True)\n"
        "for each in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1,"
        " signal.SIGUSR2, signal.SIGWINCH):\n"
        "    signal.signal(each, take)\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    process = run(authority, running, [sys.executable, "-uc", script])
    assert next_line(process) == "ready"
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH"):
        process.send_signal(signal.Signals[name])
        assert next_line(process) == name
    os.kill(command_pid(process), signal.SIGKILL)
    assert process.wait(WAIT_S) == 137


def test_a_hidden_prompt_and_ctrl_c_work_on_a_terminal(authority: AuthorityProcess) -> None:
    script = (
        "import getpass, signal, sys, time\n"
        "try:\n"
        "    print('got', getpass.getpass('Hidden: '), flush=True)\n"
        "    while True: time.sleep(0.05)\n"  # not pause(): a signal just before it would be waited for
        "except KeyboardInterrupt:\n"
        "    signal.signal(signal.SIGINT, lambda *_: print('twice', flush=True))\n"
        "    print('interrupted', flush=True)\n"
        "    signal.sigtimedwait([], 0.3)\n"
        "    sys.exit(5)\n"
    )
    pid, terminal = pty.fork()
    if not pid:
        command = [CLI, "run", "--id", WEB, "--", sys.executable, "-c", script]
        os.execve(CLI, command, authority.environment)
    with os.fdopen(terminal, "r+b", buffering=0) as screen:
        seen = b""

        def show_until(wanted: bytes) -> None:
            nonlocal seen
            while wanted not in seen:
                seen += screen.read(1024)

        show_until(b"Hidden: ")
        screen.write(b"typed\n")
        show_until(b"got typed")
        screen.write(b"\x03")
        show_until(b"interrupted")
        with contextlib.suppress(OSError):
            while piece := screen.read(1024):
                seen += piece
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    assert seen.count(b"typed") == 1  # what was typed was hidden
    assert b"twice" not in seen


def test_a_killed_launcher_takes_its_command_along(
    authority: AuthorityProcess, running: contextlib.ExitStack
) -> None:
    process = run(authority, running, FOLLOWER)
    assert next_line(process).split()[0] == WEB
    pid = command_pid(process)
    process.kill()
    process.wait()
    eventually("the command ends", lambda: not Path(f"/proc/{pid}/exe").exists())


def test_a_command_that_outlives_its_launcher_loses_its_identity_and_gets_no_other(
    authority: AuthorityProcess, running: contextlib.ExitStack
) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + FOLLOW
    process = run(authority, running, [sys.executable, "-c", stubborn])
    assert next_line(process).split()[0] == WEB
    pid = command_pid(process)
    running.callback(os.kill, pid, signal.SIGKILL)
    process.kill()
    assert next_line(process) == "PERMISSION_DENIED"
    # Its user has an entry, and a restarted Authority has no grants: still it gets nothing.
    authority.end(signal.SIGKILL)
    authority.start()
    lines = [next_line(process) for _ in range(5)]
    assert set(lines) == {"PERMISSION_DENIED"}
    assert status(authority).grants == []


def test_a_restarted_authority_serves_the_command_again_under_its_new_ca(
    authority: AuthorityProcess, running: contextlib.ExitStack
) -> None:
    process = run(authority, running, FOLLOWER)
    before = next_line(process)
    for number in (signal.SIGKILL, signal.SIGTERM):
        authority.end(number)
        authority.start()
        lines = await_line(process, lambda line: line.startswith("spiffe:"))
        assert lines[-1].split()[0] == WEB
        assert lines[-1] != before
        # In between it was nobody: never the user it runs as.
        assert set(lines[:-1]) <= {"PERMISSION_DENIED"}
        before = lines[-1]


def test_one_launcher_vouches_for_many_and_each_ends_alone(authority: AuthorityProcess) -> None:
    with Launcher(authority.control) as launcher, contextlib.ExitStack() as stack:
        processes = []
        for name in ("a", "b", "c"):
            command = Command(FOLLOWER, stdout=subprocess.PIPE)
            spiffe_id = SpiffeId.parse_untrusted(f"spiffe://spike.ist/{name}")
            processes.append(launcher.start(spiffe_id, command))
            stack.callback(end, processes[-1])
        for name, process in zip("abc", processes, strict=True):
            assert next_line(process).split()[0] == f"spiffe://spike.ist/{name}"
        processes[0].kill()
        eventually("two grants are left", lambda: len(status(authority).grants) == 2)
        authority.end(signal.SIGKILL)
        authority.start()
        for name, process in zip("bc", processes[1:], strict=True):
            lines = await_line(process, lambda line: line.startswith("spiffe:"))
            assert lines[-1].split()[0] == f"spiffe://spike.ist/{name}"
    eventually("a closed launcher vouches for nothing", lambda: not status(authority).grants)


def test_a_stream_ends_when_its_caller_ends_though_another_process_keeps_the_connection(
    authority: AuthorityProcess, running: contextlib.ExitStack
) -> None:
    # The caller hands its connected socket to a child and ends.
    script = (
        "import os, socket, sys, time\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(os.environ['SPIFFE_ENDPOINT_SOCKET'].removeprefix('unix://'))\n"
        "assert s.recv(1)\n"
        "read, write = os.pipe()\n"
        "if os.fork():\n"
        "    print('handed over', flush=True)\n"
        "    os.read(0, 1)\n"
        "    os._exit(0)\n"
        "while s.recv(1024):\n"
        "    pass\n"
        "print('ended', flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=authority.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
    )
    running.callback(end, process)
    assert next_line(process) == "handed over"
    assert status(authority).connections == 1
    assert process.stdin is not None
    process.stdin.write(b"x")
    assert next_line(process) == "ended"
    eventually("the connection is gone", lambda: status(authority).connections == 0)


def test_a_grant_ends_with_its_connection_and_withdrawing_ends_the_stream(
    authority: AuthorityProcess, running: contextlib.ExitStack
) -> None:
    process = subprocess.Popen(
        FOLLOWER, env=authority.environment, stdout=subprocess.PIPE, bufsize=0
    )
    running.callback(end, process)
    assert next_line(process).split()[0] == SUPERUSER
    descriptor = os.pidfd_open(process.pid)
    running.callback(os.close, descriptor)
    with authority.ask() as control:
        control.call(GrantRequest(WEB), Granted, descriptor)
        assert next_line(process).split()[0] == WEB
        control.withdraw(descriptor)
        assert next_line(process) == "PERMISSION_DENIED"
        control.call(GrantRequest(RESTORE), Granted, descriptor)
        assert await_line(process, lambda line: line != "PERMISSION_DENIED")[-1].startswith(RESTORE)
    assert next_line(process) == "PERMISSION_DENIED"


def test_what_cannot_be_launched_is_said_in_a_sentence(authority: AuthorityProcess) -> None:
    with Launcher(authority.control) as launcher:
        with pytest.raises(SettingError, match="/nowhere cannot be executed: No such file"):
            launcher.start(WEB_ID, Command(["/nowhere"]))
        with pytest.raises(InputError, match="not in this Authority's trust domain"):
            launcher.start(SpiffeId.parse_untrusted("spiffe://other.org/a"), Command(["true"]))
        with pytest.raises(SettingError, match="no process can be started"):
            launcher.start(WEB_ID, Command(["true"], directory=Path("/nowhere")))
    with (
        Launcher(authority.directory / "none.sock") as launcher,
        pytest.raises(UnreachableError, match="there is no such socket"),
    ):
        launcher.start(WEB_ID, Command(["true"]))
    eventually("no grant is left", lambda: not status(authority).grants)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["run", "--", "true"], "Missing option '--id'"),
        (["run", "--id", WEB, "--id", RESTORE, "--", "true"], "--id is given exactly once"),
        (["run", "--id", "web", "--", "true"], "--id: a SPIFFE ID starts with"),
        (["run", "--id", WEB], "Missing argument"),
    ],
)
def test_wrong_usage_of_run_needs_no_authority(arguments: list[str], why: str) -> None:
    done = subprocess.run([CLI, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert why in done.stderr
