"""The control socket: what is malformed gets a clear answer, and nothing ends Authority."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authority_kit import CLI, RESTORE, SUPERUSER, WEB, AuthorityProcess, eventually
from size import seed, size
from spiffe_kit import Ca
from spike.authority.book import pem_of
from spike.client.control import (
    REQUEST_LIMIT_BYTES,
    Answer,
    BundleAddRequest,
    ControlClient,
    Done,
    EntryAddRequest,
    EntryList,
    EntryListRequest,
    EntryRemoveRequest,
    Fault,
    GrantRequest,
    Status,
    StatusRequest,
    WithdrawRequest,
    decode_answer_untrusted,
)
from spike.error import InputError, NotFoundError, UnreachableError


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuthorityProcess]:
    with AuthorityProcess(tmp_path_factory.mktemp("authority")) as started:
        yield started


@pytest.fixture(scope="module")
def at_rest(authority: AuthorityProcess) -> int:
    """How many descriptors Authority holds while nobody is connected."""
    return open_descriptors(authority)


@pytest.fixture(autouse=True)
def alive(authority: AuthorityProcess, at_rest: int) -> Iterator[None]:
    """After each test Authority still answers, and holds no descriptor more than before."""
    yield
    with authority.ask() as control:
        assert control.call(StatusRequest(), Status).trust_domain == "spike.ist"
    eventually("no descriptor is left", lambda: open_descriptors(authority) <= at_rest)


def open_descriptors(authority: AuthorityProcess) -> int:
    """Count them. Authority cannot be looked into by its own user: then there is nothing to compare."""
    assert authority.process is not None
    try:
        return len(list(Path(f"/proc/{authority.process.pid}/fd").iterdir()))
    except PermissionError:
        return 0


def send(
    authority: AuthorityProcess, content: bytes, descriptors: list[int] | None = None
) -> Answer:
    """Send bytes and return the first answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(authority.control))
        if descriptors:
            sent = socket.send_fds(connection, [content], descriptors)
            content = content[sent:]
        with contextlib.suppress(BrokenPipeError):  # it may hang up before it has read all
            connection.sendall(content)
        with connection.makefile("rb") as answers:
            return decode_answer_untrusted(answers.readline().rstrip(b"\n"))


MALFORMED = {
    "an empty line": (b"\n", "not a request"),
    "no JSON": (b"{\n", "not a request"),
    "no UTF-8": (b'{"request":"\xff"}\n', "not a request"),
    "an array": (b"[]\n", "not a request"),
    "an unknown request": (b'{"request":"stop"}\n', "not a request"),
    "no request": (b"{}\n", "not a request"),
    "a field too many": (b'{"request":"status","x":1}\n', "not a request"),
    "a field too few": (b'{"request":"entry-add","uid":1}\n', "not a request"),
    "a uid as text": (b'{"request":"entry-add","uid":"1","id":"a"}\n', "not a request"),
    "a huge uid": (b'{"request":"entry-add","uid":1e99,"id":"a"}\n', "not a request"),
    "an ID that is none": (b'{"request":"entry-add","uid":1,"id":"a"}\n', "starts with spiffe://"),
    "deep nesting": (b"[" * 50_000 + b"\n", "not a request"),
    "too long": (b" " * (REQUEST_LIMIT_BYTES + 1) + b"\n", "at most"),
    "too long without an end": (b" " * (3 * REQUEST_LIMIT_BYTES), "at most"),
    "a grant without a process": (b'{"request":"grant","id":"%s"}\n' % WEB.encode(), "pidfd"),
    "a withdrawal without a process": (b'{"request":"withdraw"}\n', "pidfd"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_gets_a_clear_answer(authority: AuthorityProcess, name: str) -> None:
    content, why = MALFORMED[name]
    answer = send(authority, content)
    assert isinstance(answer, Fault)
    assert answer.kind == "input"
    assert why in answer.message
    assert len(answer.message) < 300


def test_a_malformed_request_does_not_end_the_connection(authority: AuthorityProcess) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(authority.control))
        connection.sendall(b'nonsense\n{"request":"status"}\n\n{"request":"entry-list"}\n')
        with connection.makefile("rb") as answers:
            tags = [json.loads(answers.readline())["answer"] for _ in range(4)]
        assert tags == ["fault", "status", "fault", "entries"]


def test_a_request_may_come_byte_by_byte(authority: AuthorityProcess) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(authority.control))
        for byte in b'{"request":"status"}\n':
            connection.sendall(bytes([byte]))
        with connection.makefile("rb") as answers:
            assert json.loads(answers.readline())["answer"] == "status"


GRANT = b'{"request":"grant","id":"%s"}\n' % WEB.encode()


def test_descriptors_that_are_no_pidfd_are_refused_and_closed(authority: AuthorityProcess) -> None:
    me = os.pidfd_open(os.getpid())
    with open(os.devnull, "rb") as null:
        for content, descriptors, why in (
            (GRANT, [null.fileno()], "names no living process"),
            (GRANT, [me, me], "one descriptor at most"),
            (GRANT, [null.fileno()] * 50, "one descriptor at most"),
            (b'{"request":"status"}\n', [me], "only grant and withdraw"),
            (b'{"request":"withdraw"}\n', [me], "granted nothing"),
            (b"nonsense\n", [me], "not a request"),
        ):
            answer = send(authority, content, descriptors)
            assert isinstance(answer, Fault)
            assert why in answer.message
        # A request that never ends leaves nothing behind either.
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(authority.control))
            socket.send_fds(connection, [b"{"], [me])
    os.close(me)


