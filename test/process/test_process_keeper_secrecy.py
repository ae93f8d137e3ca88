"""What can be found of keys and shares from outside once Keepers hold shares: in memory, and in every file.

The root key is learned as Nexus learns it: from a threshold of Keepers, under a Nexus identity.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from memory_scan import find_in_process
from process_kit import Installation
from secrecy_kit import Learned, files_with, learned, patterns
from size import record, size


@pytest.fixture
def spike(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path, keepers=3, SPIKE_NEXUS_KEEPER_UPDATE_INTERVAL="200ms") as started:
        started.init()
        yield started


def keys_of(found: Learned) -> Mapping[str, bytes]:
    return {"root key": found.root, "record key": found.record, "cipher key": found.cipher}


@pytest.mark.root
def test_no_key_is_in_nexus_memory_after_a_recovery_and_a_refresh(spike: Installation) -> None:
    found = patterns(keys_of(learned(spike)))
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
    found = patterns(keys_of(learned(spike)))
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
    found = learned(spike)
    shares, keys = found.shares, keys_of(found)
    for index, process in spike.keeper.items():
        others = {f"share {n}": s for n, s in enumerate(shares, start=1) if n != index}
        assert find_in_process(process.pid, patterns({**keys, **others}), locked=True) == []
        # The search does find what is there: the id of the set stands beside the share.
        set_id = {"set": found.set_id.encode()}
        assert find_in_process(process.pid, set_id)
    record("memory of Keepers searched", len(spike.keeper), "its own share and nothing else")


def test_no_file_holds_a_share_or_a_key(spike: Installation) -> None:
    """Requirement K3, with Keepers: they have no disk, and nobody else writes a share down."""
    before = learned(spike).shares
    spike.client.refresh_keepers()
    for index in spike.keeper:
        spike.lose_keeper(index)
        spike.start_keeper(index)
        spike.wait_for_keepers()
    found = learned(spike)
    after = found.shares
    assert not set(before) & set(after)
    secrets = {f"share {number}": share for number, share in enumerate(before + after)}
    secrets |= keys_of(found)
    assert files_with(spike.directory, patterns(secrets)) == []
