"""Bad input to the real program: a clear answer within seconds, the server lives, its memory stays flat."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from process_kit import BIN, Installation, eventually
from spike.spiffe.peer import any_peer
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import client_context
from spike.spiffe.workload_source import fetch_material


@pytest.fixture(scope="module")
def spike(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("spike")) as started:
        started.init()
        started.client.put_secret("a", {"k": "v"})
        yield started


def run_nexus(**environment: str) -> tuple[int, str, float]:
    """Run spike-nexus on its own until it ends; return its exit code, what it said, and how long it took."""
    began = time.monotonic()
    base = {"PATH": os.environ["PATH"], "HOME": environment.pop("HOME")}
    done = subprocess.run(
        [str(BIN / "spike-nexus")],
        env=base | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr, time.monotonic() - began


def test_without_a_workload_api_it_says_so_within_seconds(tmp_path: Path) -> None:
    code, said, took_s = run_nexus(HOME=str(tmp_path))
    assert code == 1
    assert "SPIFFE_ENDPOINT_SOCKET" in said
    assert took_s < 15
    missing = f"unix://{tmp_path}/none.sock"
    code, said, took_s = run_nexus(HOME=str(tmp_path), SPIFFE_ENDPOINT_SOCKET=missing)
    assert code == 1
    assert "none.sock" in said
    assert took_s < 15


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SPIKE_NEXUS_TLS_PORT", "many"),
        ("SPIKE_NEXUS_TLS_PORT", ":99999"),
        ("SPIKE_NEXUS_MAX_SECRET_VERSIONS", "0"),
        ("SPIKE_NEXUS_MAX_SECRET_VERSIONS", "ten"),
        ("SPIKE_NEXUS_BODY_LIMIT", "-1"),
        ("SPIKE_SPIFFE_SOURCE_TIMEOUT", "30"),
        ("SPIKE_NEXUS_DRAIN_TIMEOUT", "-1s"),
        ("SPIKE_MEMORY_STRICT", "perhaps"),
        ("SPIKE_SYSTEM_LOG_LEVEL", "LOUD"),
        ("SPIKE_TRUST_ROOT_PILOT", "a,,b"),
        ("SPIKE_NEXUS_BACKEND_STORE", "paper"),
    ],
)
def test_an_invalid_setting_is_named_never_replaced(tmp_path: Path, name: str, value: str) -> None:
    code, said, _ = run_nexus(HOME=str(tmp_path), **{name: value})
    assert code == 1
    assert name in said or value in said
    assert "next:" in said


def test_a_second_nexus_on_the_same_store_is_refused(spike: Installation, tmp_path: Path) -> None:
    code, said, _ = run_nexus(
        **{**spike.environment, "HOME": str(tmp_path)},
        SPIKE_NEXUS_DATA_DIR=str(spike.store),
        SPIKE_NEXUS_BACKUP_DIR=str(spike.place),
    )
    assert code == 1
    assert str(spike.store) in said
    assert spike.client.get_secret("a") == {"k": "v"}


def test_a_process_with_another_identity_cannot_be_nexus(
    spike: Installation, tmp_path: Path
) -> None:
    code, said, _ = run_nexus(**{**spike.environment, "HOME": str(tmp_path)})
    assert code == 1
    assert "not a Nexus" in said


def connected(spike: Installation) -> ssl.SSLSocket:
    material = fetch_material(spike.environment["SPIFFE_ENDPOINT_SOCKET"], 10)
    raw = socket.create_connection(("127.0.0.1", spike.port), timeout=30)
    return client_context(HeldSource(material), any_peer).wrap_socket(raw)


def request(body: bytes, *fields: bytes, target: bytes = b"/v1/store/secrets?action=get") -> bytes:
    head = [b"POST " + target + b" HTTP/1.1", b"Host: localhost", *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


GOOD_BODY = b'{"path":"a"}'
BAD = {
    "garbage": b"\x00\x01\x02" * 1000,
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a header without an end": b"POST /" + b"a" * 100_000,
    "many fields": request(b"", *[b"X-%d: y" % n for n in range(5000)]),
    "a length that is no number": request(b"", b"Content-Length: many"),
    "a negative length": request(b"", b"Content-Length: -1"),
    "two lengths": request(GOOD_BODY, b"Content-Length: 12", b"Content-Length: 13"),
    "length and chunks": request(
        b"0\r\n\r\n", b"Content-Length: 12", b"Transfer-Encoding: chunked"
    ),
    "a body announced too large": request(b"", b"Content-Length: 99999999999"),
    "a bad chunk": request(b"zz\r\n", b"Transfer-Encoding: chunked"),
    "deep JSON": request(b"[" * 50_000, b"Content-Length: 50000"),
    "no JSON": request(b"{" * 12, b"Content-Length: 12"),
    "wrong types": request(b'{"path":[1]}', b"Content-Length: 12"),
    "another target form": request(b"", b"Content-Length: 0", target=b"https://other/x"),
    "an endless query": request(b"", b"Content-Length: 0", target=b"/v1/x?" + b"a=b&" * 3000),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_bytes_are_answered_or_cut_off_and_the_server_lives(
    spike: Installation, what: str
) -> None:
    with connected(spike) as connection:
        connection.settimeout(30)
        answer = b""
        try:
            connection.sendall(BAD[what])
            while block := connection.recv(65536):
                answer += block
                if b"\r\n\r\n" in answer and what != "a header without an end":
                    break
        except (ConnectionError, ssl.SSLError):
            pass
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:100]
    assert spike.client.get_secret("a") == {"k": "v"}


def test_a_request_cut_in_the_middle_changes_nothing(spike: Installation) -> None:
    body = b'{"path":"cut","values":{"k":"v"}}'
    whole = request(body, b"Content-Length: %d" % len(body), target=b"/v1/store/secrets")
    for length in range(1, len(whole), 17):
        with connected(spike) as connection:
            connection.sendall(whole[:length])
    assert "cut" not in spike.client.list_secrets()


def test_a_request_sent_twice_is_two_requests(spike: Installation) -> None:
    for _ in range(2):
        spike.client.put_secret("twice", {"k": "v"})
    assert spike.client.get_secret_metadata("twice").metadata.current_version == 2


WRITES = 6
_WRITER = """
import sys
from spike.client import NexusClient
with NexusClient.from_environment() as nexus:
    print(flush=True)
    input()
    for number in range(int(sys.argv[2])):
        nexus.put_secret("race", {"by": sys.argv[1] + str(number)})
