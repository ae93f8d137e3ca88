"""Who holds shares, and how a Keeper that lost its share gets it again."""

from __future__ import annotations

import time

from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.keeper.world import KeeperWorld
from spike.pilot.demo.keeper_stage import INDEXES, RESUPPLY_LIMIT_S, keeper_id
from spike.pilot.demo.stage import is_there, wait_until
from spike.pilot.dev.keeper import CURRENT, THRESHOLD
from spike.pilot.dev.world import NEXUS_ID

_VICTIM = 2


@claim("three Keepers, each a process with an identity of its own, hold shares of one set")
def keepers_hold_shares(world: KeeperWorld) -> None:
    """Look at processes and identities; ask the Keepers themselves under the identity of Nexus."""
    numbers = {world.stage.process_of(keeper_id(index)) for index in INDEXES}
    require_equal(len(numbers), len(INDEXES), "the number of processes")
    require(all(is_there(number) for number in numbers), "a Keeper does not run")
    world.wait_until_all_hold()
    held = world.ask()
    require_equal(len({told.set_id for told in held.values()}), 1, "the number of sets")
    require_equal([told.index for told in held.values()], list(INDEXES), "the shares' indexes")
    require_equal({told.threshold for told in held.values()}, {THRESHOLD}, "the threshold")
    world.set_id = held[1].set_id


@claim("`spike status` names them as one of two independent ways back, and ends with code 0")
def two_ways(world: KeeperWorld) -> str:
    """Run the command."""
    code, told = world.stage.status()
    require_equal(code, 0, f"the exit code ({told['summary']})")
    require_equal(len(told["ways"]), 2, "the number of ways")
    require_equal(told["keeperMargin"], 1, "the margin")
    return str(told["summary"])


@claim("a Keeper is killed: started again with nothing, it has its own share back within 10 s")
def keeper_has_its_share_back(world: KeeperWorld) -> str:
    """Kill it, and ask the process that takes its place."""
    old, nexus = world.stage.process_of(keeper_id(_VICTIM)), world.stage.process_of(NEXUS_ID)
    world.kill(keeper_id(_VICTIM))
    wait_until(
        lambda: world.ask()[_VICTIM].set_id == world.set_id,
        RESUPPLY_LIMIT_S,
        f"Keeper {_VICTIM} has no share {RESUPPLY_LIMIT_S:.0f} s after it was killed",
    )
    took_s = time.monotonic() - world.killed_s
    require_equal(world.ask()[_VICTIM].index, _VICTIM, "the index of the share it was given")
    require(world.stage.process_of(keeper_id(_VICTIM)) != old, "it is still the same process")
    require_equal(world.stage.process_of(NEXUS_ID), nexus, "the process of Nexus")
    require_equal(world.states()[_VICTIM], CURRENT, "its state in spike status")
    return f"its share is back {took_s:.1f} s after SIGKILL"


def freeze_two(world: KeeperWorld) -> None:
    """Sabotage: two Keepers are frozen, and Nexus has noticed it."""
    world.freeze(keeper_id(2), keeper_id(3))
    for index in (2, 3):
        world.wait_for_state(index, "unreachable")


def freeze_nexus(world: KeeperWorld) -> None:
    """Sabotage: Nexus is frozen and supplies nobody."""
    world.freeze(NEXUS_ID)
