"""More Keepers are lost than may be, and Nexus with them: a person brings the key back."""

from __future__ import annotations

from spike.pilot.demo.claim import claim, require, require_equal
from spike.pilot.demo.keeper.world import PATH, KeeperWorld
from spike.pilot.demo.keeper_stage import INDEXES, keeper_id
from spike.pilot.demo.ledger import require_all_secrets
from spike.pilot.demo.stage import descendants, is_there, wait_until
from spike.pilot.dev.keeper import CURRENT
from spike.pilot.dev.world import NEXUS_ID

_LOST = (1, 2)
_KEPT = 3
_LOCKED_LIMIT_S = 60.0
_NEW_SHARES_LIMIT_S = 30.0


@claim("Nexus and two of three Keepers are killed at once")
def nexus_and_two_are_killed(world: KeeperWorld) -> None:
    """Kill, and wait until `spike dev` has started them again."""
    lose_nexus_and_two(world)


@claim("`spike status` says what is missing, and nothing is served")
def status_says_what_is_missing(world: KeeperWorld) -> str:
    """Run the command; try to read; ask the Keepers themselves."""
    wait_until(
        lambda: not any(told.fault for told in world.ask().values()),
        _LOCKED_LIMIT_S,
        "the Keepers do not come back",
    )
    code, told = world.stage.status()
    require_equal(code, 3, f"the exit code ({told['summary']})")
    missing = str(told.get("recovery", ""))
    for index in _LOST:
        require(f"Keeper {index}" in missing, f"it does not name Keeper {index}: {missing}")
    require(f"Keeper {_KEPT}" not in missing, f"it names Keeper {_KEPT}: {missing}")
    read = world.stage.run("spike", "secret", "get", PATH)
    require_equal(read.code, 3, "the exit code of a read")
    held = world.ask()
    require_equal([held[index].set_id for index in _LOST], ["", ""], "what the two hold")
    require_equal(held[_KEPT].set_id, world.set_id, "the set of the share that is left")
    return f"spike status says: {missing}"


@claim("the password brings it back, with every secret")
def password_brings_it_back(world: KeeperWorld) -> None:
    """Restore as a person would."""
    ran = world.try_restore(given=world.stage.password)
    require(ran.code == 0, f"the password is refused: {ran.errors.strip()}")
    require_equal(world.stage.state(), "open", "the state of the store")
    require_all_secrets(world.stage, world.acknowledged)


@claim("every Keeper has a share of a new set: the one that was left is worth nothing")
def keepers_get_new_shares(world: KeeperWorld) -> None:
    """Ask the Keepers themselves."""
    wait_for_new_shares(world)


@claim("stopped in order, nothing runs any more: no Keeper either")
def nothing_is_left(world: KeeperWorld) -> None:
    """Stop as Ctrl-C does and look for survivors in /proc."""
    keepers = [world.stage.process_of(keeper_id(index)) for index in INDEXES]
    numbers = descendants(world.stage.number)
    require(set(keepers) <= set(numbers), "the Keepers are no children of spike dev")
    world.stage.stop()
    left = [number for number in numbers if is_there(number)]
    require(not left, f"processes {left} still run")


def lose_nexus_and_two(world: KeeperWorld) -> None:
    """Kill Nexus and as many Keepers that the key cannot come back; wait until they are started again.

    Raises:
        ClaimError: it comes back all the same.
    """
    world.kill(NEXUS_ID, *(keeper_id(index) for index in _LOST))
    served = world.stage.events_until("served", _LOCKED_LIMIT_S)[-1]
    require_equal(served["state"], "locked", "the state of the store")


def wait_for_new_shares(world: KeeperWorld) -> None:
    """Wait until every Keeper, by its own word, holds a share of one set that is not the one before.

    Raises:
        ClaimError: one does not, in time.
    """

    def renewed() -> bool:
        held = world.ask()
        sets = {told.set_id for told in held.values()}
        return len(sets) == 1 and not sets & {"", world.set_id}

    wait_until(renewed, _NEW_SHARES_LIMIT_S, "not every Keeper has a share of one new set")
    held = world.ask()
    require_equal([told.index for told in held.values()], list(INDEXES), "the shares' indexes")
    for index in INDEXES:
        world.wait_for_state(index, CURRENT)
    world.set_id = held[_KEPT].set_id


def restore_early(world: KeeperWorld) -> None:
    """Sabotage: somebody has restored the store before anybody looked."""
    password_brings_it_back.check(world)


def freeze_survivor(world: KeeperWorld) -> None:
    """Sabotage: the Keeper with the share that is left is frozen, so that it keeps its old one."""
    world.freeze(keeper_id(_KEPT))
