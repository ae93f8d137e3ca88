"""What goes on behind the flip in the model of rotations, and the writes of callers. See rotation_model.py."""

from __future__ import annotations

from collections.abc import Iterator

from model import rotation_rule as rule
from model.rotation_change import swapped
from model.rotation_world import (
    RECORDS,
    Care,
    Nexus,
    Row,
    Setting,
    Step,
    Task,
    World,
    Write,
    spent,
    with_row,
)
from spike.lifecycle.keyring import Phase


def work(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """Re-encrypt, prove, finalize: what the keyring's phase says."""
    if not nexus.anchored:
        return
    match rule.phase(nexus.document):
        case Phase.RE_ENCRYPTING if nexus.task is Task.PROVEN:
            following = rule.verified(nexus.document)
            after = nexus._replace(task=Task.NONE)
            left = _left(world, nexus, planted=False)
            broken = "verified is written and a record lies under an old key" if left else ""
            for step in swapped(world, nexus, following, after, setting):
                yield step._replace(broken=broken)
        case Phase.RE_ENCRYPTING if world.store.cursor < RECORDS:
            yield from _walked(world, nexus, setting)
        case Phase.RE_ENCRYPTING:
            yield from _proven(world, nexus, setting)
        case Phase.VERIFIED:
            yield from swapped(world, nexus, rule.finalizing(nexus.document), nexus, setting)
        case Phase.FINALIZING:
            yield from _ended(world, nexus, setting)


def _left(world: World, nexus: Nexus, *, planted: bool) -> list[int]:
    """Return which records lie under another key than the active one; those that were put back only if asked."""
    active = rule.record_key(nexus.document)
    rows = enumerate(world.store.rows)
    return [number for number, row in rows if row.key != active and (planted or not row.planted)]


def _walked(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """Read a record; seal it anew if it lies under another key; compare and swap. Who wrote meanwhile wins."""
    store, active = world.store, rule.record_key(nexus.document)
    row = store.rows[store.cursor]
    if nexus.walk is None:
        if row.key == active:
            yield Step(
                "walk: current", world._replace(store=store._replace(cursor=store.cursor + 1))
            )
        else:
            yield Step("walk", world._replace(nexus=nexus._replace(walk=row)))
        return
    on = nexus._replace(walk=None)
    fits = row == nexus.walk or Care.SWAP not in setting.cares
    if not fits or (store.fence > rule.epoch(nexus.document)):
        # It is read once more: what took its place lies under the active key, or is sealed again in its turn.
        yield Step("re-encrypt: overtaken", world._replace(nexus=on))
        return
    if nexus.walk.key not in rule.record_keys(nexus.document):
        skipped = store._replace(cursor=store.cursor + 1)
        yield Step("re-encrypt: it does not open", world._replace(nexus=on, store=skipped))
        return
    sealed = with_row(store, store.cursor, nexus.walk._replace(key=active))
    after = world._replace(store=sealed._replace(cursor=store.cursor + 1), nexus=on)
    yield Step("re-encrypt", after)
    if world.budget.lost:
        # The batch is done again from the cursor, which was saved with it, or was not.
        yield Step("re-encrypt; the answer is lost", spent(after, "lost"), fair=False)
        yield Step("re-encrypt; lost itself", spent(world, "lost")._replace(nexus=on), fair=False)


def _proven(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """Open every record without the old keys, once nothing that began before runs on."""
    if nexus.write is not None and nexus.write.epoch < rule.epoch(nexus.document):
        return
    left = _left(world, nexus, planted=True)
    if left and Care.PROOF in setting.cares:
        if nexus.write is None:
            yield from _attended(world, left)
        return
    yield Step("prove", world._replace(nexus=nexus._replace(task=Task.PROVEN)))


def _attended(world: World, left: list[int]) -> Iterator[Step]:
    """What is named is written again by the operator, from a system backup; or, if it is honest, walked over again."""
    row = world.store.rows[left[0]]
    if not row.planted:
        yield Step("walk again", world._replace(store=world.store._replace(cursor=0)))
        return
    key = rule.record_key(world.store.document)
    value = world.acknowledged[left[0]]
    mended = with_row(world.store, left[0], Row(key, value))
    yield Step("the operator writes what was named again", world._replace(store=mended))


def _ended(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """Count once more, then destroy."""
    if nexus.task is Task.COUNTED:
        after = nexus._replace(task=Task.NONE)
        yield from swapped(world, nexus, rule.finalized(nexus.document), after, setting)
        return
    if nexus.write is not None and nexus.write.epoch < rule.epoch(nexus.document):
        return
    left = _left(world, nexus, planted=True)
    if left and Care.CENSUS in setting.cares:
        yield from swapped(world, nexus, rule.reopened(nexus.document), nexus, setting)
        return
    counted = world._replace(nexus=nexus._replace(task=Task.COUNTED))
    found = "a record under an old key is not found before the keys are destroyed" if left else ""
    yield Step("count", counted, broken=found)


def use(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    """A caller's write: seal, store, acknowledge; and one that a Nexus makes which was overtaken."""
    yield from _written(world, nexus, setting)
    if world.second and world.budget.write:
        yield from _written_by_second(world, setting)


def _written(world: World, nexus: Nexus, setting: Setting) -> Iterator[Step]:
    write, store = nexus.write, world.store
    # What has been overtaken or is in doubt takes no new write.
    if write is None:
        if not world.budget.write or nexus.unsure or (not nexus.anchored and _gated(setting)):
            return
        less = spent(world, "write")
        for number in setting.rows:
            row = store.rows[number]
            if row.planted or row.key not in rule.record_keys(nexus.document):
                continue
            sealed = Write(number, row, rule.record_key(nexus.document), rule.epoch(nexus.document))
            yield Step("seal", less._replace(nexus=nexus._replace(write=sealed)), fair=False)
        return
    none = nexus._replace(write=None)
    if write.done:
        if nexus.anchored or not _gated(setting):
            yield Step("acknowledge", _acknowledged(world._replace(nexus=none), write))
        return
    if store.fence > write.epoch and Care.FENCE in setting.cares:
        # It is sealed once more inside of Nexus.
        if nexus.unsure or store.fence != rule.epoch(nexus.document):
            return
        row = store.rows[write.row]
        again = Write(write.row, row, rule.record_key(nexus.document), rule.epoch(nexus.document))
        yield Step(
            "store: refused, sealed again", world._replace(nexus=nexus._replace(write=again))
        )
    elif store.rows[write.row] != write.before:
        row = store.rows[write.row]
        again = write._replace(before=row)
        yield Step("store: overtaken, again", world._replace(nexus=nexus._replace(write=again)))
    else:
        new = Row(write.key, write.before.value + 1)
        stored = world._replace(store=with_row(store, write.row, new))
        yield Step("store", stored._replace(nexus=nexus._replace(write=write._replace(done=True))))


def _gated(setting: Setting) -> bool:
    return Care.GATE in setting.cares


def _acknowledged(world: World, write: Write) -> World:
    told = list(world.acknowledged)
    told[write.row] = max(told[write.row], write.before.value + 1)
    # What counts is the epoch of the store when the answer was given.
    nexus = world.nexus
    floor = world.floor if nexus is None else max(world.floor, rule.epoch(nexus.document))
    return world._replace(acknowledged=tuple(told), floor=floor)


def _written_by_second(world: World, setting: Setting) -> Iterator[Step]:
    """A Nexus that does not know that it was overtaken writes, all at once, what the store's fence lets it.

    What it writes may be new: it need not open anything for that.
    """
    store, document = world.store, world.second
    if Care.FENCE in setting.cares and store.fence > rule.epoch(document):
        return
    less = spent(world, "write")
    for number in setting.rows:
        row = store.rows[number]
        if row.planted:
            continue
        new = Row(rule.record_key(document), row.value + 1)
        told = list(world.acknowledged)
        told[number] = new.value
        after = less._replace(store=with_row(store, number, new), acknowledged=tuple(told))
        yield Step("the overtaken one writes", after, fair=False)
