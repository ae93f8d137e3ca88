"""A look at the Keepers in the model: spike.nexus.keeper_desk.KeeperDesk.look. See keeper_model.py."""

from __future__ import annotations

from collections.abc import Iterator

from model import keeper_rule as rule
from model.keeper_change import anchor_judged
from model.keeper_rule import NOTHING
from model.keeper_setting import Care, Setting, Step, spent
from model.keeper_world import (
    ENOUGH,
    OVERTAKEN,
    Keeper,
    Look,
    Nexus,
    World,
    each_keeper,
    what_breaks,
    with_keeper,
    with_keepers,
)
from spike.lifecycle.supply import KeeperState
from spike.lifecycle.supply import Step as Do


def look_begun(world: World, nexus: Nexus) -> Step:
    looks = nexus._replace(
        look=rule.anchor(nexus.document, nexus.access),
        look_document=nexus.document,
        look_access=nexus.access,
        look_held=nexus.held,
        beyond=False,
    )
    keepers = (
        each._replace(look=Look.ASK, seen=each.seen if each.seen == looks.look else NOTHING)
        for each in world.keepers
    )
    return Step("look", with_keepers(world._replace(nexus=looks), keepers))


def look_on(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    if nexus.look == NOTHING:
        return
    if all(each.look is Look.DONE for each in world.keepers):
        yield _judged(world, nexus, setting)
        return
    busy = [each for each in each_keeper(world) if each.look not in {Look.ASK, Look.DONE}]
    asked = [each for each in each_keeper(world) if each.look is Look.ASK]
    for keeper in busy + asked if setting.together else busy or asked:
        if keeper.liar:
            yield from _lied(world, nexus, keeper)
        elif keeper.away:
            yield Step("no answer", with_keeper(world, keeper, keeper._replace(look=Look.DONE)))
        elif keeper.look is Look.ASK:
            yield from _asked(world, nexus, keeper)
        else:
            yield from _acted(world, nexus, keeper)


def _asked(world: World, nexus: Nexus, keeper: Keeper) -> Iterator[Step]:
    holding = rule.keep_anchor(keeper.holding, nexus.look)
    finding = rule.judged(nexus.look_document, holding, nexus.look_held)
    knows = nexus.look_held == rule.in_force(nexus.look_document)
    following = {Do.NOTHING: Look.DONE, Do.SUPPLY: Look.STAGE, Do.COMMIT: Look.COMMIT}
    does = following.get(finding.step, Look.ERASE) if knows else Look.DONE
    arg = rule.staged(holding) if does is Look.ERASE else NOTHING
    kept = rule.anchor_kept(holding)
    beyond = rule.by_anchor(nexus.look_document, nexus.look_access, kept) is not None
    after = keeper._replace(
        holding=holding,
        look=does,
        arg=arg,
        seen=kept if kept == nexus.look else NOTHING,
        lost=keeper.lost and finding.state is not KeeperState.CURRENT,
    )
    looked = world._replace(nexus=nexus._replace(beyond=nexus.beyond or beyond))
    yield Step(
        f"ask: {finding.state}",
        with_keeper(looked, keeper, after),
        broken=what_breaks(world, keeper.holding, holding),
    )
    if world.budget.lost:
        unheard = keeper._replace(holding=holding, look=Look.DONE)
        lost = with_keeper(spent(world, "lost"), keeper, unheard)
        yield Step("ask, answer lost", lost, fair=False)


def _acted(world: World, nexus: Nexus, keeper: Keeper) -> Iterator[Step]:
    share_set = rule.in_force(nexus.look_document)
    done = keeper._replace(look=Look.DONE, arg=NOTHING)
    holding: int | None
    match keeper.look:
        case Look.STAGE:
            # Its value is wiped when Nexus has come to know another set meanwhile.
            known = nexus.held == nexus.look_held
            holding = rule.stage(keeper.holding, share_set) if known else None
            after = keeper._replace(look=Look.COMMIT)
        case Look.COMMIT:
            holding = rule.commit(keeper.holding, share_set, rule.epoch(nexus.look_document))
            after = done
        case _:
            holding = rule.erase(keeper.holding, keeper.arg)
            after = done
    if holding is None:
        yield Step(f"{keeper.look} refused", with_keeper(world, keeper, done))
        return
    after = _seen_again(nexus, after._replace(holding=holding))
    broken = what_breaks(world, keeper.holding, holding)
    yield Step(f"{keeper.look} in a look", with_keeper(world, keeper, after), broken=broken)
    if world.budget.lost:
        lost = with_keeper(spent(world, "lost"), keeper, done._replace(holding=holding))
        yield Step(f"{keeper.look} in a look, answer lost", lost, fair=False, broken=broken)


def _seen_again(nexus: Nexus, keeper: Keeper) -> Keeper:
    """Look a second time after what was done."""
    if keeper.look is not Look.DONE:
        return keeper
    holding = rule.keep_anchor(keeper.holding, nexus.look)
    finding = rule.judged(nexus.look_document, holding, nexus.look_held)
    kept = rule.anchor_kept(holding)
    return keeper._replace(
        holding=holding,
        seen=kept if kept == nexus.look else NOTHING,
        lost=keeper.lost and finding.state is not KeeperState.CURRENT,
    )


def _lied(world: World, nexus: Nexus, keeper: Keeper) -> Iterator[Step]:
    """A lying Keeper takes what it is given, and says that it keeps the anchor, or not."""
    holding = rule.keep_anchor(keeper.holding, nexus.look)
    got = rule.in_force(nexus.look_document)
    told = world._replace(liar_sets=world.liar_sets | ({got} if nexus.look_held == got else set()))
    for seen in (NOTHING, nexus.look):
        after = keeper._replace(holding=holding, look=Look.DONE, seen=seen)
        yield Step("a lie in a look", with_keeper(told, keeper, after))


def _judged(world: World, nexus: Nexus, setting: Setting) -> Step:
    holding = sum(each.seen == nexus.look for each in world.keepers)
    present = rule.anchor(nexus.document, nexus.access) == nexus.look
    after = nexus
    if present or Care.SAME_ANCHOR not in setting.cares:
        after = anchor_judged(nexus._replace(keepers_hold=holding >= ENOUGH), setting)
    if nexus.beyond:
        after = after._replace(stops=after.stops | OVERTAKEN)
    ended = after._replace(
        look=NOTHING, look_document=NOTHING, look_access=0, look_held=NOTHING, beyond=False
    )
    keepers = (each._replace(look=Look.NONE) for each in world.keepers)
    return Step("judge", with_keepers(world._replace(nexus=ended), keepers))
