"""SIGKILL at random moments under load: nothing acknowledged is lost, and the key comes back."""

from __future__ import annotations

import random
from pathlib import Path

from load_kit import Load
from process_kit import Installation
from size import record, seed, size


def test_the_password_brings_back_all_when_nexus_is_killed_under_load(tmp_path: Path) -> None:
    chosen, rounds = seed(), size(test=5, proof=50)
    print("seed", chosen)
    chance, load = random.Random(chosen), Load()
    with Installation(tmp_path) as spike:
        spike.init()
        for _ in range(rounds):
            writers = load.until_lost(spike, chance)
            spike.start_nexus()
            spike.restore()
            load.require_all(spike, writers)
        assert spike.client.get_status().epoch == rounds + 1
        told = f"{load.writes} acknowledged writes, none lost"
        record("SIGKILL of Nexus under load", rounds, told, seed=chosen)


def test_nexus_comes_back_by_itself_when_it_is_killed_under_load(tmp_path: Path) -> None:
    chosen, rounds = seed(), size(test=5, proof=50)
    print("seed", chosen)
    chance, load = random.Random(chosen), Load()
    with Installation(tmp_path, keepers=3) as spike:
        spike.init()
        for _ in range(rounds):
            writers = load.until_lost(spike, chance)
            spike.start_nexus()
            spike.wait_until_open()
            load.require_all(spike, writers)
        status = spike.client.get_status()
        assert status.epoch == 1, "a plain restart is no change of keys"
        told = f"{load.writes} acknowledged writes, none lost; no person"
        record("SIGKILL of Nexus under load, with Keepers", rounds, told, seed=chosen)


def test_keepers_killed_one_after_the_other_have_their_shares_back(tmp_path: Path) -> None:
    chosen, rounds = seed(), size(test=3, proof=30)
    print("seed", chosen)
    chance = random.Random(chosen)
    with Installation(tmp_path, keepers=3, SPIKE_NEXUS_KEEPER_UPDATE_INTERVAL="200ms") as spike:
        spike.init()
        spike.client.put_secret("a", {"n": "0"})

        for number in range(rounds):
            index = chance.randrange(1, 4)
            if chance.random() < 0.5:
                spike.lose_keeper(index)
            else:
                spike.kill_keeper(index)
                spike.kill_nexus()
                spike.drop_client()
                spike.start_nexus()
                spike.wait_until_open()
            spike.start_keeper(index)
            spike.wait_for_keepers(1, 2, 3)
            assert spike.client.get_secret("a") == {"n": str(number)}
            spike.client.put_secret("a", {"n": str(number + 1)})
        record("SIGKILL of a Keeper, with and without Nexus", rounds, "supplied again", seed=chosen)
