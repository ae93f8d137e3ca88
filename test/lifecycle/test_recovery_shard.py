"""Recovery shards as pure rules: the keyring that names them, what a collection takes, what is kept of them."""

from __future__ import annotations

import contextlib
import itertools
import secrets
from collections.abc import Callable, Iterator

import msgspec
import pytest

import lifecycle_kit
from spike.crypto import shamir
from spike.crypto.slot import SlotKey
from spike.error import FormatError
from spike.lifecycle import anchor, keyring, recovery_shard, staleness
from spike.lifecycle.keyring import Keyring, LifecycleOperation, RecoveryShards, Slot, SlotKind
from spike.lifecycle.recovery_shard import Collection, NewShardSlot
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.staleness import Objection
from spike.lifecycle.state import State
from spike.lifecycle.witness import Claim
from spike.memory.key_memory import KeyMemory

AT = "2026-11-24T03:00:00Z"
RECOVER = "spiffe://spike.ist/spike/pilot/role/recover"


class Handed:
    """A ring with a slot of shards, the shards, and the secret they were made of."""

    def __init__(self, before: KeyRing, shares: int = 3, threshold: int = 2) -> None:
        held = before.document
        self.id = secrets.token_hex(16)
        self.secret = KeyMemory.generate()
        self.shards = shamir.split(self.secret, threshold, range(1, shares + 1))
        self.key = SlotKey.from_slot_secret(
            self.secret, bytes.fromhex(held.store_id), bytes.fromhex(self.id)
        )
        digests = tuple(
            recovery_shard.digest_of(held.store_id, self.id, index, shard)
            for index, shard in self.shards.items()
        )
        auth = lifecycle_kit.copy_of(self.key.auth)
        self.new = NewShardSlot(self.id, self.key.public, auth, threshold, digests)
        self.document = recovery_shard.with_shards(held, before.root, self.new, AT, RECOVER)
        self.ring = before.changed(self.document, {recovery_shard.key_name(self.id): auth})

    @property
    def slot(self) -> Slot:
        slot = self.document.shard_slot
        assert slot is not None
        return slot

    def collection(self) -> Collection:
        assert self.slot.shards is not None
        return Collection(self.document.store_id, self.slot, self.slot.shards)


@pytest.fixture
def ring() -> KeyRing:
    return lifecycle_kit.born().ring


@contextlib.contextmanager
def refused(reason: Reason) -> Iterator[None]:
    with pytest.raises(RefusalError) as caught:
        yield
    assert caught.value.reason is reason


def test_a_keyring_without_shards_keeps_its_bytes(ring: KeyRing) -> None:
    raw = keyring.encode(ring.document, ring.root)
    assert b'"shards"' not in raw
    assert keyring.encode(keyring.decode_untrusted(raw).hint, ring.root) == raw


def test_a_new_set_is_one_step_and_the_next_one_ends_it(ring: KeyRing) -> None:
    first = Handed(ring)
    document = first.document
    assert (document.epoch, document.revision) == (
        ring.document.epoch + 1,
        ring.document.revision + 1,
    )
    assert document.outbox[-1].kind == "recover"
    assert document.outbox[-1].detail == {"set": first.id, "shards": "3", "threshold": "2"}
    raw = keyring.encode(document, ring.root)
    assert keyring.decode_untrusted(raw).confirmed_by(ring.root) == document
    second = Handed(first.ring)
    assert second.document.shard_slot == second.slot
    assert len(second.document.slots) == 2
    assert second.document.outbox[-1].detail["replaced"] == first.id
    ended = [key for key in second.document.keys if key.slot == first.id]
    assert [(key.state, key.wrapped) for key in ended] == [(State.DESTROYED, b"")]
    first.ring.wipe_except(second.ring)
    assert first.new.auth.wiped
    assert second.ring.mismatches() == ()
    reopened = KeyRing.open(second.document, lifecycle_kit.copy_of(ring.root))
    assert reopened.auth(second.id).same_as(second.new.auth)


def test_a_ring_that_does_not_come_into_force_takes_its_new_key_alone_with_it(
    ring: KeyRing,
) -> None:
    handed = Handed(ring)
    handed.ring.wipe_except(ring)
    assert handed.new.auth.wiped
    assert ring.mismatches() == ()


