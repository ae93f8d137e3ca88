"""Nexus is killed, and comes back by itself."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from spike.pilot.demo.claim import claim, require
from spike.pilot.demo.keeper.world import KeeperWorld
from spike.pilot.demo.keeper_stage import keeper_id
from spike.pilot.demo.ledger import Writer, require_all_secrets
from spike.pilot.demo.stage import is_there
from spike.pilot.dev.world import NEXUS_ID

_PREFIX = "shop/order"


@claim("Nexus is killed in the middle of writing")
def nexus_is_killed(world: KeeperWorld) -> str:
    """Write, note what was acknowledged, kill with SIGKILL."""
    writer = Writer(world.stage, _PREFIX, world.acknowledged)
    writer.start()
    world.kill(NEXUS_ID)
    return f"{writer.join()} writes had been acknowledged"


@claim("it serves again by itself: nobody gave a password")
def comes_back_by_itself(world: KeeperWorld) -> str:
    """Wait for an answer from outside, and read what `spike dev` told meanwhile."""
    took = world.wait_until_open()
    require(is_there(world.stage.process_of(NEXUS_ID)), "no process is Nexus")
    return took


@claim("every secret that was acknowledged before is there")
def every_secret_is_there(world: KeeperWorld) -> None:
    """Compare each value with what was written."""
    require_all_secrets(world.stage, world.acknowledged)


def freeze_two_at_once(world: KeeperWorld) -> None:
    """Sabotage: two Keepers are frozen, so that one share is left."""
    world.freeze(keeper_id(1), keeper_id(2))


def lose_order(world: KeeperWorld) -> None:
    """Sabotage: a storage writer deletes a secret's rows behind Nexus's back."""
    store = world.stage.place.store / "store.sqlite"
    with closing(sqlite3.connect(store, timeout=10.0)) as connection, connection:
        connection.execute("DELETE FROM record WHERE key = ?", (f"{_PREFIX}/7",))
