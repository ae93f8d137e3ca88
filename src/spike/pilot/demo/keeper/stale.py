"""A copy of yesterday's store in the place of today's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.keeper.world import PATH, KeeperWorld
from spike.pilot.demo.keeper_stage import INDEXES
from spike.pilot.demo.ledger import require_all_secrets
from spike.pilot.demo.stage import wait_until
from spike.pilot.dev.world import NEXUS_ID

_POLICY = "since-yesterday"
_KNOW_LIMIT_S = 20.0
_LOCKED_LIMIT_S = 60.0


@claim("a policy made after yesterday's copy is known to every Keeper: their anchors say so")
def keepers_know_of_change(world: KeeperWorld) -> None:
    """Copy store and backup place, make a policy, ask the Keepers how far they saw the store come."""
    with _nexus_is_away(world):
        _copy(world)
    world.wait_until_open()
    before = max(told.access_generation for told in world.ask().values())
    world.stage.run_well(
        *("spike", "policy", "create", "--name", _POLICY, "--permissions", "read"),
        *("--path-pattern", "^shop/", "--spiffeid-pattern", "^spiffe://spike\\.ist/shop$"),
    )
    wait_until(
        lambda: all(told.access_generation > before for told in world.ask().values()),
        _KNOW_LIMIT_S,
        "a Keeper does not hold the anchor of the change",
    )


@claim("yesterday's store and backup place are refused: three Keepers know better")
def old_copy_is_refused(world: KeeperWorld) -> str:
    """Kill Nexus, put the copy in place, let Nexus start on it."""
    place = world.stage.place
    with _nexus_is_away(world):
        for name in _places(world):
            name.rename(world.directory / f"today-{name.name}")
            shutil.copytree(world.old_copy / name.name, name)
    served = world.stage.events_until("served", _LOCKED_LIMIT_S)[-1]
    require_equal(served["state"], "locked", "the state of the old copy")
    code, told = world.stage.status()
    require_equal(code, 3, "the exit code of spike status")
    reason = str(told.get("recovery", ""))
    require("old" in reason, f"the reason given is: {reason}")
    read = world.stage.run("spike", "secret", "get", PATH)
    require_equal(read.code, 3, f"the exit code of a read from {place.store}")
    return f"spike status says: {reason}"


@claim("with today's put back it serves by itself, with every secret and the policy")
def right_store_serves(world: KeeperWorld) -> str:
    """Kill Nexus, put today's in place."""
    with _nexus_is_away(world):
        for name in _places(world):
            shutil.rmtree(name)
            (world.directory / f"today-{name.name}").rename(name)
    took = world.wait_until_open()
    require_all_secrets(world.stage, world.acknowledged)
    policies = world.stage.run_well("spike", "policy", "list")
    require(_POLICY in policies, "the policy is gone")
    require(len(world.ask()) == len(INDEXES), "a Keeper is gone")
    return took


@contextmanager
def _nexus_is_away(world: KeeperWorld) -> Iterator[None]:
    """Kill Nexus and let it be started again only after this."""
    with world.nothing_is_started_again():
        world.kill(NEXUS_ID)
        yield


def _places(world: KeeperWorld) -> tuple[Path, Path]:
    return world.stage.place.store, world.stage.place.backup


def _copy(world: KeeperWorld) -> None:
    shutil.rmtree(world.old_copy, ignore_errors=True)
    for name in _places(world):
        shutil.copytree(name, world.old_copy / name.name)


def copy_again(world: KeeperWorld) -> None:
    """Sabotage: the copy is no older than the store."""
    with _nexus_is_away(world):
        _copy(world)
    world.wait_until_open()
