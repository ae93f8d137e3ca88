"""The keyring alone is lost, and then a password."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from contextlib import closing

from spike.lifecycle.password import generate
from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.keeper_stage import RECOVER
from spike.pilot.demo.recovery.world import PREFIX, SLOT, RecoveryWorld
from spike.pilot.demo.stage import signal_if_there
from spike.pilot.dev.world import NEXUS_ID

_SECOND = "second"
_LIMIT_S = 60.0


@claim("the keyring alone is lost: nothing is served, and no new store is made over the records")
def keyring_is_lost(world: RecoveryWorld) -> str:
    """Keep the key backup of now and make a newer one; delete the keyring's row while Nexus is dead."""
    shutil.copyfile(world.key_backup(), world.older_backup)
    world.second_password = generate().decode()
    added = world.stage.run_as(
        *(RECOVER, "spike", "backup", "slot", "add", _SECOND, "--password-stdin"),
        given=world.second_password,
    )
    require(added.code == 0, f"no second slot is added: {added.errors.strip()}")
    number = world.stage.number
    os.kill(number, signal.SIGSTOP)
    try:
        world.kill(NEXUS_ID)
        with closing(sqlite3.connect(world.database, timeout=10.0)) as store, store:
            gone = store.execute("DELETE FROM record WHERE kind = 'keyring'").rowcount
        require_equal(gone, 1, "the number of keyrings")
    finally:
        signal_if_there(number, signal.SIGCONT)
    world.stage.wait_for_event("served", _LIMIT_S)
    read = world.stage.run("spike", "secret", "get", f"{PREFIX}/0")
    require_equal(read.code, 3, "the exit code of a read")
    init = world.stage.run("spike", "init", "--password-stdin", given=generate().decode())
    require_equal(init.code, 1, "the exit code of spike init")
    return init.errors.strip().splitlines()[-1].removeprefix("Next: ")


@claim("the newest key backup that the anchors confirm brings it back; an older one is refused")
def newest_backup_is_enough(world: RecoveryWorld) -> str:
    """Bring the older one; bring the one in the backup place; compare every secret."""
    password = world.stage.password
    refused = world.try_restore("--backup", str(world.older_backup), given=password)
    require_equal(refused.code, 1, "the exit code of a restore from the older one")
    require("old" in refused.errors, f"the reason given is: {refused.errors.strip()}")
    began_s = time.monotonic()
    ran = world.try_restore("--backup", str(world.key_backup()), given=password)
    return world.require_back(ran, began_s)


@claim("a password is lost, and all memory with it: another person's slot brings everything back")
def another_slot_is_enough(world: RecoveryWorld) -> str:
    """Kill all of them at once; restore by the second slot."""
    world.lose_memory()
    began_s = time.monotonic()
    ran = world.try_restore("--slot", _SECOND, given=world.second_password)
    return world.require_back(ran, began_s)


@claim(
    "a password is lost while all runs: the recover role sets a new one, and the old one opens nothing"
)
def new_password_is_set(world: RecoveryWorld) -> str:
    """Change it without the old one; open the key backup with each."""
    old, world.stage.password = world.stage.password, generate().decode()
    change = ("spike", "backup", "slot", "change-password", SLOT, "--password-stdin")
    ran = world.stage.run_as(RECOVER, *change, "--no-rotate", given=world.stage.password)
    require(ran.code == 0, f"it is refused: {ran.errors.strip()}")
    verify = ("spike", "backup", "verify", "--password", "--slot", SLOT, "--password-stdin")
    world.stage.run_well(*verify, given=world.stage.password)
    refused = world.stage.run(*verify, given=old)
    require(refused.code != 0, "the old password opens the key backup of now")
    return world.summary()


def put_older_backup(world: RecoveryWorld) -> None:
    """Sabotage: the key backup in the backup place is an older one, while Nexus cannot mend it."""
    shutil.copyfile(world.older_backup, world.key_backup())


def remove_second_slot(world: RecoveryWorld) -> None:
    """Sabotage: the second slot is removed."""
    remove = ("spike", "backup", "slot", "remove", _SECOND, "--yes", "--no-rotate")
    ran = world.stage.run_as(RECOVER, *remove)
    require(ran.code == 0, f"it is refused: {ran.errors.strip()}")
