"""Rotations explored whole: every state that can be reached, and what must hold in each of them.

The number of states is printed, and a test fails when it falls: then something is no longer explored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from model.exploration import Exploration
from model.rotation_exploration import PHASES, explore
from model.rotation_rule import Wish
from model.rotation_world import ALL, Budget, Care, Setting
from size import PROOF, record
from spike.lifecycle.keyring import RotationKind, Scope

FULL, ROOT, DATA = Wish(), Wish(scope=Scope.ROOT_ONLY), Wish(scope=Scope.DATA_ONLY)
BACK = Wish(RotationKind.ROLLBACK)
EMERGENCY = Wish(emergency=True)


@dataclass(frozen=True)
class Scenario:
    """What is explored in `make test` and in `make proof`, and how many states there are at least."""

    name: str
    test: Setting
    least: int
    proof: Setting
    proof_least: int
    ways_out: bool = True


SCENARIOS = (
    Scenario(
        "crashes",
        Setting(Budget(crash=1, wishes=(FULL,))),
        11_894,
        Setting(Budget(crash=2, lost=1, wishes=(FULL,))),
        428_930,
    ),
    Scenario(
        "a rollback and a lost answer",
        Setting(Budget(lost=1, wishes=(FULL, BACK))),
        32_264,
        Setting(Budget(crash=1, lost=1, wishes=(FULL, BACK))),
        618_494,
    ),
    Scenario(
        "a caller who writes",
        Setting(Budget(write=1, wishes=(FULL,))),
        7_969,
        Setting(Budget(write=1, crash=1, wishes=(FULL,)), rows=(0, 1, 2)),
        287_377,
    ),
    Scenario(
        "an abort, and a crash",
        Setting(Budget(abort=1, crash=1, wishes=(ROOT,))),
        9_006,
        Setting(Budget(abort=1, crash=1, wishes=(FULL, BACK))),
        389_506,
    ),
    Scenario(
        "an emergency while records are sealed again",
        Setting(Budget(wishes=(FULL, EMERGENCY))),
        15_597,
        Setting(Budget(write=1, wishes=(FULL, EMERGENCY))),
        154_539,
    ),
    Scenario(
        "a place that fails",
        Setting(Budget(fail=1, wishes=(FULL,))),
        4_786,
        Setting(Budget(fail=1, crash=1, write=1, wishes=(FULL,))),
        553_472,
    ),
    Scenario(
        "a restore by password",
        Setting(Budget(restore=1, crash=1, wishes=(DATA,))),
        15_082,
        Setting(Budget(restore=1, crash=1, wishes=(FULL, BACK))),
        200_766,
    ),
    Scenario(
        "a Nexus that was overtaken",
        Setting(Budget(second=1, write=1, wishes=(DATA,))),
        40_010,
        Setting(Budget(second=1, write=1, wishes=(FULL,))),
        197_860,
    ),
    Scenario(
        "an old store, with a backup place",
        Setting(Budget(put_back=1, write=1, wishes=(ROOT,))),
        111_038,
        Setting(Budget(put_back=1, write=1, wishes=(FULL,))),
        1_066_530,
        ways_out=False,
    ),
    Scenario(
        "an old store, Keepers alone",
        Setting(Budget(put_back=1, write=1, wishes=(ROOT,)), has_place=False),
        35_462,
        Setting(Budget(put_back=1, write=1, wishes=(ROOT, BACK)), has_place=False),
        204_853,
        ways_out=False,
    ),
)


def told(seen: Exploration) -> str:
    """Say what was found, with each step to it."""
    return "\n\n".join(
        "\n  ".join((found.what, *found.trace)) for found in (*seen.found, *seen.stuck)
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_in_every_state_of_a_rotation_the_key_comes_back_and_nothing_is_lost(
    scenario: Scenario,
) -> None:
    setting = scenario.proof if PROOF else scenario.test
    seen = explore(setting, ways_out=scenario.ways_out)
    print(f"{scenario.name}: {seen.states:,} states, {seen.transitions:,} transitions")
    assert not seen.found, told(seen)
    assert not seen.stuck, told(seen)
    assert seen.states >= (scenario.proof_least if PROOF else scenario.least)
    if FULL in setting.budget.wishes:
        assert seen.reached == PHASES, "every phase is passed through"
    record(
        f"model of rotations: {scenario.name}",
        seen.states,
        f"every state and {seen.transitions:,} transitions: no counterexample",
    )


BREAKS = {
    Care.FENCE: Setting(Budget(second=1, write=1, wishes=(DATA,))),
    Care.SWAP: Setting(Budget(write=1, wishes=(DATA,))),
    Care.READ_BACK: Setting(Budget(lost=1, wishes=(ROOT,))),
    Care.PENDING: Setting(Budget(write=1, wishes=(FULL,))),
    Care.RENEWED: Setting(Budget(write=1, wishes=(FULL,))),
    Care.UNSURE: Setting(Budget(lost=1, wishes=(ROOT,))),
    Care.KEEP: Setting(Budget(wishes=(FULL, BACK))),
    Care.GATE: Setting(Budget(put_back=1, write=1, wishes=(ROOT,)), has_place=False),
    Care.PAST: Setting(Budget(put_back=1, write=1, wishes=(ROOT,)), has_place=False),
    Care.UNPROVEN: Setting(Budget(put_back=1, write=1, wishes=(ROOT,))),
    Care.KEPT: Setting(Budget(put_back=1, write=1, wishes=(ROOT, BACK))),
    Care.CLAIM: Setting(Budget(wishes=(ROOT, BACK))),
    Care.CENSUS: Setting(Budget(put_back=1, wishes=(DATA,))),
    Care.PROOF: Setting(Budget(write=1, wishes=(DATA,)), cares=ALL - {Care.FENCE}),
}


@pytest.mark.parametrize("care", Care, ids=lambda care: care.name.lower())
def test_without_one_of_its_cares_the_model_of_rotations_finds_what_goes_wrong(care: Care) -> None:
    setting = BREAKS[care]
    seen = explore(replace(setting, cares=setting.cares - {care}), ways_out=False)
    assert seen.found
    print(told(seen))
