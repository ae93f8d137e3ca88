"""A rotation under load, and Nexus killed in the middle of it."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from contextlib import closing

from spike.client.nexus import NexusClient
from spike.pilot.demo import census
from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.keeper_stage import keeper_id
from spike.pilot.demo.ledger import require_all_secrets
from spike.pilot.demo.rotation.traffic import PREFIX as TRAFFIC
from spike.pilot.demo.rotation.world import PREFIX, SECRETS, RotationWorld
from spike.pilot.demo.stage import wait_until
from spike.pilot.dev.world import NEXUS_ID

# Slow enough that a kill comes in the middle; quick enough that nobody waits long for the rest.
MAX_RATE = 400
_LEAST_DONE = 400
_LEAST_LEFT = 400
_REQUESTS_FIRST = 50
_LIMIT_S = 30.0


@claim("a thousand secrets are stored: every record in the file is under generation 1")
def records_are_under_the_first(world: RotationWorld) -> str:
    """Read the generations from the blobs; see that the key backup of now opens all of them."""
    count = world.require_all_under(1)
    require(count >= 2 * SECRETS, f"there are {count} records of {SECRETS} secrets")
    shutil.copyfile(world.key_backup(), world.old_backup)
    with (
        closing(sqlite3.connect(world.database)) as source,
        closing(sqlite3.connect(world.old_store)) as target,
    ):
        source.backup(target)
    told = world.opened_by_old_backup(world.old_store)
    require_equal(told["opened"], told["records"], "what the key backup of now opens")
    require(told["keyring"], "it does not confirm the keyring")
    return f"{count} records; a copy of the key backup opens each of them"


@claim("requests write and read all the time, and a rotation begins beside them")
def rotation_begins(world: RotationWorld) -> str:
    """Start the requests; look first whether it could begin, then let it."""
    world.requests.start()
    wait_until(
        lambda: world.requests.answered > _REQUESTS_FIRST, _LIMIT_S, "no requests are answered"
    )
    world.key("rotate", "--dry-run")
    begun = json.loads(
        world.key("rotate", *("--max-rate", str(MAX_RATE)), "--reason", "demo", "--format", "json")
    )
    world.rotation_id = str(begun["id"])
    return f"rotation {world.rotation_id}, at most {MAX_RATE} records a second"


@claim("Nexus is killed while it re-encrypts: records of both generations are in the file")
def nexus_is_killed(world: RotationWorld) -> str:
    """Wait for the middle, kill with SIGKILL, and count."""
    wait_for_middle(world)
    world.requests.outage_begins()
    world.kill(NEXUS_ID)
    world.at_kill = census.generations(world.database)
    done, left = world.at_kill[2], world.at_kill[1]
    require_equal(sorted(world.at_kill), [1, 2], "the generations in the file")
    require(done >= _LEAST_DONE and left > 0, f"{done} are re-encrypted and {left} are not")
    return f"{done} records are under generation 2, {left} still under generation 1"


@claim("its Keepers bring it back, and the rotation goes on by itself")
def resumes_by_itself(world: RotationWorld) -> str:
    """Give no command; wait for the store, and for the file to show that more is done."""
    took = world.wait_until_open()
    world.requests.outage_ends()
    began_s = time.monotonic()
    world.wait_for(
        lambda _: census.generations(world.database)[1] < world.at_kill[1],
        "nothing more is re-encrypted",
    )
    require_equal(world.rotation().id, world.rotation_id, "the rotation that goes on")
    world.figures["back"] = took
    return f"{took}; it went on {time.monotonic() - began_s:.1f} s later"


@claim("it is verified: no record in the file is under a key that was replaced")
def rotation_is_verified(world: RotationWorld) -> str:
    """Wait as `spike key watch` does; count in the file, add up what Nexus tells."""
    world.wait_for(lambda now: now.phase == "verified", "it is not verified")
    world.key("watch")
    count = world.require_all_under(2)
    told = world.rotation()
    walk = told.progress
    require(walk is not None, "it tells of no progress")
    assert walk is not None
    parts = walk.re_encrypted + walk.already_current + walk.skipped + walk.vanished + walk.failed
    require_equal(parts, walk.scanned, "the sum of what became of the records")
    require_equal(walk.skipped + walk.failed, 0, "the number that was skipped or failed")
    world.require_states(root_1="suspended", root_2="active", record_2="active")
    world.figures["records"] = f"{count} records, {walk.re_encrypted} of them re-encrypted"
    return world.figures["records"]


@claim("no request failed but while Nexus was dead, every value was right, every secret is there")
def nobody_noticed(world: RotationWorld) -> str:
    """Look at what the requests met, and read every secret that was acknowledged."""
    require_all_secrets(world.stage, world.acknowledged)
    return f"{world.require_served(0)}; {world.requests.lost} met a dead Nexus"


def wait_for_middle(world: RotationWorld) -> None:
    """Wait until a rotation has re-encrypted many records and has many left.

    Raises:
        ClaimError: it does not come to that.
    """

    def is_there() -> bool:
        found = census.generations(world.database)
        require(found[2] == 0 or found[1] > _LEAST_LEFT, "too few records are left")
        return found[2] >= _LEAST_DONE

    wait_until(is_there, _LIMIT_S, "nothing is re-encrypted")


def freeze_keeper(world: RotationWorld) -> None:
    """Sabotage: a Keeper is frozen, and Nexus has noticed it."""
    world.freeze(keeper_id(3))
    world.wait_for_state(3, "unreachable")


def freeze_two_at_once(world: RotationWorld) -> None:
    """Sabotage: two Keepers are frozen, so that one share is left."""
    wait_for_middle(world)
    world.freeze(keeper_id(1), keeper_id(2))


def put_back_behind(world: RotationWorld) -> None:
    """Sabotage: a storage writer puts a row back as it was before the rotation, where the walk has been."""
    wanted = ("secret-meta", f"{PREFIX}/0", "")
    blob = dict(census.records(world.old_store))[wanted]

    def is_behind() -> bool:
        return dict(census.records(world.database))[wanted] != blob

    wait_until(is_behind, _LIMIT_S, "the walk does not come to it")
    census.put_back(world.database, wanted, blob, 1)


def meddle(world: RotationWorld) -> None:
    """Sabotage: somebody else writes where the requests write, so that they read what they did not write."""
    with NexusClient.from_environment(world.stage.environment) as nexus:

        def was_read() -> bool:
            for worker in range(3):
                for n in range(10):
                    nexus.put_secret(f"{TRAFFIC}/{worker}/{n}", {"password": "another"})
            return bool(world.requests.wrong)

        wait_until(was_read, _LIMIT_S, "nobody reads it")
