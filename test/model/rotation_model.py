"""The steps of the model of rotations: whatever may happen next in a world.

A crash may come between any two steps, and between any two effects that the shell has one after the other:

| Step | Stands for |
|---|---|
| `recover` | spike.nexus.keeper_recovery.recover |
| `restore` | spike.nexus.restore_flow.RestoreDesk, where nothing objects, and the refresh behind it |
| `begin`, `again` | spike.nexus.rotation_desk.start or rollback; RotationLoop._carry of one that was interrupted |
| `stage`, `read back`, `distributed` | Preparation._distribute: keeper_refresh.deliver, then the keyring |
| `pending`, `backed up` | Preparation._back_up |
| `flip` | Preparation._flip, and Vault._replace_present around it |
| `renew` | vault.renew_places, behind every keyring |
| `anchor`, `tend` | keeper_desk.KeeperDesk.look with one Keeper: its two effects |
| `clear` | rotation_preparation.remove_pending, and keeper_refresh.withdraw |
| `walk`, `re-encrypt` | nexus/reencryption.py: one record read, then compared and swapped |
| `prove`, `verified`, `count`, `finalized` | nexus/rotation_end.py and rotation_work.py |
| `seal`, `store`, `acknowledge` | a put: spike.nexus.dispatch and the store under its fence |

What the keyrings, Keepers and judgements are is asked of the real rules (rotation_rule.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from model import rotation_rule as rule
from model.keeper_rule import NOTHING
from model.rotation_change import renewed, settled, swapped
from model.rotation_walk import use, work
from model.rotation_world import (
    ENOUGH,
    Care,
    Keeper,
    Nexus,
    Setting,
    Step,
    Store,
    Task,
    World,
    each_keeper,
    forgotten,
    is_before_flip,
    is_behind_flip,
    is_objected,
    opens,
    spent,
    with_keeper,
    with_keepers,
    with_row,
)
from spike.lifecycle.keyring import Phase
from spike.lifecycle.supply import KeeperState
from spike.lifecycle.supply import Step as Do


def steps(world: World, setting: Setting) -> Iterator[Step]:
    """Give every step that may come next."""
    yield from _disturbances(world)
    nexus = world.nexus
    if nexus is None:
        yield from _closed(world, setting)
        return
    if nexus.unsure:
        yield settled(world, nexus)
    elif nexus.task is Task.CLEAR:
        yield _cleared(world, nexus)
    elif nexus.document != world.store.document:
        yield Step("the operator restarts Nexus", forgotten(world))
    elif nexus.task is Task.RENEW:
        yield renewed(world, nexus)
        if Care.RENEWED not in setting.cares and is_behind_flip(nexus.document):
            yield Step("clear too early", _without_pending(world))
    elif nexus.prepared or nexus.task is Task.DROP:
        yield from _carried(world, nexus, setting)
    else:
        yield from _begun(world, nexus, setting)
        yield from _tended(world, nexus, setting)
        if is_behind_flip(nexus.document):
            yield from work(world, nexus, setting)
    yield from use(world, nexus, setting)


def _disturbances(world: World) -> Iterator[Step]:
    budget = world.budget
    if budget.crash:
        less = spent(world, "crash")
        if world.nexus is not None:
            yield Step("Nexus dies", forgotten(less), fair=False)
        for keeper in each_keeper(world):
            if keeper.holding != NOTHING:
                emptied = with_keeper(less, keeper, Keeper(lost=True))
                yield Step("a Keeper dies", emptied, fair=False)
    if budget.second and world.nexus is not None and not world.nexus.unsure:
        left = spent(world, "second")._replace(second=world.nexus.document)
        yield Step("another Nexus takes over", forgotten(left), fair=False)
    if world.second:
        yield Step("the overtaken one ends", world._replace(second=NOTHING))
    if budget.fail and world.place.up:
        failed = spent(world, "fail")._replace(place=world.place._replace(up=False))
        yield Step("the place fails", failed, fair=False)
    if budget.put_back:
        yield from _put_back(world)


def _put_back(world: World) -> Iterator[Step]:
    copy, store = world.copy, world.store
    if copy is None:
        yield Step("the store is copied", world._replace(copy=store), fair=False)
        return
    less = spent(world, "put_back")
    if copy != store and copy.document != store.document:
        yield Step("the copy is put back", less._replace(store=copy, old=True), fair=False)
        keyring = store._replace(document=copy.document, fence=copy.fence)
        yield Step(
            "the copy's keyring is put back", less._replace(store=keyring, old=True), fair=False
        )
    for number, row in enumerate(copy.rows):
        if row != store.rows[number]:
            planted = with_row(store, number, row._replace(planted=True))
            yield Step("an old row is put back", less._replace(store=planted), fair=False)


def _closed(world: World, setting: Setting) -> Iterator[Step]:
    store = world.store
    from_keepers = opens(world, world.keepers, setting)
    some = from_keepers or any(
        opens(world, (one, other), setting)
        for at, one in enumerate(world.keepers)
        for other in world.keepers[at + 1 :]
    )
    behind = world.old and rule.epoch(store.document) < world.floor
    if some:
        after = _opened(world, store, rule.in_force(store.document), setting)
        yield Step("recover", after, broken="an old store is believed" if behind else "")
    if is_objected(world, setting):
        return
    if not some or world.budget.restore:
        base = world if not some else spent(world, "restore")
        following = rule.recovered(store.document)
        if behind:
            yield Step("restore", base, broken="an old store is believed by a person unwarned")
            return
        new = store._replace(document=following, fence=rule.epoch(following))
        yield Step("restore", _opened(base._replace(store=new), new, NOTHING, setting))


def _opened(world: World, store: Store, held: int, setting: Setting) -> World:
    nexus = Nexus(store.document, held, task=Task.RENEW)
    keepers = world.keepers
    if world.old:
        # What was put back, and is believed, is the store from now on: whoever fits to it counts.
        wanted = rule.in_force(store.document)
        keepers = tuple(
            each._replace(lost=not rule.holds(each.holding, wanted)) for each in keepers
        )
        # An anchor somewhere may still object: then the next recovery decides anew.
        world = world._replace(
            old=is_objected(world, setting),
            acknowledged=tuple(row.value for row in store.rows),
            floor=rule.epoch(store.document),
        )
    return with_keepers(world._replace(nexus=nexus), keepers)


def _begun(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """Begin what is wished for next; begin again what was interrupted before its flip."""
    document, serial = nexus.document, world.serial + 1
    counted = world._replace(serial=serial)
    prepared = nexus._replace(prepared=True, task=Task.STAGE, new=NOTHING)
    if is_before_flip(document):
        if world.place.pending:
            cleared = world._replace(place=world.place._replace(pending=NOTHING))
            yield Step("clear what is pending", cleared)
            return
        again = rule.prepared(document, None, serial)
        assert again is not None
        yield from swapped(counted, nexus, again, prepared, setting)
        return
    if nexus.task is not Task.NONE:
        return
    if not nexus.held and rule.phase(document) in (None, Phase.VERIFIED):
        yield from _refreshed(counted, nexus, setting)
        return
    for at, wish in enumerate(world.budget.wishes):
        following = rule.prepared(document, wish, serial)
        if following is None or any(each.lost for each in world.keepers):
            continue
        left = world.budget.wishes[at + 1 :]
        less = counted._replace(budget=world.budget._replace(wishes=left))
        for step in swapped(less, nexus, following, prepared, setting):
            yield step._replace(name=f"{wish.kind}: {step.name}", fair=False)
    if world.place.pending and rule.phase(document) is None:
        cleared = world._replace(place=world.place._replace(pending=NOTHING))
        yield Step("clear what is pending", cleared)


def _refreshed(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """Bring new shares to the Keepers, behind a restore by password; how is a matter of the model of Keepers."""
    document = nexus.document
    new = rule.set_number(rule.active_generation(document), world.serial)
    epoch, wanted = rule.epoch(document), rule.in_force(document)

    def staged(keeper: Keeper) -> Keeper:
        kept = rule.commit(keeper.holding, wanted, epoch) or keeper.holding
        return keeper._replace(holding=rule.stage(kept, new))

    brought = with_keepers(world, (staged(each) for each in world.keepers))
    after = nexus._replace(held=new)
    yield from swapped(brought, nexus, rule.refreshed(document, new), after, setting)


def _carried(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """The order of Preparation: nothing else looks at the Keepers meanwhile."""
    document = nexus.document
    if world.budget.abort and nexus.task in (Task.STAGE, Task.PENDING, Task.FLIP):
        asked = spent(world, "abort")._replace(nexus=nexus._replace(task=Task.DROP))
        yield Step("abort", asked, fair=False)
    match nexus.task:
        case Task.STAGE if not rule.replaces_root(document):
            yield Step("no shares are due", world._replace(nexus=nexus._replace(task=Task.PENDING)))
        case Task.STAGE:
            yield from _staged(world, nexus, setting)
        case Task.DISTRIBUTE:
            following = rule.distributed(document, nexus.new)
            after = nexus._replace(task=Task.PENDING)
            yield from swapped(world, nexus, following, after, setting)
        case Task.PENDING:
            yield from _pended(world, nexus, setting)
        case Task.BACK_UP:
            after = nexus._replace(task=Task.FLIP)
            yield from swapped(world, nexus, rule.backed_up(document), after, setting)
        case Task.FLIP:
            following = rule.flipped(document)
            held = nexus.new or nexus.held
            after = nexus._replace(
                task=Task.NONE, prepared=False, new=NOTHING, held=held, place_holds=False
            )
            yield from swapped(world, nexus, following, after, setting)
        case Task.DROP:
            after = nexus._replace(task=Task.CLEAR, prepared=False)
            yield from swapped(world, nexus, rule.dropped(document), after, setting)


def _staged(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    if not nexus.new:
        generation = rule.incoming_generation(nexus.document)
        serial = world.serial + 1
        new = nexus._replace(new=rule.set_number(generation, serial))
        yield Step("split", world._replace(nexus=new, serial=serial))
        return
    waiting = [each for each in each_keeper(world) if not each.staged]
    for keeper in waiting[:1]:
        after = keeper._replace(staged=True)
        kept = keeper.holding
        if Care.KEEP in setting.cares:
            wanted, epoch = rule.in_force(nexus.document), rule.epoch(nexus.document)
            kept = rule.commit(kept, wanted, epoch) or kept
        holding = rule.stage(kept, nexus.new)
        yield Step("stage", with_keeper(world, keeper, after._replace(holding=holding)))
        if world.budget.lost:
            lost = with_keeper(spent(world, "lost"), keeper, after)
            yield Step("stage; it does not arrive", lost, fair=False)
    if waiting:
        return
    arrived = all(rule.holds(each.holding, nexus.new) for each in world.keepers)
    enough = arrived or Care.READ_BACK not in setting.cares
    following = Task.DISTRIBUTE if enough else Task.DROP
    keepers = (each._replace(staged=False) for each in world.keepers)
    read = world._replace(nexus=nexus._replace(task=following))
    yield Step("read back", with_keepers(read, keepers))


def _pended(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    place, following = world.place, nexus._replace(task=Task.BACK_UP)
    if not place.up or Care.PENDING not in setting.cares:
        failed = not place.up and setting.has_place
        after = nexus._replace(task=Task.DROP) if failed else following
        yield Step("no pending backup", world._replace(nexus=after))
        return
    pending = place._replace(pending=rule.pending(nexus.document))
    yield Step("pending", world._replace(nexus=following, place=pending))


def _cleared(world: World, nexus: Nexus) -> Step:
    """Take back what lies outside of the keyring."""
    keepers = (
        each._replace(
            holding=rule.erase(each.holding, nexus.new) if nexus.new else each.holding,
            staged=False,
        )
        for each in world.keepers
    )
    place = world.place._replace(pending=NOTHING) if world.place.up else world.place
    after = nexus._replace(task=Task.NONE, new=NOTHING)
    return Step("clear", with_keepers(world._replace(nexus=after, place=place), keepers))


def _tended(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    document = nexus.document
    mine = rule.anchor(document)
    holding = sum(each.seen for each in world.keepers)
    if holding >= ENOUGH and not nexus.anchored:
        yield Step("anchored", world._replace(nexus=nexus._replace(anchored=True)))
    told = True
    for keeper in each_keeper(world):
        known = rule.anchor_kept(keeper.holding) == mine
        finding = rule.judged(document, keeper.holding, nexus.held)
        if not known:
            told = False
            after = _noted(keeper, document, rule.keep_anchor(keeper.holding, mine), setting)
            if after != keeper:
                yield Step("anchor", with_keeper(world, keeper, after))
        elif finding.step is not Do.NOTHING and nexus.held == rule.in_force(document):
            told = False
            after = _noted(keeper, document, _acted(keeper, finding.step, nexus), setting)
            if after != keeper:
                yield Step(f"tend: {finding.step.value}", with_keeper(world, keeper, after))
        elif not keeper.seen:
            after = _noted(keeper, document, keeper.holding, setting)
            if after != keeper:
                yield Step("look", with_keeper(world, keeper, after))
    if told and is_behind_flip(document) and world.place.pending:
        yield Step("clear what was pending", _without_pending(world))


def _without_pending(world: World) -> World:
    return world._replace(place=world.place._replace(pending=NOTHING))


def _acted(keeper: Keeper, step: Do, nexus: Nexus) -> int:
    epoch = rule.epoch(nexus.document)
    match step:
        case Do.SUPPLY:
            staged = rule.stage(keeper.holding, nexus.held)
            return rule.commit(staged, nexus.held, epoch) or keeper.holding
        case Do.COMMIT:
            return rule.commit(keeper.holding, nexus.held, epoch) or keeper.holding
        case _:
            return rule.erase(keeper.holding, rule.staged_at(keeper.holding))


def _noted(keeper: Keeper, document: int, holding: int, setting: Setting) -> Keeper:
    keeps = rule.anchor_kept(holding) == rule.anchor(document)
    counts = rule.counts(document, holding) or Care.PAST not in setting.cares
    current = rule.judged(document, holding, rule.in_force(document)).state is KeeperState.CURRENT
    return keeper._replace(holding=holding, seen=keeps and counts, lost=keeper.lost and not current)
