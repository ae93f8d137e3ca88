"""Pilot as its user sees it: every script of script/ (see its README) against a real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot_kit import ShippedNexus, SmallNexus, SomeNexus, site
from script_kit import differences, parse, play
from spike_fork import Run

SCRIPTS = sorted(Path(__file__).with_name("script").glob("*.txt"))
SHIPPED_ALONE = frozenset({"drill"})
"""Scripts of what the small Nexus does not do."""


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        pytest.param(kind, path, id=f"{name}-{path.stem}")
        for kind, name in ((SmallNexus, "small"), (ShippedNexus, "shipped"))
        for path in SCRIPTS
        if kind is ShippedNexus or path.stem not in SHIPPED_ALONE
    ],
)
def test_the_script_is_what_a_user_sees(kind: type[SomeNexus], path: Path) -> None:
    with site(kind()) as made:
        happenings = {
            "lose-memory": made.nexus.lose_memory,
            "copy-store": made.nexus.copy_store,
            "put-old-copy-back": made.nexus.put_old_copy_back,
        }
        assert play(parse(path.read_text()), made, happenings) > 5


def test_pilot_itself_remembers_how_far_a_store_was() -> None:
    # Nexus and its backup places may have forgotten too: then Pilot is the last one to know.
    with site(SmallNexus()) as made:
        password = b"seven otters juggle turnips"
        assert made.spike("superuser", "init", "--password-stdin", stdin=password).exit == 0
        made.nexus.copy_store()
        made.nexus.lose_memory()
        restore = ("restore", "restore", "--password-stdin", "--yes")
        assert made.spike(*restore, stdin=password).exit == 0
        made.nexus.put_old_copy_back()
        run = made.spike(*restore, stdin=password)
        assert run.exit == 1
        assert "is an old copy" in run.stderr
        assert "Pilot saw it at lineage" in run.stderr
        status = made.spike("superuser", "status")
        assert "LOCKED" in status.stdout


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 4


@pytest.mark.parametrize(
    ("run", "wrong"),
    [
        (Run(0, "a 1 b\n", "Error: x\n"), ""),
        (Run(1, "a 1 b\n", "Error: x\n"), "exit 1"),
        (Run(0, "a 1 c\n", "Error: x\n"), "standard output"),
        (Run(0, "a 1 b\nmore\n", "Error: x\n"), "standard output"),
        (Run(0, "", "Error: x\n"), "standard output"),
        (Run(0, "a 1 b\n", "Error: y\n"), "standard error"),
    ],
)
def test_a_script_notices_what_differs(run: Run, wrong: str) -> None:
    step = parse("$ spike x\n1> a […] b\n2> Error: x\n").steps[0]
    assert [wrong in each for each in differences(step, run)] == ([True] if wrong else [])
