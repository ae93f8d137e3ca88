"""Changes of keys in the model: delivery of shares, the keyring's replacement, anchors. See keeper_model.py."""

from __future__ import annotations

from collections.abc import Iterator

from model import keeper_rule as rule
from model.keeper_rule import KEEPERS, NOTHING, THRESHOLD
from model.keeper_setting import Care, Liar, Place, Setting, Step, spent
from model.keeper_world import (
    NO_ANCHOR,
    OVERTAKEN,
    UNSURE,
    Job,
    Keeper,
    Nexus,
    Task,
    World,
    each_keeper,
    what_breaks,
    with_keeper,
    with_keepers,
)
from spike.lifecycle.supply import KeeperState


def change(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    match nexus.task:
        case Task.DELIVER | Task.READ_BACK:
            yield from delivery(world, nexus, Task.FINISH, Task.DROP, setting)
        case Task.FINISH:
            yield from swapped(world, nexus, rule.finished(nexus.document), Task.RENEW, setting)
        case Task.DROP:
            yield from swapped(world, nexus, rule.dropped(nexus.document), Task.WITHDRAW, setting)
        case Task.WITHDRAW:
            yield from withdrawn(world, nexus)
        case Task.RENEW:
            held = nexus.new or nexus.held
            ended = nexus._replace(task=Task.NONE, held=held, new=NOTHING)
            yield Step("renew the place", renewed(world, ended, setting))


def delivery(
    world: World, nexus: Nexus, then: Task, else_: Task, setting: Setting | None = None
) -> Iterator[Step]:
    """Stage on each Keeper, read all back (spike.nexus.keeper_refresh.deliver)."""
    if nexus.task is Task.READ_BACK:
        staged = [each for each in world.keepers if each.job is Job.STAGED]
        good = all(
            not each.away and (each.liar or rule.holds(each.holding, nexus.new)) for each in staged
        )
        liars = any(each.liar for each in staged)
        if good and not (liars and _lies(setting, Liar.SPOILS)):
            anchored = _anchored(world, nexus, setting)
            yield Step("read back", anchored._replace(nexus=nexus._replace(task=then)))
        if not good or (liars and _lies(setting, Liar.SPOILS, Liar.FREELY)):
            yield Step("not read back", world._replace(nexus=nexus._replace(task=else_)))
        return
    waiting = [each for each in each_keeper(world) if each.job is Job.STAGE]
    if not waiting:
        yield Step("all staged", world._replace(nexus=nexus._replace(task=Task.READ_BACK)))
        return
    failed = nexus._replace(task=else_)
    for keeper in waiting:
        if keeper.liar:
            told = world._replace(liar_sets=world.liar_sets | {nexus.new})
            done = with_keeper(told, keeper, keeper._replace(job=Job.STAGED))
            yield Step("stage", done)
            if _lies(setting, Liar.FREELY):
                yield Step("stage, refused", told._replace(nexus=failed))
            continue
        holding = None if keeper.away else _stage(keeper, nexus, world, setting)
        if holding is None:
            yield Step("stage fails", world._replace(nexus=failed))
            continue
        after = keeper._replace(holding=holding, job=Job.STAGED)
        broken = what_breaks(world, keeper.holding, holding)
        yield Step("stage", with_keeper(world, keeper, after), broken=broken)
        if world.budget.lost:
            lost = with_keeper(spent(world, "lost"), keeper, after)
            yield Step("stage, answer lost", lost._replace(nexus=failed), fair=False)


def _stage(keeper: Keeper, nexus: Nexus, world: World, setting: Setting | None) -> int | None:
    holding: int | None = keeper.holding
    if setting is not None and Care.KEEP in setting.cares:
        share_set = rule.in_force(nexus.document)
        staged_only = rule.staged(keeper.holding) == share_set
        if staged_only:
            holding = rule.commit(keeper.holding, share_set, rule.epoch(nexus.document))
    return None if holding is None else rule.stage(holding, nexus.new)


def _lies(setting: Setting | None, *how: Liar) -> bool:
    """Return whether a lying Keeper spoils a refresh. An init with one fails, and names it: it is left out here."""
    return setting is not None and setting.liar in how


def withdrawn(world: World, nexus: Nexus) -> Iterator[Step]:
    """Let the Keepers erase a set that does not come into force (spike.nexus.keeper_refresh.withdraw)."""
    keepers, broken = [], ""
    for each in world.keepers:
        told = each.job is not Job.NONE and not each.away and not each.liar
        holding = rule.erase(each.holding, nexus.new) if told else each.holding
        broken = broken or what_breaks(world, each.holding, holding)
        keepers.append(each._replace(holding=holding, job=Job.NONE))
    closed = nexus.document == NOTHING
    ended = None if closed else nexus._replace(task=Task.NONE, new=NOTHING)
    yield Step("withdraw", with_keepers(world._replace(nexus=ended), keepers), broken=broken)


def swapped(
    world: World, nexus: Nexus, document: int, then: Task, setting: Setting
) -> Iterator[Step]:
    """Replace the keyring (spike.nexus.vault.Vault.advance), and what may become of it."""
    if world.store.document != nexus.document:
        stopped = nexus._replace(
            stops=nexus.stops | OVERTAKEN, task=Task.NONE, asked=False, new=NOTHING
        )
        yield Step("the keyring is not the one expected", _without_jobs(world, stopped))
        return
    store = world.store._replace(document=document, fence=rule.epoch(document))
    finishing = nexus.task is Task.FINISH
    written = (
        _in_force(world._replace(store=store), nexus) if finishing else world._replace(store=store)
    )
    after = unanchored(nexus._replace(document=document, task=then), setting)
    yield Step(f"the keyring: {nexus.task}", written._replace(nexus=after))
    if world.budget.lost:
        doubt = nexus._replace(
            unsure=document, stops=nexus.stops | UNSURE, task=Task.NONE, new=NOTHING
        )
        name = f"the keyring: {nexus.task}; unsure, and it was"
        for state, before in ((name, written), (f"{name} not", world)):
            yield Step(state, _without_jobs(spent(before, "lost"), doubt), fair=False)


def _without_jobs(world: World, nexus: Nexus) -> World:
    keepers = (each._replace(job=Job.NONE) for each in world.keepers)
    return with_keepers(world._replace(nexus=nexus), keepers)


def _in_force(world: World, nexus: Nexus) -> World:
    """The new set counts now: who was left out, or emptied meanwhile, is without a share."""
    keepers = (
        each._replace(
            job=Job.NONE,
            lost=each.job is Job.NONE or (each.lost and not rule.holds(each.holding, nexus.new)),
        )
        for each in world.keepers
    )
    return with_keepers(world, keepers)


def unanchored(nexus: Nexus, setting: Setting) -> Nexus:
    """Keys or rights have changed, and no anchor of it is anywhere yet."""
    if Care.UNANCHORED not in setting.cares:
        return nexus
    return anchor_judged(nexus._replace(keepers_hold=False, place_holds=False), setting)


def anchor_judged(nexus: Nexus, setting: Setting) -> Nexus:
    """spike.nexus.vault.Vault._judge_anchor."""
    counts = setting.place is Place.THERE or Care.NO_PLACE in setting.cares
    lost = counts and not nexus.place_holds and not nexus.keepers_hold
    stops = nexus.stops | NO_ANCHOR if lost else nexus.stops & ~NO_ANCHOR
    return nexus._replace(stops=stops)


def renewed(world: World, nexus: Nexus, setting: Setting) -> World:
    """spike.nexus.vault.Vault.renew_places, and renew_anchor."""
    up = world.place_up
    after = anchor_judged(nexus._replace(place_holds=up, keepers_hold=False), setting)
    place = rule.anchor(nexus.document, nexus.access) if up else world.place
    return world._replace(nexus=after, place=place)


def settled(world: World, nexus: Nexus, setting: Setting) -> Step:
    known = nexus._replace(unsure=NOTHING, stops=nexus.stops & ~UNSURE)
    if world.store.document == nexus.unsure:
        known = unanchored(known._replace(document=nexus.unsure), setting)
        if Care.UNANCHORED in setting.cares:
            known = known._replace(task=Task.RENEW)
    elif world.store.document != nexus.document:
        known = known._replace(stops=known.stops | OVERTAKEN)
    return Step("settle", world._replace(nexus=known))


def begun(world: World, nexus: Nexus, setting: Setting, *, asked: bool) -> Iterator[Step]:
    """Begin a refresh with all Keepers that can take a share (spike.nexus.keeper_refresh._able)."""
    able = [
        each for each in world.keepers if not each.away and (each.liar or _can_take(nexus, each))
    ]
    chosen = [able]
    if not asked and Care.OTHERS in setting.cares:
        chosen += [[each for each in able if not each.liar]]
    least = KEEPERS if asked else THRESHOLD
    if world.sets >= setting.sets:
        return
    for some in chosen:
        if len(some) < least:
            continue
        keepers = (each._replace(job=Job.STAGE) if each in some else each for each in world.keepers)
        begins = nexus._replace(asked=asked, new=world.sets + 1)
        ready = with_keepers(world._replace(sets=world.sets + 1, nexus=begins), keepers)
        document = rule.begun(nexus.document, world.sets + 1)
        for step in swapped(ready, begins, document, Task.DELIVER, setting):
            yield step._replace(name=f"begin a refresh: {step.name}")


def _anchored(world: World, nexus: Nexus, setting: Setting | None) -> World:
    """Give the anchor to each Keeper that gives its share back, as a look does before it gives a share."""
    if nexus.document == NOTHING or setting is None or Care.ANCHOR_TOO not in setting.cares:
        return world
    present = rule.anchor(nexus.document, nexus.access)
    keepers = (
        each._replace(holding=rule.keep_anchor(each.holding, present))
        if each.job is Job.STAGED
        else each
        for each in world.keepers
    )
    return with_keepers(world, keepers)


def _can_take(nexus: Nexus, keeper: Keeper) -> bool:
    finding = rule.judged(nexus.document, keeper.holding, NOTHING)
    _, epoch = rule.committed(keeper.holding)
    return finding.state is not KeeperState.FOREIGN and epoch <= rule.epoch(nexus.document)
