"""The steps of the model of keyring, Keepers and crashes: whatever may happen next in a world.

A crash may come between any two steps, and between any two effects that the shell has one after the other:

| Step | Stands for |
|---|---|
| `init` … | spike.nexus.birth_flow.initialize: require_free; deliver; replace_keyring; open_with |
| `recover` | spike.nexus.keeper_recovery.recover, which writes nothing: one step |
| `restore` | spike.nexus.restore_flow.RestoreDesk: examine, then the one write of `_commit` |
| `settle`, `drop`, `refresh`, `look` | the order of spike.nexus.keeper_loop.KeeperLoop._turn |
| `begin`, `stage`, `read back`, `finish`, `renew` | spike.nexus.keeper_refresh.refresh; `renew` is vault.renew_places |
| `drop`, `withdraw` | what `_brought_in` does when a Keeper fails |
| `ask`, `stage`, `commit`, `erase` of a look | spike.nexus.keeper_desk.KeeperDesk._tended and _act |
| `judge` | KeeperDesk._judge |
| `rights` | spike.nexus.policy_call: PolicyBook._write, then vault.renew_anchor |
| `write` | spike.nexus.dispatch.Dispatcher._write: vault.require_writable, then the store under its fence |

What the keyrings, Keepers and judgements are is asked of the real rules (keeper_rule.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from model import keeper_rule as rule
from model.keeper_change import (
    begun,
    change,
    delivery,
    renewed,
    settled,
    swapped,
    unanchored,
    withdrawn,
)
from model.keeper_look import look_begun, look_on
from model.keeper_rule import NOTHING
from model.keeper_setting import Care, Setting, Step, forgotten, spent
from model.keeper_world import (
    OVERTAKEN,
    Job,
    Keeper,
    Nexus,
    Store,
    Task,
    World,
    each_keeper,
    is_contradicted,
    objections,
    opens,
    subsets,
    with_keeper,
    with_keepers,
)
from spike.lifecycle.supply import KeeperState
from spike.lifecycle.supply import Step as Do


def steps(world: World, setting: Setting) -> Iterator[Step]:
    """Give every step that may come next."""
    yield from _disturbances(world)
    nexus = world.nexus
    if nexus is None:
        yield from _closed(world, setting)
    elif nexus.document == NOTHING:
        yield from _init(world, nexus, setting)
    else:
        yield from change(world, nexus, setting)
        yield from _loop(world, nexus, setting)
        yield from look_on(world, nexus, setting)
        yield from _use(world, nexus, setting)


def _emptied(keeper: Keeper) -> Keeper:
    return keeper._replace(holding=NOTHING, lost=True)


def _disturbances(world: World) -> Iterator[Step]:
    budget = world.budget
    if budget.crash:
        less = spent(world, "crash")
        if world.nexus is not None:
            yield Step("Nexus dies", forgotten(less), fair=False)
        for keeper in each_keeper(world):
            if not keeper.liar and keeper.holding != NOTHING:
                after = with_keeper(less, keeper, _emptied(keeper))
                yield Step("a Keeper dies", after, fair=False)
    for keeper in each_keeper(world):
        if keeper.away and not keeper.liar:
            yield Step("a Keeper is back", with_keeper(world, keeper, keeper._replace(away=False)))
        elif budget.away and not keeper.liar:
            gone = with_keeper(spent(world, "away"), keeper, keeper._replace(away=True))
            yield Step("a Keeper falls silent", gone, fair=False)
    if budget.put_back and world.store.document != NOTHING:
        if world.copy is None:
            yield Step("the store is copied", world._replace(copy=world.store), fair=False)
        elif world.copy != world.store:
            after = spent(world, "put_back")._replace(store=world.copy, old=True)
            yield Step("the copy is put back", after, fair=False)
            if world.copy.access != world.store.access:
                older = world.store._replace(access=world.copy.access)
                rights = after._replace(store=older)
                yield Step("the copy's access list is put back", rights, fair=False)
    if budget.fail and world.place_up:
        yield Step("the place fails", spent(world, "fail")._replace(place_up=False), fair=False)


def _closed(world: World, setting: Setting) -> Iterator[Step]:
    store = world.store
    if store.document == NOTHING:
        free = all(not each.away and not rule.committed(each.holding)[0] for each in world.keepers)
        if free and world.sets < setting.sets:
            keepers = (each._replace(job=Job.STAGE) for each in world.keepers)
            new = world.sets + 1
            nexus = Nexus(task=Task.DELIVER, new=new)
            conceived = with_keepers(world._replace(nexus=nexus, sets=new), keepers)
            yield Step("init: every Keeper is free", conceived)
        return
    if any(opens(world, answers) for answers in subsets(world)):
        after = opened(world, store, rule.in_force(store.document), setting)
        older = (rule.epoch(store.document), store.access)
        behind = any(mine < floor for mine, floor in zip(older, world.floor, strict=True))
        yield Step("recover", after, broken="an old store is believed unattended" if behind else "")
    yield from _restored(world, setting)


def _restored(world: World, setting: Setting) -> Iterator[Step]:
    """By password. A person goes on in spite of what speaks against the store, where nothing else is left."""
    against = objections(world)
    if not against and not world.budget.restore:
        if any(opens(world, answers) for answers in subsets(world)):
            return
        base = world
    else:
        base = world if against else spent(world, "restore")
    store = world.store
    document = rule.recovered(store.document, against)
    following = Store(
        document, rule.reached(store.document, store.access, against), rule.epoch(document)
    )
    written = base._replace(
        store=following,
        floor=(0, 0) if against or world.old else world.floor,
        accepted=world.accepted or bool(against),
    )
    name = "restore, older store accepted" if against else "restore"
    yield Step(name, opened(written, following, NOTHING, setting))
    if world.budget.lost:
        # Or it dies between the write and the opening. The store is what it is from here on.
        lost = opened(spent(written, "lost"), following, NOTHING, setting)
        yield Step(f"{name}; the answer is lost", lost._replace(nexus=None), fair=False)


def opened(world: World, store: Store, held: int, setting: Setting) -> World:
    """Open the vault: spike.nexus.vault.Vault.open_with, up to the renewal of the places."""
    nexus = Nexus(document=store.document, access=store.access, held=held, task=Task.RENEW)
    after = world._replace(nexus=unanchored(nexus, setting))
    if not world.old:
        return after
    after = after._replace(old=is_contradicted(after))
    # What was put back is the store from now on: who has no share of its set is as good as empty.
    share_set = rule.in_force(store.document)
    keepers = (
        each._replace(lost=not rule.holds(each.holding, share_set)) for each in world.keepers
    )
    return with_keepers(after, keepers)


def _init(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    match nexus.task:
        case Task.DELIVER | Task.READ_BACK:
            yield from delivery(world, nexus, Task.FINISH, Task.WITHDRAW)
        case Task.FINISH:
            document = rule.born(nexus.new)
            store = Store(document, 0, rule.epoch(document))
            keepers = (
                each._replace(job=Job.NONE, lost=not rule.holds(each.holding, nexus.new))
                for each in world.keepers
            )
            written = with_keepers(world._replace(store=store), keepers)
            yield Step("init: the keyring", opened(written, store, nexus.new, setting))
            if world.budget.lost:
                yield from _init_in_doubt(spent(world, "lost"), nexus, store, setting)
        case Task.WITHDRAW:
            yield from withdrawn(world, nexus)


def _init_in_doubt(world: World, nexus: Nexus, store: Store, setting: Setting) -> Iterator[Step]:
    name = "init: the answer of the keyring is lost"
    withdraws = world._replace(nexus=nexus._replace(task=Task.WITHDRAW))
    yield Step(f"{name}; it is taken back", withdraws, fair=False)
    keepers = (
        each._replace(lost=not rule.holds(each.holding, nexus.new)) for each in world.keepers
    )
    left = with_keepers(withdraws._replace(store=store), keepers)
    if Care.INIT_UNSURE in setting.cares:
        left = forgotten(left)
    yield Step(f"{name}; nor can it be taken back", left, fair=False)


def _loop(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """What a turn of the loop does, in its order; each begins only when nothing else changes keys."""
    if nexus.task is not Task.NONE:
        if Care.APART not in setting.cares and nexus.asked and nexus.look == NOTHING:
            yield look_begun(world, nexus)
        return
    if nexus.look != NOTHING:
        return
    if nexus.unsure != NOTHING:
        yield settled(world, nexus, setting)
    elif rule.in_progress(nexus.document):
        yield from swapped(world, nexus, rule.dropped(nexus.document), Task.RENEW, setting)
    elif nexus.held != rule.in_force(nexus.document):
        yield from begun(world, nexus, setting, asked=False)
    else:
        yield look_begun(world, nexus)


def _use(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """Writes, rights, a refresh that is asked for; and what an operator does about what he is told."""
    store, writable = world.store, not nexus.stops
    fits = store.fence == rule.epoch(nexus.document)
    mine = (rule.epoch(nexus.document), nexus.access)
    if writable and fits and mine != world.floor:
        yield Step("a write is acknowledged", world._replace(floor=mine))
    if nexus.rights:
        told = renewed(world, nexus._replace(rights=False), setting)
        after = told.nexus
        acknowledged = after is not None and (Care.RIGHTS not in setting.cares or not after.stops)
        floor = mine if acknowledged else world.floor
        yield Step("the rights' anchor", told._replace(floor=floor))
    elif writable and fits and world.budget.rights and nexus.access == store.access:
        changed = unanchored(nexus._replace(access=nexus.access + 1, rights=True), setting)
        written = store._replace(access=changed.access)
        yield Step("rights change", spent(world, "rights")._replace(store=written, nexus=changed))
    idle = nexus.task is Task.NONE and (nexus.look == NOTHING or Care.APART not in setting.cares)
    if idle and writable and world.budget.refresh and not rule.in_progress(nexus.document):
        yield from begun(spent(world, "refresh"), nexus, setting, asked=True)
    yield from _operated(world, nexus)


def _operated(world: World, nexus: Nexus) -> Iterator[Step]:
    differs = (world.store.document, world.store.access) != (nexus.document, nexus.access)
    if nexus.stops & OVERTAKEN or (differs and nexus.unsure == NOTHING):
        yield Step("the operator restarts Nexus", forgotten(world))
    if nexus.look != NOTHING or nexus.task is not Task.NONE:
        return
    for keeper in each_keeper(world):
        finding = rule.judged(nexus.document, keeper.holding, nexus.held)
        stuck = finding.state in {KeeperState.FOREIGN, KeeperState.SUSPECT}
        if stuck and finding.step is Do.NOTHING and not keeper.away and not keeper.liar:
            yield Step(
                "the operator empties a Keeper", with_keeper(world, keeper, _emptied(keeper))
            )
