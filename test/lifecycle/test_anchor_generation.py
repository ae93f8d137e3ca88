"""Anchors across generations of the root key: what confirms one, what says nothing, what nobody can tell."""

from __future__ import annotations

import msgspec
import pytest

import lifecycle_kit
from lifecycle_kit import AT
from spike.lifecycle import anchor, backup, keyring, restore, staleness
from spike.lifecycle import rotation as rules
from spike.lifecycle.anchor import Anchor, Weighed, weigh_untrusted
from spike.lifecycle.keyring import Emergency, KeyPurpose, Keyring, RotationKind, Scope
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyName, KeyRing
from spike.lifecycle.rotation import Incoming
from spike.lifecycle.rotation_flip import flipped
from spike.lifecycle.rotation_plan import Plan, numbers_of
from spike.lifecycle.staleness import LEAP_LIMIT, Objection
from spike.lifecycle.witness import Claim
from spike.memory.key_memory import KeyMemory

OTHER = "f" * 32


class Life:
    """One store's life: each ring it came to, and the anchor of each."""

    def __init__(self) -> None:
        self.rings = [lifecycle_kit.born().ring]

    @property
    def ring(self) -> KeyRing:
        return self.rings[-1]

    def prepare(
        self,
        kind: RotationKind = RotationKind.ROTATION,
        scope: Scope = Scope.ROOT_ONLY,
        emergency: Emergency | None = None,
    ) -> Incoming:
        plan = Plan(f"{len(self.rings):032x}", scope, "nexus", "", 0, 0, kind, emergency)
        numbers = numbers_of(self.ring.document, plan)
        if kind is RotationKind.ROLLBACK:
            incoming = Incoming(self.ring.key(KeyName(KeyPurpose.ROOT, "", numbers.root.after)))
        else:
            made = {name: KeyMemory.generate() for name in numbers.new_names}
            incoming = Incoming(KeyMemory.generate(), made)
        self._go(self.ring.replaced(rules.prepared(self.ring, plan, numbers, incoming, AT)))
        return incoming

    def flip(self, incoming: Incoming) -> None:
        ring = self.ring
        auth = {slot.id: ring.auth(slot.id) for slot in ring.document.slots}
        slots = rules.sealed_slots(ring.document, incoming.root, auth, AT)
        self._go(ring.replaced(rules.backed_up(ring.document, slots, 1, AT)))
        following = flipped(self.ring.document, AT, has_keepers=False)
        self._go(self.ring.succeeded(following, incoming.root, incoming.added))

    def finalize(self) -> None:
        ring = self.ring
        if ring.document.rotation is not None and not ring.document.rotation.verified_at:
            ring = ring.replaced(rules.verified(ring.document, AT, {}))
        ring = ring.replaced(rules.finalizing(ring.document, AT, "nexus"))
        self._go(ring.changed(rules.finalized(ring.document, AT, {}), {}))

    def _go(self, ring: KeyRing) -> None:
        self.rings.append(ring)


def raw_of(ring: KeyRing, access: int = 1, **changed: object) -> bytes:
    statement = msgspec.structs.replace(anchor.anchor_of(ring.document, access), **changed)
    return anchor.encode(statement, ring.root)


def weighed(at: KeyRing, *raws: bytes) -> Weighed:
    return weigh_untrusted(raws, at.document, at.roots)


def objection(at: KeyRing, raw: bytes) -> Objection | None:
    return staleness.by_weighed(at.document, 1, weighed(at, raw), "somebody's anchor")


def rotated(*, kind: str) -> Life:
    """Return a life with one rotation, and what came after it."""
    life = Life()
    if kind == "emergency":
        life.flip(life.prepare(scope=Scope.FULL, emergency=Emergency(("root",))))
        return life
    life.flip(life.prepare())
    if kind in ("rolled back", "rolled back for good"):
        life.flip(life.prepare(RotationKind.ROLLBACK))
    if kind in ("finalized", "rolled back for good"):
        life.finalize()
    return life


LIVES = ["flipped", "finalized", "emergency", "rolled back", "rolled back for good"]


