"""How one keyring takes another's place in the model of rotations. See rotation_model.py."""

from __future__ import annotations

from collections.abc import Iterator

from model import rotation_rule as rule
from model.keeper_rule import NOTHING
from model.rotation_world import (
    Care,
    Nexus,
    Setting,
    Step,
    Store,
    Task,
    World,
    forgotten,
    is_before_flip,
    is_behind_flip,
    spent,
    with_keepers,
)


def swapped(
    world: World, nexus: Nexus, document: int, after: Nexus, setting: Setting
) -> Iterator[Step]:
    """Put a keyring in the place of the one in force: one compare-and-swap, whose answer may be lost."""
    name = f"keyring: {rule.phase(document) or 'no rotation'}"
    written = world._replace(store=_with_document(world.store, document))
    yield Step(name, _in_force(written, after, document))
    if world.budget.lost:
        less = spent(written, "lost")
        if Care.UNSURE not in setting.cares and nexus.prepared:
            taken = nexus._replace(task=Task.CLEAR, prepared=False)
            yield Step(f"{name}; the answer is lost", less._replace(nexus=taken), fair=False)
            return
        doubtful = after._replace(document=nexus.document, unsure=document)
        yield Step(f"{name}; the answer is lost", less._replace(nexus=doubtful), fair=False)
        unwritten = less._replace(store=world.store, nexus=doubtful)
        yield Step(f"{name}; it is lost itself", unwritten, fair=False)


def _with_document(store: Store, document: int) -> Store:
    flip = is_before_flip(store.document) and is_behind_flip(document)
    return store._replace(
        document=document,
        fence=max(store.fence, rule.epoch(document)),
        cursor=0 if flip else store.cursor,
    )


def _in_force(world: World, after: Nexus, document: int) -> World:
    """Swap in memory what has been read back."""
    before = world.nexus
    assert before is not None
    keepers = world.keepers
    changes = rule.epoch(document) != rule.epoch(before.document)
    if changes:
        keepers = tuple(each._replace(seen=False) for each in keepers)
    wanted = rule.in_force(document)
    if wanted != rule.in_force(before.document):
        # Whose share did not arrive is named and left out, or is given it at the next look.
        keepers = tuple(
            each._replace(lost=each.lost and not rule.holds(each.holding, wanted), staged=False)
            for each in keepers
        )
    nexus = after._replace(
        document=document,
        unsure=NOTHING,
        anchored=after.anchored and not changes,
        next=after.task,
        task=Task.RENEW,
    )
    return with_keepers(world._replace(nexus=nexus), keepers)


def settled(world: World, nexus: Nexus) -> Step:
    if world.store.document == nexus.unsure:
        return Step("settle: it was written", _in_force(world, nexus, nexus.unsure))
    if world.store.document != nexus.document:
        return Step("settle: another one", forgotten(world))
    # What was to be done is done again; a preparation that failed is dropped.
    back = Nexus(nexus.document, nexus.held, anchored=nexus.anchored, place_holds=nexus.place_holds)
    if nexus.new and is_before_flip(nexus.document):
        back = back._replace(task=Task.DROP, new=nexus.new)
    return Step(
        "settle: it was not written", world._replace(nexus=back._replace(write=nexus.write))
    )


def renewed(world: World, nexus: Nexus) -> Step:
    """Give the place the backup and the anchor in force."""
    place = world.place
    if place.up:
        place = place._replace(backup=nexus.document, anchor=rule.anchor(nexus.document))
    after = nexus._replace(
        task=nexus.next,
        next=Task.NONE,
        place_holds=place.up,
        anchored=nexus.anchored or place.up,
    )
    return Step("renew", world._replace(nexus=after, place=place))
