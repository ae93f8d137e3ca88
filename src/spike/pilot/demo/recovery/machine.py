"""The machine is lost with its storage; and then all that could bring anything back."""

from __future__ import annotations

import json
import shutil
import time

from spike.lifecycle.password import generate
from spike.pilot.demo import census
from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.ledger import require_all_secrets
from spike.pilot.demo.recovery.world import PREFIX, RecoveryWorld, make_store
from spike.pilot.demo.stage import Stage, descendants, files_below, is_there, wait_until
from spike.pilot.demo.world import SVID_LIFETIME
from spike.pilot.dev.place import DevPlace

_ROTATED_LIMIT_S = 60.0


@claim("a system backup is made while all runs, and is kept elsewhere")
def system_backup_is_made(world: RecoveryWorld) -> str:
    """Run the command; look into the file without a password."""
    world.stage.run_well("spike", "system-backup", "create", str(world.system_backup))
    inspect = ("spike", "system-backup", "inspect", str(world.system_backup), "--format", "json")
    told = json.loads(world.stage.run_well(*inspect))
    world.lineage = str(world.told()["lineage"])
    world.generation = max(census.generations(world.database))
    return f"{told['records']} records in {world.system_backup.stat().st_size} bytes"


@claim(
    "the storage is lost too: the file and the password bring an empty machine up, with every secret"
)
def empty_machine_comes_up(world: RecoveryWorld) -> str:
    """Kill everything and delete the machine's directory; start another, empty one; restore from the file."""
    password = world.stage.password
    world.stage.kill_all()
    shutil.rmtree(world.stage.place.directory)
    world.stage = Stage(DevPlace(world.directory / "new"), SVID_LIFETIME, init=False)
    world.stage.start()
    world.stage.password = password
    require_equal(world.stage.state(), "uninitialized", "the state of the empty machine")
    began_s = time.monotonic()
    ran = world.try_restore("--from", str(world.system_backup), given=password)
    back = world.require_back(ran, began_s)
    require(str(world.told()["lineage"]) != world.lineage, "it is the lineage of before")
    return back


@claim("there the keys are replaced by themselves: the old machine holds the same ones")
def keys_are_replaced(world: RecoveryWorld) -> str:
    """Give no command; wait until no record in the file is under the key it came with."""

    def is_replaced() -> bool:
        # Its exit code tells of a fault, which may mend itself; what ends this is the phase.
        ran = world.stage.run("spike", "key", "status", "--format", "json")
        told = json.loads(ran.output) if ran.output else {}
        return (told.get("rotation") or {}).get("phase") == "verified"

    wait_until(is_replaced, _ROTATED_LIMIT_S, "no rotation is verified")
    found = census.generations(world.database)
    require_equal(sorted(found), [world.generation + 1], "the generations records are under")
    require_all_secrets(world.stage, world.acknowledged)
    return world.summary()


@claim(
    "all of these are lost: the store stays locked, and `spike factory-reset` says first what is lost"
)
def says_what_is_lost(world: RecoveryWorld) -> str:
    """Kill all memory, delete every backup and shard, know no password; only look at the reset."""
    world.lose_memory()
    shutil.rmtree(world.shards)
    world.system_backup.unlink()
    for backup in files_below(world.stage.place.backup):
        backup.unlink()
    tried = world.try_restore(given=generate().decode())
    require_equal(tried.code, 1, "the exit code of a restore by a guessed password")
    before = world.database.read_bytes()
    ran = world.stage.run("spike", "factory-reset", "--dry-run", "--format", "json")
    require(ran.code == 0, f"it is refused: {ran.errors.strip()}")
    told = json.loads(ran.output)
    require_equal(told["state"], "locked", "the state it tells")
    require("LOST for good" in ran.errors, f"it does not say so: {ran.errors.strip()}")
    secrets = told["records"].get("secret-meta", 0)
    require_equal(secrets, len(world.acknowledged), "the number of secrets it tells")
    require(bool(told["phrase"]), "it gives no phrase")
    require(world.database.read_bytes() == before, "looking has changed the store")
    return f"it tells of {secrets} secrets, and wants a phrase typed"


@claim("only the phrase erases it; a new store begins, and the old one's secrets are gone")
def begins_anew(world: RecoveryWorld) -> None:
    """Give a wrong phrase, then the right one; make a store; ask for a secret of before."""
    wrong = world.stage.run("spike", "factory-reset", "--no-backup", "--phrase", "erase it")
    require_equal(wrong.code, 1, "the exit code of a wrong phrase")
    require_equal(world.stage.state(), "locked", "the state of the store after it")
    _erase(world)
    make_store(world.stage)
    gone = world.stage.run("spike", "secret", "get", f"{PREFIX}/0")
    require_equal(gone.code, 1, "the exit code of a read of a secret of before")
    world.stage.run_well("spike", "secret", "put", f"{PREFIX}/0", "password=new")


@claim(
    "`spike status` says that there are two ways back, and ends with code 0; stopped, nothing runs"
)
def all_is_well(world: RecoveryWorld) -> str:
    """Wait until the Keepers hold shares of the new key; run it; stop as Ctrl-C does."""
    world.note_set()
    summary = world.summary()
    numbers = descendants(world.stage.number)
    world.stage.stop()
    left = [number for number in numbers if is_there(number)]
    require(not left, f"processes {left} still run")
    return summary


def damage_file(world: RecoveryWorld) -> None:
    """Sabotage: one byte in the middle of the system backup is another one."""
    content = bytearray(world.system_backup.read_bytes())
    content[len(content) // 2] ^= 1
    world.system_backup.write_bytes(content)


def reset_early(world: RecoveryWorld) -> None:
    """Sabotage: somebody had made a new store before anybody looked at what is lost."""
    _erase(world)
    make_store(world.stage)


def _erase(world: RecoveryWorld) -> None:
    told = json.loads(
        world.stage.run_well("spike", "factory-reset", "--dry-run", "--format", "json")
    )
    world.stage.run_well("spike", "factory-reset", "--no-backup", "--phrase", told["phrase"])