@pytest.mark.parametrize("kind", LIVES)
def test_every_older_keyring_of_a_life_is_objected_to_by_each_anchor_of_a_later_epoch(
    kind: str,
) -> None:
    """Whatever came between: an old copy is never taken for current, and the present one never for old."""
    life = rotated(kind=kind)
    found = []
    for later, ring in enumerate(life.rings):
        raw = raw_of(ring)
        for earlier, copy in enumerate(life.rings):
            against = objection(copy, raw)
            if earlier >= later:
                assert against is None, (kind, earlier, later)
            else:
                assert against is not None, (kind, earlier, later)
                assert against.reason is Reason.STALE_STORE
                found.append(against.proven)
    assert {True, False} == set(found)


@pytest.mark.parametrize("kind", LIVES)
def test_what_was_accepted_holds_against_the_anchor_it_was_accepted_over(kind: str) -> None:
    life = rotated(kind=kind)
    raw = raw_of(life.ring, access=5)
    for copy in life.rings[:-1]:
        against = objection(copy, raw)
        assert against is not None
        following = restore.recovered(copy.document, AT, "nexus", "0" * 32, accepted=[against])
        after = copy.replaced(following)
        access = 1 + max(1, against.reached.access_generation)
        again = staleness.by_weighed(following, access, weighed(after, raw), "it")
        assert again is None, (kind, copy.document.age)
        # What the accepted copy says of itself is confirmed, and is beyond what it was accepted over.
        assert following.epoch > life.ring.document.epoch


def test_a_root_key_that_is_kept_confirms_what_was_said_with_it() -> None:
    life = rotated(kind="flipped")
    back = rotated(kind="rolled back")
    middle, after = back.rings[-4], back.ring
    assert middle.document.active_root.number == 2
    assert after.document.active_root.number == 1
    found = weighed(middle, raw_of(after))
    assert [seen.epoch for seen in found.valid] == [after.document.epoch]
    against = objection(middle, raw_of(after))
    assert against is not None
    assert against.proven
    assert objection(life.ring, raw_of(life.rings[0])) is None


@pytest.mark.parametrize("kind", ["finalized", "emergency", "rolled back", "rolled back for good"])
def test_an_anchor_of_the_past_says_nothing_whatever_it_says(kind: str) -> None:
    """Who knows a root key that has ended, because it had leaked, can say anything with it."""
    life = rotated(kind=kind)
    past = next(
        ring for ring in life.rings if ring.document.active_root.number not in life.ring.roots
    )
    for made in ({}, {"epoch": 1 << 62}, {"access_generation": 1 << 62}):
        found = weighed(life.ring, raw_of(past, **made))
        assert found == Weighed((), (), ())


def test_an_anchor_that_a_key_at_hand_does_not_confirm_is_told_and_ignored() -> None:
    life = rotated(kind="flipped")
    with KeyMemory.generate() as guess:
        for number in (1, 2):
            statement = msgspec.structs.replace(
                anchor.anchor_of(life.ring.document, 1), epoch=99, generation=number
            )
            found = weighed(life.ring, anchor.encode(statement, guess))
            assert found == Weighed((), (), ("the anchor is not authentic",))


def made_up(held: Keyring, **changed: object) -> bytes:
    """Return what somebody writes who knows no root key at all."""
    statement = msgspec.structs.replace(anchor.anchor_of(held, 1), **changed)
    with KeyMemory.generate() as guess:
        return anchor.encode(statement, guess)


@pytest.mark.parametrize(
    ("changed", "reason", "reached"),
    [
        ({"generation": 7, "epoch": 9}, Reason.STALE_STORE, (9, 0, 1)),
        ({"generation": 7, "epoch": 9, "access_generation": 4}, Reason.STALE_STORE, (9, 0, 4)),
        ({"generation": 7, "epoch": 1 << 62}, Reason.STALE_STORE, (0, 0, 0)),
        (
            {"generation": 7, "epoch": 9, "access_generation": 1 << 62},
            Reason.STALE_STORE,
            (0, 0, 0),
        ),
        ({"generation": 7, "epoch": 9, "lineage": OTHER}, Reason.FOREIGN, (0, 0, 0)),
        ({"generation": 1, "epoch": 9, "lineage": OTHER}, Reason.FOREIGN, (0, 0, 0)),
    ],
)
def test_a_made_up_anchor_is_told_as_somebodys_word_and_followed_no_further(
    changed: dict[str, object], reason: Reason, reached: tuple[int, ...]
) -> None:
    ring = lifecycle_kit.born().ring
    against = objection(ring, made_up(ring.document, **changed))
    assert against is not None
    assert (against.reason, against.proven, tuple(against.reached)) == (reason, False, reached)
    assert "which no root key at hand confirms" in against.message
    following = restore.recovered(ring.document, AT, "nexus", "0" * 32, accepted=[against])
    assert following.epoch <= ring.document.epoch + LEAP_LIMIT + 1