"""


def test_two_processes_that_write_one_path_never_lose_an_update(spike: Installation) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, name, str(WRITES)],
            env=spike.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for name in "ab"
    ]
    for each in writers:
        assert each.stdout is not None
        assert each.stdout.readline() == b"\n"
    for each in writers:
        assert each.stdin is not None
        each.stdin.write(b"\n")
        each.stdin.flush()
    for each in writers:
        each.communicate(timeout=60)
        assert each.returncode == 0
    # Ten versions are kept: of twelve writes, each took a number of its own, and the last ten are there.
    told = spike.client.get_secret_metadata("race")
    assert told.metadata.current_version == 2 * WRITES
    found = [spike.client.get_secret("race", number)["by"] for number in told.versions]
    assert len(set(found)) == len(found) == 10
    for name in "ab":
        own = [each for each in found if each.startswith(name)]
        assert own == sorted(own), "a writer's own writes changed places"


def test_requests_sent_at_once_are_answered_in_order_or_not_done(spike: Installation) -> None:
    """Whoever sends a second request before the first answer is told by `Connection: close` to send it again."""
    body = b'{"path":"twin","values":{"k":"v"}}'
    one = request(body, b"Content-Length: %d" % len(body), target=b"/v1/store/secrets")
    with connected(spike) as connection:
        connection.sendall(one + one)
        answer = b""
        while block := connection.recv(65536):
            answer += block
            if answer.count(b"\r\n\r\n{}") == 2:
                break
    done = answer.count(b"HTTP/1.1 200")
    assert done == 2 or b"Connection: close" in answer
    assert spike.client.get_secret_metadata("twin").metadata.current_version == done


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def test_memory_stays_flat_under_bad_input(spike: Installation) -> None:
    assert spike.nexus is not None
    big = request(b"x" * 900_000, b"Content-Length: 900000")

    def storm(rounds: int) -> None:
        for _ in range(rounds):
            for bad in (*BAD.values(), big):
                with connected(spike) as connection:
                    try:
                        connection.sendall(bad)
                        connection.settimeout(0.05)
                        connection.recv(4096)
                    except OSError:
                        pass

    storm(2)
    before = resident_kib(spike.nexus.pid)
    storm(6)
    eventually("memory is given back", lambda: resident_kib(spike.nexus.pid) < before + 16_384)  # type: ignore[union-attr]
    assert spike.client.get_secret("a") == {"k": "v"}


def test_sigterm_ends_it_in_order(spike: Installation) -> None:
    spike.drop_client()
    assert spike.stop_nexus() == 0
    assert not (spike.store / "store.sqlite-wal").exists()
