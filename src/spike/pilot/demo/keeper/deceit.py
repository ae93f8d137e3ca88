"""Somebody else answers in the place of a Keeper."""

from __future__ import annotations

from spike.pilot.demo.claim import claim, require_equal
from spike.pilot.demo.keeper.liar import LISTENS
from spike.pilot.demo.keeper.world import KeeperWorld
from spike.pilot.demo.keeper_stage import keeper_id
from spike.pilot.demo.ledger import require_all_secrets
from spike.pilot.demo.stage import wait_until
from spike.pilot.dev.keeper import CURRENT
from spike.pilot.dev.world import NEXUS_ID
from spike.wire.keeper import STAGE

_PLACE = 3
_STRANGER = keeper_id(9)
_OPEN_LIMIT_S = 60.0


@claim("a stranger on a dead Keeper's port is told nothing: he is a Keeper, but not that one")
def stranger_gets_nothing(world: KeeperWorld) -> str:
    """Start a real server with the identity of a Keeper that Nexus does not know."""
    world.replace_by_liar(_PLACE, world.liar_id or _STRANGER)
    detail = world.wait_for_state(_PLACE, "suspect")
    require_equal(world.liar_was_asked(), [LISTENS], "what the stranger was asked")
    return f"spike status says of it: {detail}"


@claim("a Keeper that lies is named: it cannot prove that it holds what it was given")
def liar_is_named(world: KeeperWorld) -> str:
    """Give the stranger the right identity; it takes the share and gives another one."""
    world.replace_by_liar(_PLACE, keeper_id(_PLACE))
    wait_until(
        lambda: STAGE.name in world.liar_was_asked(),
        _OPEN_LIMIT_S,
        "the liar was not given a share, so that it could not lie about it",
    )
    detail = world.wait_for_state(_PLACE, "suspect")
    states = world.states()
    require_equal([states[1], states[2]], [CURRENT, CURRENT], "the state of the other two")
    return f"spike status says of it: {detail}"


@claim("the secrets are served all the same, also after Nexus is killed once more")
def served_despite_liar(world: KeeperWorld) -> str:
    """Read them, kill, read them again; the liar is still named."""
    require_all_secrets(world.stage, world.acknowledged)
    world.kill(NEXUS_ID)
    took = world.wait_until_open()
    require_all_secrets(world.stage, world.acknowledged)
    world.wait_for_state(_PLACE, "suspect")
    return took


@claim("when the true Keeper is back it is given its share again")
def true_keeper_is_back(world: KeeperWorld) -> None:
    """End the liar; `spike dev` has tried to start the Keeper all the time."""
    world.end_liar()
    wait_until(
        lambda: world.ask()[_PLACE].set_id == world.set_id,
        _OPEN_LIMIT_S,
        f"Keeper {_PLACE} does not come back",
    )
    world.wait_for_state(_PLACE, CURRENT)


def steal_identity(world: KeeperWorld) -> None:
    """Sabotage: the stranger has the very identity of the Keeper that it replaces."""
    world.liar_id = keeper_id(_PLACE)


def freeze_neighbour(world: KeeperWorld) -> None:
    """Sabotage: beside the liar one more Keeper is lost."""
    world.freeze(keeper_id(2))