def test_a_made_up_anchor_that_is_not_beyond_the_store_says_nothing() -> None:
    ring = lifecycle_kit.born().ring
    assert objection(ring, made_up(ring.document, generation=7)) is None
    assert objection(ring, made_up(ring.document, generation=7, epoch=0)) is None


def test_of_two_lives_with_one_origin_each_names_the_other() -> None:
    """The numbers of generations are the same in both, and the keys are not."""
    life = Life()
    other = life.ring.replaced(msgspec.structs.replace(life.ring.document, lineage=OTHER, epoch=2))
    second = Life()
    second.rings = [other]
    for each in (life, second):
        each.flip(each.prepare())
        each.finalize()
    for one, two in ((life, second), (second, life)):
        against = objection(one.ring, raw_of(two.ring))
        assert against is not None
        assert (against.reason, against.proven) == (Reason.FOREIGN, False)


@pytest.mark.parametrize(("generation", "is_objection"), [(1, False), (2, False), (3, True)])
def test_a_keepers_share_of_what_a_rollback_goes_back_from_does_not_stand_against_it(
    generation: int, is_objection: bool
) -> None:
    """Killed between the keyring and the Keepers, these hold committed shares of the higher generation."""
    held = rotated(kind="rolled back").ring.document
    claim = Claim(held.store_id, held.lineage, held.epoch, generation, "a" * 32)
    assert (staleness.by_claim(held, "Keeper 1", claim) is not None) == is_objection


def test_a_share_of_a_root_key_that_is_still_to_come_stands_against_a_store() -> None:
    life = Life()
    life.prepare()
    held = life.ring.document
    claim = Claim(held.store_id, held.lineage, held.epoch, 2, "a" * 32)
    assert staleness.by_claim(held, "Keeper 1", claim) is not None


def backup_of(ring: KeyRing) -> bytes:
    raw = keyring.encode(ring.document, ring.root)
    return backup.encode(raw, raw_of(ring), AT, ring.document, ring.root)


@pytest.mark.parametrize("kind", LIVES)
def test_a_backup_and_a_store_of_other_root_keys_are_told_apart(kind: str) -> None:
    """With a root key of its own each looks right by itself."""
    life = rotated(kind=kind)
    for later in range(1, len(life.rings)):
        new, old = life.rings[later], life.rings[0]
        stored = keyring.encode(old.document, old.root)
        against = restore.compare_copies(new.document, stored, new.roots)
        assert against is not None
        assert "the backup had seen" in against.message
        stored = keyring.encode(new.document, new.root)
        if new.document.active_root.number == old.document.active_root.number:
            with pytest.raises(RefusalError) as caught:
                restore.compare_copies(old.document, stored, old.roots)
            assert caught.value.reason is Reason.OLD
            continue
        against = restore.compare_copies(old.document, stored, old.roots)
        assert against is not None
        assert (against.reason, against.proven) == (Reason.STALE_STORE, False)
        assert "the store's own keyring" in against.message


def test_a_root_key_that_is_kept_does_not_say_that_a_pending_backup_came_into_force() -> None:
    """The rotation was dropped, and the store went on under the root key before it."""
    life = Life()
    incoming = life.prepare()
    ring = life.ring
    auth = {slot.id: ring.auth(slot.id) for slot in ring.document.slots}
    slots = rules.sealed_slots(ring.document, incoming.root, auth, AT)
    ready = ring.replaced(rules.backed_up(ring.document, slots, 1, AT))
    following = flipped(ready.document, AT, has_keepers=False)
    after = ready.succeeded(following, incoming.root, incoming.added)
    raw = keyring.encode(following, incoming.root)
    pending = backup.encode(raw, raw_of(after), AT, following, incoming.root, pending=True)
    went_on = raw_of(life.rings[0], epoch=following.epoch + 3)
    candidate = restore.choose(None, pending)
    seen: tuple[Anchor, ...] = weighed(after, went_on).valid
    assert [each.generation for each in seen] == [1]
    with pytest.raises(RefusalError) as caught:
        restore.require_in_force(candidate, following, None, incoming.root, seen)
    assert caught.value.reason is Reason.PENDING
    restore.require_in_force(
        candidate, following, None, incoming.root, (*seen, *weighed(after, raw_of(after)).valid)
    )