def test_the_slot_is_named_so_that_no_other_name_is_in_the_way() -> None:
    for taken, name in (("admin", "shards"), ("shards", "shards-2")):
        assert Handed(lifecycle_kit.born(taken).ring).slot.name == name


def test_no_set_is_made_while_a_lifecycle_operation_is_in_progress(ring: KeyRing) -> None:
    operation = LifecycleOperation(
        id="0" * 32, kind="refresh", phase="prepared", started_at=AT, actor="nexus", detail={}
    )
    busy = ring.replaced(msgspec.structs.replace(ring.document, operation=operation))
    with refused(Reason.BUSY):
        Handed(busy)


@pytest.mark.parametrize(("shares", "threshold"), [(1, 1), (3, 2), (5, 3), (4, 4)])
def test_every_subset_of_enough_shards_gives_the_secret_and_fewer_do_not(
    ring: KeyRing, shares: int, threshold: int
) -> None:
    handed = Handed(ring, shares, threshold)
    assert recovery_shard.give_secret(handed.shards, threshold, handed.secret)
    for count in range(1, shares + 1):
        for subset in itertools.combinations(handed.shards, count):
            collection = handed.collection()
            for index in subset:
                collection.add(index, handed.shards[index])
                collection.add(index, handed.shards[index])
            assert (collection.collected, collection.remaining) == (
                count,
                max(0, threshold - count),
            )
            with collection.secret() as secret:
                assert secret.same_as(handed.secret) == (count >= threshold)
            collection.wipe()
            assert collection.collected == 0


def test_shards_that_do_not_give_the_secret_are_found_before_they_are_handed_out(
    ring: KeyRing,
) -> None:
    handed = Handed(ring, 5, 3)
    for index in handed.shards:
        with KeyMemory.generate() as bad:
            shards = {**handed.shards, index: bad}
            assert not recovery_shard.give_secret(shards, 3, handed.secret)


def test_a_collection_takes_the_shards_of_its_set_and_no_other(ring: KeyRing) -> None:
    handed, other = Handed(ring), Handed(ring)
    collection = handed.collection()
    for index, value in (
        (1, other.shards[1]),
        (2, handed.shards[1]),
        (0, handed.shards[1]),
        (4, handed.shards[1]),
        (256, handed.shards[1]),
    ):
        with refused(Reason.WRONG_SHARD):
            collection.add(index, value)
    assert collection.collected == 0
    collection.add(1, handed.shards[1])
    handed.shards[1].wipe()
    collection.add(2, handed.shards[2])
    with collection.secret() as secret:
        assert secret.same_as(handed.secret), "it holds copies of its own"


def test_a_collection_is_for_its_slot_exactly_as_it_was_described(ring: KeyRing) -> None:
    handed = Handed(ring)
    collection, slot = handed.collection(), handed.slot
    store_id = handed.document.store_id
    assert collection.is_for(store_id, slot)
    assert not collection.is_for("0" * 32, slot)
    assert slot.shards is not None
    for changed in (
        msgspec.structs.replace(slot, id="0" * 32),
        msgspec.structs.replace(slot, public=slot.public[::-1]),
        msgspec.structs.replace(slot, shards=RecoveryShards(1, slot.shards.digests)),
    ):
        assert not collection.is_for(store_id, changed)


def two_sets(held: Keyring, slot: Slot) -> Keyring:
    twin = msgspec.structs.replace(slot, id="1" * 32, name="twin")
    keys = [msgspec.structs.replace(k, slot=twin.id) for k in held.keys if k.slot == slot.id]
    return msgspec.structs.replace(held, slots=(*held.slots, twin), keys=(*held.keys, *keys))


def with_slot(held: Keyring, slot: Slot) -> Keyring:
    kept = tuple(each for each in held.slots if each.id != slot.id)
    return msgspec.structs.replace(held, slots=(*kept, slot))


