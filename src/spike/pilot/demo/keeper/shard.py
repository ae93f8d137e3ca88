"""Too much is lost once more, and nobody knows the password: people bring recovery shards."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.keeper.loss import lose_nexus_and_two, wait_for_new_shares
from spike.pilot.demo.keeper.world import PATH, KeeperWorld
from spike.pilot.demo.keeper_stage import RECOVER
from spike.pilot.demo.ledger import require_all_secrets
from spike.pilot.demo.stage import Ran, files_below
from spike.pilot.demo.world import RESTORE
from spike.pilot.dev.keeper import THRESHOLD


@claim("recovery shards are handed out to the recover role alone, one private file each")
def shards_are_handed_out(world: KeeperWorld) -> str:
    """Run the command under both roles, and look at the files."""
    into = _directory(world)
    command = ("spike", "operator", "recover", "--dir", str(into), "--format", "json")
    denied = world.stage.run(*command)
    require_equal(denied.code, 1, "the exit code for the superuser")
    require(not files_below(into), "the superuser got shards")
    ran = world.stage.run_as(RECOVER, *command)
    require(ran.code == 0, f"the recover role is refused: {ran.errors.strip()}")
    told = json.loads(ran.output)
    require_equal([str(file) for file in files_below(into)], told["files"], "the files")
    require_equal(told["threshold"], THRESHOLD, "how many it takes")
    for file in files_below(into):
        require_equal(stat.S_IMODE(file.stat().st_mode), 0o600, f"the mode of {file}")
    return str(world.stage.status()[1]["summary"])


@claim("Nexus and two of three Keepers are killed again, and one shard is not enough")
def one_shard_is_not_enough(world: KeeperWorld) -> None:
    """Kill, bring one shard."""
    lose_nexus_and_two(world)
    ran = _bring(world, files_below(_directory(world))[0])
    require(ran.code != 0, "one shard is accepted as if it were enough")
    require_equal(world.stage.state(), "locked", "the state of the store")
    read = world.stage.run("spike", "secret", "get", PATH)
    require_equal(read.code, 3, "the exit code of a read")


@claim("two shards bring it back, with every secret; a third one that was changed is named")
def shards_bring_it_back(world: KeeperWorld) -> str:
    """Change a character of one, bring it before the others."""
    first, second, third = files_below(_directory(world))
    text = first.read_text(encoding="ascii").rstrip("\n")
    middle = len(text) // 2
    changed = world.directory / "changed-shard"
    changed.touch(mode=0o600)
    changed.write_text(text[:middle] + ("0" if text[middle] != "0" else "1") + text[middle + 1 :])
    ran = _bring(world, changed, second, third)
    require(ran.code == 0, f"the shards are refused: {ran.errors.strip()}")
    named = [line for line in ran.errors.split("\n") if str(changed) in line]
    require(len(named) == 1, f"the changed shard is not named: {ran.errors.strip()}")
    require_equal(world.stage.state(), "open", "the state of the store")
    require_all_secrets(world.stage, world.acknowledged)
    wait_for_new_shares(world)
    return named[0].replace(f"{world.directory}/", "")


def _bring(world: KeeperWorld, *files: Path) -> Ran:
    named = [word for file in files for word in ("--file", str(file))]
    return world.stage.run_as(RESTORE, "spike", "operator", "restore", "--yes", *named)


def _directory(world: KeeperWorld) -> Path:
    return world.directory / "shards"


def hand_out_others(world: KeeperWorld) -> None:
    """Sabotage: other shards have been handed out since, which makes these worth nothing."""
    others = str(world.directory / "other-shards")
    ran = world.stage.run_as(RECOVER, "spike", "operator", "recover", "--yes", "--dir", others)
    require(ran.code == 0, f"the recover role is refused: {ran.errors.strip()}")