def test_a_process_that_has_ended_gets_no_grant(authority: AuthorityProcess) -> None:
    child = subprocess.Popen(["true"])
    descriptor = os.pidfd_open(child.pid)
    child.wait()
    with (
        authority.ask() as control,
        pytest.raises(InputError, match=r"no living process|has ended"),
    ):
        control.grant(WEB, descriptor)
    os.close(descriptor)


def test_random_bytes_never_end_it(authority: AuthorityProcess) -> None:
    chosen = seed()
    print("seed", chosen)
    dice = random.Random(chosen)
    whole = [GRANT, b'{"request":"status"}\n', b'{"request":"entry-add","uid":7,"id":"x"}\n']
    for _ in range(size(test=100, proof=10_000)):
        content = bytearray(dice.choice([dice.randbytes(dice.randrange(200)), *whole]))
        for _ in range(dice.randrange(4)):
            if content:
                content[dice.randrange(len(content))] = dice.randrange(256)
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(authority.control))
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass


def test_the_socket_is_its_owners_alone(authority: AuthorityProcess) -> None:
    assert stat.S_IMODE(authority.control.stat().st_mode) == 0o600


def test_entries_by_command(authority: AuthorityProcess) -> None:
    assert authority.cli("entry", "list").stdout == f"{os.geteuid()} {SUPERUSER}\n"
    added = authority.cli("entry", "add", "--uid", "7001", "--id", WEB, "--hint", "web")
    assert (added.returncode, added.stdout) == (0, "OK\n")
    first = authority.cli("entry", "add", "--uid", "7001", "--id", WEB + "/b", "--place", "first")
    assert first.stdout == "OK\n"
    assert authority.cli("entry", "list").stdout.splitlines()[0] == f"7001 {WEB}/b"
    again = authority.cli("entry", "add", "--uid", "7001", "--id", WEB)
    assert again.returncode == 1
    assert again.stderr == f"Error: uid 7001 has the identity {WEB} already.\n"
    for spiffe_id in (WEB, WEB + "/b"):
        assert authority.cli("entry", "remove", "--uid", "7001", "--id", spiffe_id).returncode == 0
    gone = authority.cli("entry", "remove", "--uid", "7001", "--id", WEB)
    assert gone.returncode == 1
    assert "there is no entry" in gone.stderr
    nobody = authority.cli("entry", "add", "--uid", "no-such-user", "--id", WEB)
    assert nobody.returncode == 2
    with authority.ask() as control:
        assert len(control.call(EntryListRequest(), EntryList).entries) == 1


def test_the_restore_role_is_refused_as_an_entry_with_the_way_to_get_it(
    authority: AuthorityProcess,
) -> None:
    done = authority.cli("entry", "add", "--uid", "7001", "--id", RESTORE)
    assert done.returncode == 1
    assert "no entry gives the restore role" in done.stderr
    assert f"spike-authority run --id {RESTORE} -- …" in done.stderr


def test_bundles_by_command(authority: AuthorityProcess, tmp_path: Path) -> None:
    own = authority.cli("bundle", "show").stdout
    assert own.startswith("-----BEGIN CERTIFICATE-----\n")
    file = tmp_path / "other.pem"
    file.write_text(pem_of((Ca("other.org").cert,)))
    assert authority.cli("bundle", "add", "other.org", str(file)).stdout == "OK\n"
    assert authority.cli("bundle", "list").stdout == "other.org 1 certificate\n"
    assert authority.cli("bundle", "add", "third.org", input=file.read_text()).stdout == "OK\n"
    for name in ("other.org", "third.org"):
        assert authority.cli("bundle", "remove", name).returncode == 0
    assert authority.cli("bundle", "list").stdout == "No foreign bundles found.\n"
    refused = authority.cli("bundle", "add", "spike.ist", str(file))
    assert refused.returncode == 1
    assert "own trust domain" in refused.stderr
    wrong = authority.cli("bundle", "add", "other.org", input="no PEM")
    assert wrong.returncode == 1
    assert "not a bundle in PEM" in wrong.stderr


def test_status_by_command(authority: AuthorityProcess) -> None:
    human = authority.cli("status").stdout
    assert f"unix://{authority.socket}" in human
    assert "in memory only" in human
    machine = json.loads(authority.cli("status", "--format", "json").stdout)
    assert machine["trust_domain"] == "spike.ist"
    assert machine["grants_possible"] is True


def test_an_authority_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [CLI, "status", "--control", str(tmp_path / "none.sock")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "there is no such socket" in done.stderr
    assert "spike-authority serve" in done.stderr
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(dead))
    with pytest.raises(UnreachableError, match="nobody listens"):
        ControlClient.connect(dead)


def test_each_refusal_has_its_error(authority: AuthorityProcess) -> None:
    with authority.ask() as control:
        with pytest.raises(InputError, match="trust domain"):
            control.call(EntryAddRequest(1, "spiffe://other.org/a"), Done)
        with pytest.raises(InputError, match="only lower-case"):
            control.call(BundleAddRequest("A", ""), Done)
        with pytest.raises(NotFoundError):
            control.call(EntryRemoveRequest(7001, WEB), Done)
        with pytest.raises(InputError, match="pidfd"):
            control.call(GrantRequest(WEB), Done)
        with pytest.raises(InputError, match="pidfd"):
            control.call(WithdrawRequest(), Done)
