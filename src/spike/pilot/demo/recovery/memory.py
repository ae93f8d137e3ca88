"""Memory is lost: that of Nexus, of a Keeper, of all of them."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing

from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.keeper_stage import RECOVER, RESUPPLY_LIMIT_S, keeper_id
from spike.pilot.demo.ledger import require_all_secrets
from spike.pilot.demo.recovery.world import PREFIX, SECRETS, RecoveryWorld
from spike.pilot.demo.stage import files_below, wait_until
from spike.pilot.demo.world import RESTORE
from spike.pilot.dev.keeper import THRESHOLD
from spike.pilot.dev.world import NEXUS_ID

_VICTIM = 2


@claim("Nexus restarts: its Keepers bring the key back, and nobody does anything")
def nexus_restarts(world: RecoveryWorld) -> str:
    """Kill it; wait; compare every secret; see that the share set has stayed."""
    require_equal(len(world.acknowledged), SECRETS, "the number of secrets")
    world.kill(NEXUS_ID)
    took = world.wait_until_open()
    require_all_secrets(world.stage, world.acknowledged)
    before = world.set_id
    world.note_set()
    require_equal(world.set_id, before, "the share set")
    return took


@claim("a Keeper restarts: it gets its own share back, and nobody does anything")
def keeper_restarts(world: RecoveryWorld) -> str:
    """Kill it; ask the process that takes its place."""
    world.kill(keeper_id(_VICTIM))
    wait_until(
        lambda: world.ask()[_VICTIM].set_id == world.set_id,
        RESUPPLY_LIMIT_S,
        f"Keeper {_VICTIM} has no share {RESUPPLY_LIMIT_S:.0f} s after it was killed",
    )
    took_s = time.monotonic() - world.killed_s
    require_equal(world.ask()[_VICTIM].index, _VICTIM, "the index of the share it was given")
    world.wait_until_all_hold()
    return f"its share is back {took_s:.1f} s after SIGKILL"


@claim("Nexus and all Keepers are lost: the password brings everything back, with new shares")
def password_is_enough(world: RecoveryWorld) -> str:
    """Kill all of them at once; restore as a person would; compare every secret; ask the Keepers."""
    world.lose_memory()
    began_s = time.monotonic()
    return world.require_back(world.try_restore(given=world.stage.password), began_s)


@claim("Nexus and all Keepers are lost once more: recovery shards bring everything back")
def shards_are_enough(world: RecoveryWorld) -> str:
    """Hand shards out, kill all of them at once, bring as many shards as it takes."""
    command = ("spike", "operator", "recover", "--dir", str(world.shards), "--format", "json")
    handed = world.stage.run_as(RECOVER, *command)
    require(handed.code == 0, f"no shards are handed out: {handed.errors.strip()}")
    require_equal(json.loads(handed.output)["threshold"], THRESHOLD, "how many it takes")
    world.lose_memory()
    few = [word for file in files_below(world.shards)[:THRESHOLD] for word in ("--file", str(file))]
    began_s = time.monotonic()
    ran = world.stage.run_as(RESTORE, "spike", "operator", "restore", "--yes", *few)
    return world.require_back(ran, began_s)


def freeze_two_keepers(world: RecoveryWorld) -> None:
    """Sabotage: two Keepers are frozen, so that one share is left."""
    world.freeze(keeper_id(1), keeper_id(3))


def delete_secret(world: RecoveryWorld) -> None:
    """Sabotage: a storage writer deletes a secret's rows behind Nexus's back."""
    with closing(sqlite3.connect(world.database, timeout=10.0)) as store, store:
        store.execute("DELETE FROM record WHERE key = ?", (f"{PREFIX}/7",))
