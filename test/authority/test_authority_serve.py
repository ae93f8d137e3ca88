"""`spike-authority serve`: how it begins, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.exceptions import GRPCError

from authority_kit import (
    CLI,
    SUPERUSER,
    WAIT_S,
    WEB,
    AuthorityProcess,
    await_line,
    eventually,
    fetch,
    svid_stream,
)
from spike.authority import listener
from spike.authority.archive import FileArchive
from spike.authority.traffic import CONNECTION_LIMIT
from spike.client.control import EntryList, EntryListRequest, Status, StatusRequest
from spike.error import SettingError, SpikeError, StoreUnavailableError
from spike.spiffe.endpoint import check_endpoint


def refused(*arguments: str) -> str:
    """Run `serve`, which must refuse to begin, and return what it says."""
    done = subprocess.run(
        [CLI, "serve", *arguments], capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    return done.stderr


def in_directory(directory: Path) -> list[str]:
    return [
        "--socket",
        str(directory / "agent.sock"),
        "--control",
        str(directory / "control.sock"),
        "--data",
        str(directory),
    ]


def test_it_says_what_it_is_for_and_where_things_are(tmp_path: Path) -> None:
    authority = AuthorityProcess(tmp_path)
    process = subprocess.Popen(authority.command, stdout=subprocess.PIPE)
    try:
        said = "\n".join(await_line(process, lambda line: line.startswith("Entries:")))
    finally:
        process.terminate()
        process.communicate()
    assert "for this one machine" in said
    assert "In production SPIRE takes its place, and only SPIFFE_ENDPOINT_SOCKET changes." in said
    assert f"SPIFFE_ENDPOINT_SOCKET={authority.endpoint}" in said
    assert f"SPIKE_AUTHORITY_CONTROL={authority.control}" in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_clean_end_removes_the_sockets_and_ends_open_streams(
    tmp_path: Path, number: signal.Signals
) -> None:
    with AuthorityProcess(tmp_path) as authority:
        async with svid_stream(authority.socket) as stream:
            await stream.recv_message()
            assert authority.end(number) == 0
        assert not authority.socket.exists()
        assert not authority.control.exists()
        assert authority.log() == ""


async def test_what_a_killed_one_left_behind_is_replaced(tmp_path: Path) -> None:
    with AuthorityProcess(tmp_path) as authority:
        authority.end(signal.SIGKILL)
        assert authority.socket.exists()
        authority.start()
        assert (await fetch(authority.socket)).svids[0].spiffe_id == SUPERUSER


def test_nothing_of_a_key_is_on_disk_and_files_are_their_owners_alone(tmp_path: Path) -> None:
    with AuthorityProcess(tmp_path) as authority:
        modes = {}
        for path in authority.directory.iterdir():
            if path.is_file() and path.name != "log":
                assert b"KEY" not in path.read_bytes()
                modes[path.name] = stat.S_IMODE(path.stat().st_mode)
        assert modes == {"entry.json": 0o600, "lock": 0o600}
        assert authority.process is not None
        limits = Path(f"/proc/{authority.process.pid}/limits").read_text()
        (core,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
        assert core.split()[4:6] == ["0", "0"]


def test_a_twin_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with AuthorityProcess(tmp_path / "a") as first:
        assert "another Authority is running on" in refused(*in_directory(first.directory))
        other = tmp_path / "b"
        arguments = in_directory(other)
        arguments[1] = str(first.socket)
        assert f"another process listens on {first.socket}" in refused(*arguments)
        # The first is unharmed.
        assert first.cli("status").returncode == 0


def test_a_twin_that_comes_while_the_first_still_starts_does_not_clear_its_socket_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, check, came = tmp_path / "agent.sock", check_endpoint, []

    def with_a_twin(*given: Any) -> None:
        monkeypatch.setattr(listener, "check_endpoint", check)
        with pytest.raises(SettingError, match="another process listens"):
            listener.listening(path, 0o600).__enter__()
        came.append(True)
        check(*given)

    monkeypatch.setattr(listener, "check_endpoint", with_a_twin)
    with listener.listening(path, 0o600), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert came


def test_a_path_too_long_for_a_socket_is_said_in_one_sentence(tmp_path: Path) -> None:
    long = tmp_path / ("d" * 90) / "agent.sock"
    said = refused("--socket", str(long), *in_directory(tmp_path)[2:])
    assert f"has {len(str(long))} bytes; the kernel takes 107" in said
    assert "choose a shorter path" in said
    assert not long.parent.exists()


def make_file(path: Path) -> None:
    path.write_text("precious")


def make_link(path: Path) -> None:
    path.symlink_to("elsewhere")


@pytest.mark.parametrize("make", [make_file, make_link, Path.mkdir])
def test_what_is_no_socket_is_not_removed(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "agent.sock"
    make(path)
    assert "is no socket" in refused(*in_directory(tmp_path))
    assert path.is_symlink() or path.exists()


def test_a_directory_others_can_write_in_is_refused(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    arguments = in_directory(tmp_path)
    arguments[1] = str(shared / "agent.sock")
    assert "others could replace" in refused(*arguments)
    assert list(shared.iterdir()) == []
    arguments = in_directory(tmp_path)
    arguments[5] = str(shared)
    assert "others could write in the data directory" in refused(*arguments)


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--svid-lifetime", "soon", "not a duration"),
        ("--svid-lifetime", "1s", "is not between 2 s and 24 h"),
        ("--svid-lifetime", "25h", "is not between"),
        ("--svid-lifetime", "-1h", "is not between"),
        ("--authority-lifetime", "2h", "less than four times"),
        ("--trust-domain", "Spike.ist", "--trust-domain: a trust domain has only"),
    ],
)
def test_an_invalid_option_is_named(tmp_path: Path, option: str, value: str, why: str) -> None:
    assert why in refused(*in_directory(tmp_path), option, value)


def test_an_invalid_variable_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKE_SYSTEM_LOG_LEVEL", "LOUD")
    assert "SPIKE_SYSTEM_LOG_LEVEL" in refused(*in_directory(tmp_path))


def test_entries_outlive_it_and_belong_to_their_trust_domain(tmp_path: Path) -> None:
    with AuthorityProcess(tmp_path) as authority:
        assert authority.cli("entry", "add", "--uid", "7001", "--id", WEB).returncode == 0
        authority.end()
        authority.start()
        assert f"7001 {WEB}\n" in authority.cli("entry", "list").stdout
        authority.end()
        said = refused(*in_directory(tmp_path), "--trust-domain", "other.org")
        assert "are of the trust domain spike.ist" in said


def test_removed_default_entries_do_not_come_back(tmp_path: Path) -> None:
    with AuthorityProcess(tmp_path) as authority:
        authority.cli("entry", "remove", "--uid", str(os.geteuid()), "--id", SUPERUSER)
        authority.end()
        authority.start()
        assert authority.cli("entry", "list").stdout == "No entries found.\n"


def test_an_entry_file_that_cannot_be_read_stops_the_start_and_is_left_alone(
    tmp_path: Path,
) -> None:
    file = tmp_path / "entry.json"
    for content in (
        "",
        "{",
        '{"format": 99}',
        '{"format": 1, "trust_domain": "spike.ist", "x": 1}',
    ):
        file.write_text(content)
        done = subprocess.run(
            [CLI, "serve", *in_directory(tmp_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "entry file" in done.stderr
        assert file.read_text() == content


def test_a_file_edited_by_hand_is_taken_over_on_sighup_or_refused_whole(tmp_path: Path) -> None:
    with AuthorityProcess(tmp_path) as authority:
        file = tmp_path / "entry.json"
        book = json.loads(file.read_text())
        book["entries"].append({"uid": 7001, "id": WEB})
        file.write_text(json.dumps(book))
        assert authority.process is not None
        authority.process.send_signal(signal.SIGHUP)

        def count() -> int:
            with authority.ask() as control:
                return len(control.call(EntryListRequest(), EntryList).entries)

        eventually("the entry is there", lambda: count() == 2)
        file.write_text("{")
        authority.process.send_signal(signal.SIGHUP)
        eventually("the refusal is logged", lambda: "stay as they were" in authority.log())
        assert count() == 2


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "data"
    yield made
    shutil.rmtree(made, ignore_errors=True)


def test_a_write_that_fails_leaves_the_old_file(directory: Path) -> None:
    with FileArchive(directory, "boot") as archive:
        (directory / "process.json").write_bytes(b"old")
        (directory / "process.json.new").mkdir()
        with pytest.raises(StoreUnavailableError, match="cannot be written"):
            archive.write_memory(())
        assert (directory / "process.json").read_bytes() == b"old"


def test_one_directory_has_one_authority(directory: Path) -> None:
    with FileArchive(directory, "boot"), pytest.raises(SettingError, match="another Authority"):
        FileArchive(directory, "boot")
    FileArchive(directory, "boot").close()


OTHER = 7001


def as_other_user(act: Callable[[], str]) -> str:
    """Run something in a process of another user and return what it says."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(OTHER, OTHER, OTHER)
            os.setresuid(OTHER, OTHER, OTHER)
            os.write(write, act().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    os.waitpid(pid, 0)
    return said


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[AuthorityProcess]:
    """An Authority whose socket other users can reach: tmp_path is closed to them."""
    outside = Path(tempfile.mkdtemp(dir="/run"))
    outside.chmod(0o755)
    authority = AuthorityProcess(tmp_path)
    authority.socket = outside / "agent.sock"
    authority.control = outside / "control.sock"
    try:
        with authority:
            yield authority
    finally:
        shutil.rmtree(outside)


@pytest.mark.root
def test_another_users_processes_reach_a_socket_outside_and_get_what_their_entry_says(
    shared: AuthorityProcess,
) -> None:
    authority = shared

    def identity() -> str:
        try:
            return str(asyncio.run(fetch(authority.socket)).svids[0].spiffe_id)
        except GRPCError as error:
            return str(error.status.name)

    def ask() -> str:
        try:
            authority.ask().call(StatusRequest(), Status)
        except SpikeError as error:
            return error.message
        return "answered"

    assert as_other_user(identity) == "PERMISSION_DENIED"
    authority.cli("entry", "add", "--uid", str(OTHER), "--id", WEB)
    assert as_other_user(identity) == WEB
    assert "may not speak with Authority" in as_other_user(ask)
    # Not only the file's mode keeps others out.
    authority.control.chmod(0o666)
    assert as_other_user(ask) == "only Authority's owner and root may ask"


@contextlib.contextmanager
def crowd(path: Path, uid: int, count: int) -> Iterator[None]:
    """Hold so many connections in a process of this user."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            held = [socket.socket(socket.AF_UNIX) for _ in range(count)]
            for each in held:
                each.connect(str(path))
            os.write(write, b"held")
            signal.pause()
        os._exit(0)
    os.close(write)
    try:
        with os.fdopen(read, "rb") as pipe:
            assert pipe.read(4) == b"held"
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.root
def test_users_who_hold_every_connection_between_them_keep_no_other_user_out(
    shared: AuthorityProcess,
) -> None:
    users = CONNECTION_LIMIT.of_all // CONNECTION_LIMIT.of_user
    with contextlib.ExitStack() as stack:
        for number in range(users):
            stack.enter_context(crowd(shared.socket, OTHER + number, CONNECTION_LIMIT.of_user))

        def full() -> bool:
            with shared.ask() as control:
                told = control.call(StatusRequest(), Status)
                return told.connections == CONNECTION_LIMIT.of_all

        eventually("every connection is taken", full)
        svid = asyncio.run(fetch(shared.socket)).svids[0]
        assert svid.spiffe_id == SUPERUSER
    assert "has the most connections" in shared.log()
