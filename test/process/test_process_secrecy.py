"""What can be found of the keys from outside: in memory after ten thousand requests and at the end, and in every file.

The root key is learned as a person with the password would: from the key backup, in this process.
"""

from __future__ import annotations

import base64
import ctypes
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from memory_scan import find_in_process, patterns_of
from process_kit import PASSWORD, RESTORE, Installation
from size import record, size
from spike.crypto.slot import Argon2Setting, SlotKey, derive_slot_secret
from spike.lifecycle import backup
from spike.lifecycle.restore import choose_slot
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.slot import header_of
from spike.memory.key_memory import KeyMemory

REQUESTS = 10_000


@dataclass(frozen=True)
class Found:
    """The keys of a store by name, and the password: what must be nowhere."""

    secrets: Mapping[str, bytes]

    def patterns(self) -> dict[str, bytes]:
        return {
            f"{name}, {form}": pattern
            for name, secret in self.secrets.items()
            for form, pattern in patterns_of(secret).items()
        }


def learned(place: Path) -> Found:
    """Open the key backup with the password, as a restore does, and unwrap every key."""
    (path,) = place.glob("*.key-backup")
    held = backup.decode_untrusted(path.read_bytes())
    hint = held.keyring.hint
    chosen = choose_slot(held.keyring, "")
    setting = Argon2Setting.parse_untrusted(chosen.slot.argon2)
    with derive_slot_secret(PASSWORD, chosen.slot.salt, setting) as secret:
        slot_secret = copied(secret)
        slot_key = SlotKey.from_slot_secret(
            secret, bytes.fromhex(hint.store_id), bytes.fromhex(chosen.slot.id)
        )
    root = KeyMemory.allocate(32)
    slot_key.open_into(chosen.sealed.sealed, header_of(hint, chosen.slot, chosen.sealed), root)
    document = held.confirmed_by(root)
    assert document is not None
    ring = KeyRing.open(document, root)
    found = {
        "root key": copied(ring.root),
        "slot secret": slot_secret,
        "backup-auth key": copied(ring.auth(chosen.slot.id)),
        "record key": copied(ring.active_record.key),
        "cipher key": copied(ring.active_cipher.key),
        "password": PASSWORD,
    }
    ring.wipe()
    return Found(found)


def copied(key: KeyMemory) -> bytes:
    with key.view() as view:
        return bytes(view)


@pytest.fixture
def spike(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path) as started:
        started.init()
        yield started


