"""The rotation is taken back, made again, and finalized."""

from __future__ import annotations

import time

from spike.pilot.demo import census
from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.ledger import require_all_secrets
from spike.pilot.demo.rotation.world import PREFIX, RotationWorld


@claim("it is rolled back: every record is under generation 1 again, and nothing is lost")
def rolled_back(world: RotationWorld) -> str:
    """Run the command; count in the file; read every secret."""
    since = world.requests.answered
    world.key("rollback", "--yes", "--wait", "--reason", "demo")
    told = world.wait_until_ended_or_verified()
    require_equal(told.kind, "rollback", "what has ended")
    world.require_all_under(1)
    world.require_states(root_1="active", record_1="active")
    require_all_secrets(world.stage, world.acknowledged)
    return world.require_served(since)


@claim("it is rotated again, to keys that are new again")
def rotated_again(world: RotationWorld) -> str:
    """Run the command; count in the file."""
    since, began_s = world.requests.answered, time.monotonic()
    world.key("rotate", "--wait", "--reason", "demo, once more")
    took_s = time.monotonic() - began_s
    told = world.rotation()
    require_equal(told.phase, "verified", "the phase")
    world.require_all_under(3)
    world.require_states(root_1="suspended", root_2="destroyed", root_3="active")
    rate = 0 if told.progress is None else told.progress.rate_per_s
    world.figures["rate"] = f"{rate} records a second beside requests, verified in {took_s:.1f} s"
    return f"{world.require_served(since)}; {world.figures['rate']}"


@claim("it is finalized: the old root key and the old record key are destroyed")
def finalized(world: RotationWorld) -> None:
    """Run the command; read the states of the keys; see that it cannot be taken back any more."""
    world.key("finalize", "--yes")
    world.require_states(root_1="destroyed", record_1="destroyed", root_3="active")
    world.require_all_under(3)
    ran = world.stage.run("spike", "key", "rollback", "--yes")
    require_equal(ran.code, 1, "the exit code of a rollback that comes too late")


@claim("the old keys open nothing: whoever kept a key backup and its password reads no record")
def old_keys_open_nothing(world: RotationWorld) -> str:
    """Open the old key backup with its password, and try its keys at each record and at the keyring."""
    told = world.opened_by_old_backup(world.database)
    require_equal(told["generation"], 1, "the generation in the old key backup")
    require(told["records"] > 0, "there is nothing to try at")
    require_equal(told["opened"], 0, f"what it opens of {told['records']} records")
    require(not told["keyring"], "it confirms the keyring in force")
    opened = world.opened_by_old_backup(world.old_store)["opened"]
    return f"0 of {told['records']} records open with it; of the copy from before, all {opened}"


def finalize_early(world: RotationWorld) -> None:
    """Sabotage: somebody has finalized the rotation before it was taken back."""
    world.key("finalize", "--yes")


def keep_old_row(world: RotationWorld) -> None:
    """Sabotage: a storage writer has put a row back as it was before the rotations."""
    name = ("secret-meta", f"{PREFIX}/0", "")
    blob = dict(census.records(world.old_store))[name]
    census.put_back(world.database, name, blob, 1)
