"""What is left of the keys that fell away: looked for in every process and file, and tried on all that is stored.

The keys are learned before they fall away, from Keepers under a Nexus identity. Nexus runs with key memory that can be
read from outside, so that nothing found in its locked pages means that it is gone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from memory_scan import find_in_process
from process_kit import Installation, eventually
from rotating_process_kit import (
    Row,
    generations_in_file,
    is_over,
    sealed_rows,
    stored_keyring,
    until,
    wait_until,
)
from secrecy_kit import Learned, children_of, files_with, learned, opened_by, patterns
from size import record, size
from spike.nexus.reencryption import CHILD_FROM
from spike.wire.rotation import KeyRotateRequest

READABLE = Path(__file__).parent.parent / "readable_nexus.py"
UNHURRIED = 1_000
"""Records a second: slow enough to be looked at."""


@dataclass(frozen=True)
class Fell:
    """The keys that fell away with the records of that time, and those in force."""

    gone: Learned
    rows: Sequence[Row]
    present: Learned


Watch = Callable[[Installation, Learned], None]
Way = Callable[[Installation, Watch], tuple[Learned, Sequence[Row]]]


def finalized(spike: Installation, watch: Watch) -> tuple[Learned, Sequence[Row]]:
    """Rotate and finalize; the keys of before fall away."""
    gone, rows = learned(spike), sealed_rows(spike)
    spike.client.start_rotation(KeyRotateRequest(window_s=3600, max_rate=UNHURRIED))
    watch(spike, gone)
    until(spike, "verified")
    spike.client.finalize_rotation()
    return gone, rows


def rolled_back(spike: Installation, watch: Watch) -> tuple[Learned, Sequence[Row]]:
    """Rotate and roll back; the keys of between fall away."""
    spike.client.start_rotation(KeyRotateRequest(window_s=3600, max_rate=UNHURRIED))
    until(spike, "verified")
    spike.wait_for_keepers()
    gone, rows = learned(spike), sealed_rows(spike)
    spike.client.rollback_rotation("a test")
    watch(spike, gone)
    return gone, rows


def replaced_at_once(spike: Installation, watch: Watch) -> tuple[Learned, Sequence[Row]]:
    """Replace a root key that leaked; it falls away."""
    gone, rows = learned(spike), sealed_rows(spike)
    spike.client.start_rotation(
        KeyRotateRequest(leaked=["root"], reason="a test", max_rate=UNHURRIED)
    )
    watch(spike, gone)
    return gone, rows


WAYS = {"rotation": finalized, "rollback": rolled_back, "emergency": replaced_at_once}


def nothing(_spike: Installation, _gone: Learned) -> None:
    """Look at nothing meanwhile."""


def let_fall(spike: Installation, way: Way, watch: Watch = nothing) -> Fell:
    """Go a way to its end."""
    gone, rows = way(spike, watch)
    wait_until(spike, "it is over", is_over)
    spike.wait_for_keepers()
    eventually("nothing is pending", lambda: not list(spike.place.glob("*.pending")))
    return Fell(gone, rows, learned(spike))


@pytest.fixture
def spike(tmp_path: Path) -> Iterator[Installation]:
    with Installation(tmp_path, keepers=3) as started:
        started.init()
        yield started


@pytest.mark.parametrize("name", WAYS)
def test_keys_that_fell_away_are_in_no_file_and_open_nothing(
    spike: Installation, name: str
) -> None:
    """Requirement K3."""
    for number in range(30):
        spike.client.put_secret(f"a/{number}", {"k": str(number)})
    fell = let_fall(spike, WAYS[name])
    rows = sealed_rows(spike)
    assert generations_in_file(spike) == {fell.present.generation}
    assert fell.gone.generation != fell.present.generation
    # What shows nothing with the old keys does show something with those in force.
    assert len(opened_by(spike, fell.present, rows)) > len(rows)
    assert opened_by(spike, fell.gone, rows) == []
    hint = stored_keyring(spike).hint
    active = hint.active_root.number
    assert {sealed.generation for slot in hint.slots for sealed in slot.roots} == {active}
    secrets = {**fell.gone.keys("old"), **fell.gone.held_shares("old")}
    secrets |= {**fell.present.keys("new"), **fell.present.held_shares("new")}
    assert files_with(spike.directory, patterns(secrets)) == []
    # A part from the middle of each old ciphertext: salt and commitment alone would already be a trace.
    old = {f"{row.kind} {row.key} as it was": row.blob[6:38] for row in fell.rows}
    assert files_with(spike.directory, old) == []
    spike.client.put_secret("a/new", {"k": "v"})
    assert spike.client.get_secret("a/7") == {"k": "7"}


@pytest.mark.root
@pytest.mark.parametrize("name", WAYS)
def test_keys_that_fell_away_are_in_no_process(tmp_path: Path, name: str) -> None:
    """Requirement K4: Nexus, its child while it works and afterwards, Keepers."""
    children: list[int] = []

    def look(spike: Installation, gone: Learned) -> None:
        """Find the re-encryption at work: both keys are there, in locked pages alone."""
        assert spike.nexus is not None
        pid = spike.nexus.pid
        until(spike, "re-encrypting")
        eventually("the child works", lambda: bool(children_of(pid)))
        spike.client.pause_rotation()
        children.extend(children_of(pid))
        for each in (pid, *children_of(pid)):
            assert find_in_process(each, patterns(gone.keys("old"))) == []
        assert find_in_process(pid, {"old": gone.record}, locked=True)
        spike.client.resume_rotation()

    rounds = size(test=1, proof=2)
    with Installation(tmp_path, keepers=3) as spike:
        spike.stop_nexus()
        spike.nexus_command = [sys.executable, str(READABLE)]
        spike.start_nexus()
        spike.init()
        for number in range(CHILD_FROM * 2 // 3):
            spike.client.put_secret(f"a/{number}", {"k": str(number)})
        assert spike.nexus is not None
        for _ in range(rounds):
            fell = let_fall(spike, WAYS[name], look)
            gone = {**fell.gone.keys("old"), **fell.gone.held_shares("old")}
            pid = spike.nexus.pid
            assert find_in_process(pid, patterns(gone), locked=True) == []
            for process in spike.keeper.values():
                keys = {**gone, **fell.present.keys("new")}
                assert find_in_process(process.pid, patterns(keys), locked=True) == []
            # The search does find what is there, and where it may be alone.
            assert find_in_process(pid, {"new": fell.present.root}, locked=True)
            assert find_in_process(pid, patterns(fell.present.keys("new"))) == []
            assert not children_of(pid)
            assert children
            assert not any(Path(f"/proc/{child}").exists() for child in children)
    record(f"memory searched after a {name}", rounds, "no old key in any process")