def work(spike: Installation, requests: int) -> None:
    """Make requests on several connections, a tenth of them writes, and some that encrypt up to 64 KiB."""

    client = spike.client

    def some(thread: int) -> None:
        for number in range(requests // 4):
            if number % 10 == 0:
                client.put_secret(f"p/{thread}/{number % 50}", {"k": f"value {number}"})
            elif number % 10 == 1:
                plaintext = b"x" * (number * 37 % 65_537)
                assert client.decrypt(client.encrypt(plaintext)) == plaintext
            else:
                client.get_secret(f"p/{thread}/0")

    threads = [threading.Thread(target=some, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.root
def test_no_key_is_in_nexus_memory_outside_of_the_locked_pages(spike: Installation) -> None:
    assert spike.nexus is not None
    spike.client.put_secret("canary", {"k": "spike-canary-value-0123456789abcdef"})
    work(spike, REQUESTS)
    patterns = learned(spike.place).patterns()
    assert find_in_process(spike.nexus.pid, patterns) == []
    # The search does find what is there: a store id stands in many a string of the process.
    store_id = spike.client.get_status().store_id
    assert store_id is not None
    assert find_in_process(spike.nexus.pid, {"store id": store_id.encode()})
    record("memory searched after requests", REQUESTS, "no key outside of locked pages")


@pytest.mark.root
def test_no_key_is_in_nexus_memory_after_a_restore_by_password(spike: Installation) -> None:
    patterns = learned(spike.place).patterns()
    rounds = size(test=1, proof=5)
    for _ in range(rounds):
        spike.kill_nexus()
        spike.drop_client()
        spike.start_nexus()
        spike.restore()
        assert spike.nexus is not None
        assert find_in_process(spike.nexus.pid, patterns) == []
    record("memory searched after a restore by password", rounds, "no key outside of locked pages")


PTRACE_SEIZE, PTRACE_O_TRACEEXIT, PTRACE_CONT = 0x4206, 0x40, 7
STOPPED_AT_EXIT = signal.SIGTRAP | (6 << 8)


def ptrace(request: int, pid: int, data: int = 0) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(request, pid, None, data) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")


@pytest.mark.root
def test_at_the_end_no_key_is_anywhere_in_nexus_memory(spike: Installation) -> None:
    """Stop the process at its exit, before the kernel takes its memory away, and search the locked pages too."""
    work(spike, 400)
    patterns = learned(spike.place).patterns()
    assert spike.nexus is not None
    pid = spike.nexus.pid
    spike.drop_client()
    ptrace(PTRACE_SEIZE, pid, PTRACE_O_TRACEEXIT)
    os.kill(pid, signal.SIGTERM)
    while True:
        _, status = os.waitpid(pid, 0)
        assert os.WIFSTOPPED(status), "it ended without stopping at its exit"
        if status >> 8 == STOPPED_AT_EXIT:
            break
        ptrace(
            PTRACE_CONT, pid, 0 if os.WSTOPSIG(status) == signal.SIGTRAP else os.WSTOPSIG(status)
        )
    hits = find_in_process(pid, patterns, locked=True)
    ptrace(PTRACE_CONT, pid)
    assert spike.nexus.wait(30) == 0
    assert hits == []
    record("memory searched at the end of the process", 1, "no key anywhere")


def files_below(directory: Path) -> Iterator[tuple[Path, bytes]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path, path.read_bytes()


def encoded(secret: bytes) -> dict[str, bytes]:
    return {
        form: pattern
        for form, pattern in patterns_of(secret).items()
        if form in {"raw", "hex", "upper-case hex"} or form.startswith("base64")
    }


def test_no_file_that_spike_wrote_holds_a_key_a_password_or_a_value(spike: Installation) -> None:
    """Requirement K3: store, log, WAL, backups, anchors, sockets' directories, temporary files."""
    temporary = spike.directory / "tmp"
    temporary.mkdir()
    spike.client.put_secret("canary", {"k": "spike-canary-value-0123456789abcdef"})
    work(spike, 200)
    for wrong in (PASSWORD + b" but wrong", b"too short"):
        done = spike.spike("restore", "--password-stdin", "--yes", stdin=wrong, identity=RESTORE)
        assert done.returncode == 1
    spike.kill_nexus()
    spike.drop_client()
    spike.start_nexus()
    spike.restore()
    found = learned(spike.place)
    searched = 0
    for stopped in (False, True):
        if stopped:
            spike.drop_client()
            spike.stop_nexus()
        for path, content in files_below(spike.directory):
            searched += 1
            for name, secret in found.secrets.items():
                for form, pattern in encoded(secret).items():
                    assert pattern not in content, f"{path} holds the {name} in {form}"
            assert b"spike-canary-value" not in content, f"{path} holds a value"
            assert base64.b64encode(b"canary-value")[:-2] not in content, f"{path} holds a value"
    assert searched > 10
    assert not list(spike.directory.rglob("core*"))


def test_a_crash_leaves_no_core_file(spike: Installation) -> None:
    assert spike.nexus is not None
    limits = Path(f"/proc/{spike.nexus.pid}/limits")
    if os.access(limits, os.R_OK):
        core = next(line for line in limits.read_text().splitlines() if "core file" in line)
        assert core.split()[4:6] == ["0", "0"]
    spike.nexus.send_signal(signal.SIGSEGV)
    assert spike.nexus.wait(30) == -signal.SIGSEGV
    assert not list(spike.directory.rglob("core*"))


@pytest.mark.ordinary
def test_another_process_of_the_same_user_cannot_read_nexus_memory(spike: Installation) -> None:
    assert spike.nexus is not None
    with pytest.raises(PermissionError):
        os.open(f"/proc/{spike.nexus.pid}/mem", os.O_RDONLY)