CONTRADICTIONS: dict[str, Callable[[Keyring, Slot], Keyring]] = {
    "two sets": two_sets,
    "shards without shards": lambda held, slot: with_slot(
        held, msgspec.structs.replace(slot, shards=None)
    ),
    "a password with shards": lambda held, slot: with_slot(
        held, msgspec.structs.replace(slot, kind=SlotKind.PASSWORD)
    ),
    "more needed than there are": lambda held, slot: with_slot(
        held,
        msgspec.structs.replace(slot, shards=RecoveryShards(threshold=4, digests=("0" * 64,) * 3)),
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_keyring_that_contradicts_itself_about_shards_is_refused(
    ring: KeyRing, name: str
) -> None:
    handed = Handed(ring)
    with pytest.raises(FormatError):
        keyring.encode(CONTRADICTIONS[name](handed.document, handed.slot), ring.root)


# What says that a store is old.


LEAP = 1 << 32


def claims_of(held: Keyring, *claims: Claim) -> list[Objection]:
    found = [staleness.by_claim(held, "k", claim) for claim in claims]
    return [each for each in found if each is not None]


def test_what_was_accepted_is_gone_beyond_in_each_number(ring: KeyRing) -> None:
    held = ring.document
    furthest = held.epoch + LEAP
    claims = [Claim(held.store_id, held.lineage, epoch, 1, "") for epoch in (9, furthest)]
    assert staleness.above(held, claims_of(held, *claims)) == (furthest, held.revision, 0)


def test_a_claim_further_than_a_leap_is_told_and_not_followed(ring: KeyRing) -> None:
    held = ring.document
    for generation, epoch in itertools.product((1, 2), (held.epoch + LEAP + 1, (1 << 63) - 1)):
        claim = Claim(held.store_id, held.lineage, epoch, generation, "")
        (objection,) = claims_of(held, claim)
        assert f"epoch {epoch}; " in objection.message
        assert "not followed" in objection.message
        assert staleness.above(held, [objection]).epoch == held.epoch


def test_no_number_of_another_store_or_lineage_is_followed(ring: KeyRing) -> None:
    held = ring.document
    claims = [
        Claim("f" * 32, held.lineage, held.epoch + 5, 1, ""),
        Claim(held.store_id, "f" * 32, held.epoch + 5, 1, ""),
    ]
    objections = claims_of(held, *claims)
    assert len(objections) == 2
    assert staleness.above(held, objections).epoch == held.epoch


def test_each_number_that_is_followed_stands_in_the_message(ring: KeyRing) -> None:
    held = ring.document
    seen = anchor.anchor_of(msgspec.structs.replace(held, epoch=71, revision=72), 73)
    other = msgspec.structs.replace(seen, lineage="f" * 32)
    objections = [
        *claims_of(held, Claim(held.store_id, held.lineage, 81, 1, "")),
        *claims_of(held, Claim(held.store_id, held.lineage, 82, 2, "")),
        staleness.by_anchor(held, 1, seen, "x"),
        staleness.by_anchor(held, 1, other, "x"),
        staleness.by_fence(held, 83),
    ]
    for objection in objections:
        assert objection is not None
        for number in filter(None, objection.reached):
            assert f" {number}" in objection.message


def test_a_fence_beyond_all_that_is_proven_cannot_be_accepted(ring: KeyRing) -> None:
    held = ring.document
    fence = staleness.by_fence(held, held.epoch + LEAP + 1)
    assert fence is not None
    assert "--backup" in fence.next_step
    with refused(Reason.DAMAGED):
        staleness.above(held, [fence])
    seen = anchor.anchor_of(msgspec.structs.replace(held, epoch=held.epoch + 9), 1)
    proof = staleness.by_anchor(held, 1, seen, "x")
    assert proof is not None
    assert staleness.above(held, [fence, proof]).epoch == held.epoch + LEAP + 1


def test_a_store_whose_own_epoch_is_enormous_can_still_be_brought_back(ring: KeyRing) -> None:
    """Whatever brought it there: its keyring is authentic, and so is an anchor."""
    held = msgspec.structs.replace(ring.document, epoch=(1 << 62) + 1, revision=(1 << 62) + 1)
    assert staleness.above(held, []).epoch == held.epoch
    further = msgspec.structs.replace(held, epoch=held.epoch + LEAP + 5)
    proof = staleness.by_anchor(held, 1, anchor.anchor_of(further, 1), "x")
    assert proof is not None
    assert staleness.above(held, [proof]).epoch == further.epoch


def test_a_claim_that_is_not_beyond_the_store_objects_to_nothing(ring: KeyRing) -> None:
    held = ring.document
    claim = Claim(held.store_id, held.lineage, held.epoch, held.active_root.number, "f" * 32)
    assert staleness.by_claim(held, "k", claim) is None
    assert staleness.by_fence(held, held.epoch) is None
