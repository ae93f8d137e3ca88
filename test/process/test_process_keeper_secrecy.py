"""What can be found of keys and shares from outside once Keepers hold shares: in memory, and in every file.

The root key is learned as Nexus learns it: from a threshold of Keepers, under a Nexus identity.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from lifecycle_kit import copy_of
from memory_scan import find_in_process, patterns_of
from process_kit import BIN, NEXUS, Installation
from size import record, size
from spike.crypto.shamir import interpolate
from spike.lifecycle import backup
from spike.lifecycle.refresh import set_in_force
from spike.lifecycle.ring import KeyRing
from spike.memory.key_memory import KeyMemory

PROBE = Path(__file__).resolve().parent.parent / "share_probe.py"


@pytest.fixture
def spike(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path, keepers=3, SPIKE_NEXUS_KEEPER_UPDATE_INTERVAL="200ms") as started:
        started.init()
        yield started


def held_by(raw: bytes) -> KeyMemory:
    memory = KeyMemory.allocate(len(raw))
    with memory.view() as view:
        view[:] = raw
    return memory


def in_force_of(spike: Installation) -> str:
    """Return the id of the share set in force."""
    (path,) = spike.place.glob("*.key-backup")
    in_force = set_in_force(backup.decode_untrusted(path.read_bytes()).keyring.hint)
    assert in_force is not None
    return in_force.id


def shares_of(spike: Installation) -> list[bytes]:
    """Return what each Keeper holds of the set in force."""
    ports = [str(port) for port in spike.keeper_port.values()]
    command = [sys.executable, str(PROBE), in_force_of(spike), *ports]
    done = subprocess.run(
        [str(BIN / "spike-authority"), "run", "--id", NEXUS, "--", *command],
        capture_output=True,
        env=dict(spike.environment),
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [bytes.fromhex(line) for line in done.stdout.split()]


def keys_of(spike: Installation, shares: list[bytes]) -> Mapping[str, bytes]:
    """Return the root key, from the first two shares, and what it unwraps."""
    (path,) = spike.place.glob("*.key-backup")
    held = backup.decode_untrusted(path.read_bytes())
    root = interpolate({1: held_by(shares[0]), 2: held_by(shares[1])})
    document = held.confirmed_by(root)
    assert document is not None
    ring = KeyRing.open(document, copy_of(root))
    found = {
        "root key": copied(root),
        "record key": copied(ring.active_record.key),
        "cipher key": copied(ring.active_cipher.key),
    }
    ring.wipe()
    return found


def copied(key: KeyMemory) -> bytes:
    with key.view() as view:
        return bytes(view)


def patterns(secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    return {
        f"{name}, {form}": pattern
        for name, secret in secrets.items()
        for form, pattern in patterns_of(secret).items()
    }


@pytest.mark.root
def test_no_key_is_in_nexus_memory_after_a_recovery_and_a_refresh(spike: Installation) -> None:
    found = patterns(keys_of(spike, shares_of(spike)))
    rounds = size(test=2, proof=20)
    for _ in range(rounds):
        spike.kill_nexus()
        spike.drop_client()
        spike.start_nexus()
        spike.wait_until_open()
        spike.client.refresh_keepers()
        assert spike.nexus is not None
        assert find_in_process(spike.nexus.pid, found) == []
    record("memory searched after a recovery from Keepers", rounds, "no key outside locked pages")


@pytest.mark.root
def test_no_key_is_in_nexus_memory_after_a_rehearsal_and_a_drill(spike: Installation) -> None:
    found = patterns(keys_of(spike, shares_of(spike)))
    rounds = size(test=1, proof=20)
    assert spike.nexus is not None
    for _ in range(rounds):
        assert spike.client.rehearse().outcome == "succeeded"
        spike.client.begin_drill(full=True)
        while (told := spike.client.get_drills().last) is not None and told.outcome == "running":
            time.sleep(0.01)
        assert told is not None
        assert told.outcome == "succeeded", told
        assert find_in_process(spike.nexus.pid, found) == []
        tasks = Path(f"/proc/{spike.nexus.pid}/task").glob("*/children")
        assert not any(task.read_text() for task in tasks), "the child of a drill is still there"
    record("memory searched after a rehearsal and a drill", rounds, "no key outside locked pages")


@pytest.mark.root
def test_no_keeper_has_the_root_key_or_the_share_of_another_in_its_memory(
    spike: Installation,
) -> None:
    spike.client.refresh_keepers()
    spike.kill_nexus()
    spike.drop_client()
    spike.start_nexus()
    spike.wait_until_open()
    shares = shares_of(spike)
    keys = keys_of(spike, shares)
    for index, process in spike.keeper.items():
        others = {f"share {n}": s for n, s in enumerate(shares, start=1) if n != index}
        assert find_in_process(process.pid, patterns({**keys, **others}), locked=True) == []
        # The search does find what is there: the id of the set stands beside the share.
        set_id = {"set": in_force_of(spike).encode()}
        assert find_in_process(process.pid, set_id)
    record("memory of Keepers searched", len(spike.keeper), "its own share and nothing else")


def test_no_file_holds_a_share_or_a_key(spike: Installation) -> None:
    """Requirement K3, with Keepers: they have no disk, and nobody else writes a share down."""
    before = shares_of(spike)
    spike.client.refresh_keepers()
    for index in spike.keeper:
        spike.lose_keeper(index)
        spike.start_keeper(index)
        spike.wait_for_keepers()
    after = shares_of(spike)
    assert not set(before) & set(after)
    secrets = {f"share {number}": share for number, share in enumerate(before + after)}
    secrets |= keys_of(spike, after)
    searched = 0
    for path in sorted(spike.directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            searched += 1
            content = path.read_bytes()
            for name, pattern in patterns(secrets).items():
                assert pattern not in content, f"{path} holds {name}"
    assert searched > 10
