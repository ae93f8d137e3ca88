"""Keyring, Keepers and crashes, explored whole: every state that can be reached, and what must hold in each of them.

The number of states is printed, and a test fails when it falls: then something is no longer explored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from model.exploration import Exploration
from model.keeper_exploration import explore
from model.keeper_setting import ALL, Care, Liar, Place, Setting
from model.keeper_world import Budget
from size import PROOF, record


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
        Setting(Budget(crash=2, refresh=1, restore=1)),
        28_790,
        Setting(Budget(crash=2, refresh=1, restore=1), together=True),
        37_706,
    ),
    Scenario(
        "crashes and a lost answer",
        Setting(Budget(crash=1, lost=1, refresh=1, restore=1)),
        25_580,
        Setting(Budget(crash=2, lost=1, refresh=1, restore=1)),
        263_246,
    ),
    Scenario(
        "crashes and a silent Keeper",
        Setting(Budget(crash=1, away=1, refresh=1, restore=1)),
        49_977,
        Setting(Budget(crash=2, away=1, refresh=1, restore=1)),
        590_021,
    ),
    Scenario(
        "crashes, and a place that fails",
        Setting(Budget(crash=1, fail=1, refresh=1, rights=1)),
        19_758,
        Setting(Budget(crash=2, fail=1, refresh=1, rights=1)),
        114_078,
    ),
    Scenario(
        "an old store, with a backup place",
        Setting(Budget(crash=1, put_back=1, refresh=1)),
        17_319,
        Setting(Budget(crash=2, put_back=1, refresh=1, rights=1)),
        1_471_848,
    ),
    Scenario(
        "an old store, Keepers alone",
        Setting(Budget(crash=1, put_back=1, refresh=1, rights=1), place=Place.NONE),
        60_553,
        Setting(Budget(crash=1, lost=1, put_back=1, refresh=1, rights=1), place=Place.NONE),
        538_496,
    ),
    Scenario(
        "an old store, crashes and a lost answer",
        Setting(Budget(crash=1, lost=1, put_back=1), place=Place.NONE),
        1_407,
        Setting(Budget(crash=2, lost=1, put_back=1, refresh=1), place=Place.NONE),
        640_417,
    ),
    Scenario(
        "an old store and a Keeper that says anything",
        Setting(Budget(crash=1, put_back=1, rights=1), liar=Liar.FREELY, sets=2),
        26_811,
        Setting(Budget(crash=1, put_back=1, rights=1, refresh=1), liar=Liar.FREELY, sets=4),
        1_671_712,
        ways_out=False,
    ),
    Scenario(
        "a Keeper that spoils each refresh",
        Setting(Budget(crash=1, restore=1, refresh=1), liar=Liar.SPOILS, sets=4),
        9_411,
        Setting(Budget(crash=2, restore=1, refresh=1), liar=Liar.SPOILS, sets=4),
        107_719,
    ),
    Scenario(
        "a Keeper that says nothing",
        Setting(Budget(crash=1, restore=1, lost=1), liar=Liar.SILENT, sets=4),
        13_657,
        Setting(Budget(crash=2, restore=1, lost=1), liar=Liar.SILENT, sets=4),
        136_395,
    ),
)


def told(seen: Exploration) -> str:
    """Say what was found, with each step to it."""
    return "\n\n".join(
        "\n  ".join((found.what, *found.trace)) for found in (*seen.found, *seen.stuck)
    )


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_in_every_state_the_key_comes_back_and_nothing_old_is_believed(scenario: Scenario) -> None:
    setting = scenario.proof if PROOF else scenario.test
    seen = explore(setting, ways_out=scenario.ways_out)
    print(f"{scenario.name}: {seen.states:,} states, {seen.transitions:,} transitions")
    assert not seen.found, told(seen)
    assert not seen.stuck, told(seen)
    assert seen.states >= (scenario.proof_least if PROOF else scenario.least)
    record(
        f"model of Keepers: {scenario.name}",
        seen.states,
        f"every state and {seen.transitions:,} transitions: no counterexample",
    )


BREAKS = {
    Care.UNANCHORED: Setting(Budget(crash=1, put_back=1, refresh=1)),
    Care.NO_PLACE: Setting(Budget(crash=1, put_back=1, rights=1), place=Place.NONE),
    Care.RIGHTS: Setting(Budget(crash=1, put_back=1, rights=1), place=Place.NONE),
    Care.APART: Setting(Budget(refresh=1)),
    Care.SAME_ANCHOR: Setting(Budget(crash=1, put_back=1, rights=1), place=Place.NONE),
    Care.KEEP: Setting(Budget(refresh=1)),
    Care.OTHERS: Setting(Budget(crash=1, restore=1), liar=Liar.SPOILS, sets=4),
    Care.ANCHOR_TOO: Setting(Budget(crash=2, put_back=1, refresh=1, rights=1), place=Place.NONE),
    Care.INIT_UNSURE: Setting(Budget(lost=1)),
}


@pytest.mark.parametrize("care", Care, ids=lambda care: care.name.lower())
def test_without_one_of_its_cares_the_model_finds_what_goes_wrong(care: Care) -> None:
    seen = explore(replace(BREAKS[care], cares=ALL - {care}))
    assert seen.found or seen.stuck
    print(told(seen))


REMAINS = {
    "the place alone held the anchor, and is lost": Setting(
        Budget(crash=1, put_back=1, rights=1, fail=1)
    ),
    "a Keeper said that it keeps the anchor, and did not": Setting(
        Budget(crash=1, put_back=1, rights=1, away=1), place=Place.NONE, liar=Liar.FREELY, sets=2
    ),
}


@pytest.mark.parametrize("case", REMAINS, ids=str)
def test_what_stays_unnoticed_is_known(case: str) -> None:
    seen = explore(REMAINS[case], ways_out=False)
    assert [found.what for found in seen.found] == ["an old store is believed unattended"]
