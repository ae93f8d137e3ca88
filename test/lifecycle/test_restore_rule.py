"""The rules of a restore: what is believed, what is refused, and under which name."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

import lifecycle_kit
from spike.error import OpenError
from spike.lifecycle import anchor, backup, keyring, restore
from spike.lifecycle.history import drain
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.slot import header_of, is_authentic, seal_root
from spike.memory.key_memory import KeyMemory

LATER = "2026-11-24T12:00:00Z"


@pytest.fixture
def born() -> Iterator[lifecycle_kit.Born]:
    made = lifecycle_kit.born()
    yield made
    made.ring.wipe()


def refused(reason: Reason) -> pytest.RaisesExc[RefusalError]:
    return pytest.raises(RefusalError, check=lambda error: error.reason is reason)


def backup_of(ring: KeyRing, held: Keyring | None = None, access: int = 1) -> bytes:
    document = held or ring.document
    raw = keyring.encode(document, ring.root)
    statement = anchor.encode(anchor.anchor_of(document, access), ring.root)
    return backup.encode(raw, statement, lifecycle_kit.AT, document, ring.root)


def opened(born: lifecycle_kit.Born, held: Keyring, slot_name: str = "") -> KeyMemory:
    """Open a slot as the password child does."""
    chosen = restore.choose_slot(keyring.decode_untrusted(born.raw), slot_name)
    header = header_of(held, chosen.slot, chosen.sealed)
    assert is_authentic(born.slot_key.auth, header, chosen.sealed)
    root = KeyMemory.allocate(32)
    born.slot_key.open_into(chosen.sealed.sealed, header, root)
    return root


def test_the_slot_gives_the_root_key_back(born: lifecycle_kit.Born) -> None:
    with opened(born, born.ring.document) as root:
        assert root.same_as(born.ring.root)
        assert restore.confirm(restore.choose(born.raw, None), root) == born.ring.document


def test_nothing_stored_is_named() -> None:
    with refused(Reason.NOT_INITIALIZED):
        restore.choose(None, None)


@pytest.mark.parametrize("part", ["stored", "handed in"])
def test_a_damaged_or_newer_copy_is_named(born: lifecycle_kit.Born, part: str) -> None:
    good = born.raw if part == "stored" else backup_of(born.ring)
    thing = b"spike-keyring" if part == "stored" else b"spike-backup"

    def choose(raw: bytes) -> object:
        return restore.choose(raw, None) if part == "stored" else restore.choose(None, raw)

    choose(good)
    for raw in (b"", good[:-1], good[1:], good + b"\n", b"\0" * 100, good.replace(b'"', b"'", 1)):
        with refused(Reason.DAMAGED):
            choose(raw)
    with refused(Reason.NEWER_FORMAT):
        choose(good.replace(thing + b" 1\n", thing + b" 9\n"))


def test_an_unknown_slot_is_named(born: lifecycle_kit.Born) -> None:
    with pytest.raises(RefusalError, match="nobody") as caught:
        restore.choose_slot(keyring.decode_untrusted(born.raw), "nobody")
    assert caught.value.reason is Reason.UNKNOWN_SLOT
    assert "admin" in caught.value.next_step


def test_no_part_of_the_header_can_be_changed_without_breaking_seal_and_mac(
    born: lifecycle_kit.Born,
) -> None:
    held = born.ring.document
    slot, sealed = held.slots[0], held.slots[0].roots[0]
    changed_slots = [
        msgspec.structs.replace(slot, **{field: value})
        for field, value in {
            "id": "0" * 32,
            "name": "other",
            "argon2": "$argon2id$v=19$m=131072,t=3,p=4",
            "salt": b"\0" * 16,
            "public": b"\0" * 1216,
        }.items()
    ]
    changed_roots = [
        msgspec.structs.replace(sealed, **{field: value})
        for field, value in {
            "generation": 2,
            "check": "0" * 64,
            "sealed_at": LATER,
            "pending": True,
        }.items()
    ]
    cases = [(held, other, sealed) for other in changed_slots]
    cases += [(held, slot, other) for other in changed_roots]
    cases += [
        (msgspec.structs.replace(held, store_id="0" * 32), slot, sealed),
        (msgspec.structs.replace(held, lineage="0" * 32), slot, sealed),
    ]
    for changed_keyring, changed_slot, changed_root in cases:
        header = header_of(changed_keyring, changed_slot, changed_root)
        assert not is_authentic(born.slot_key.auth, header, changed_root)
        with KeyMemory.allocate(32) as out, pytest.raises(OpenError):
            born.slot_key.open_into(changed_root.sealed, header, out)


def test_a_planted_root_key_sealed_to_the_public_key_is_not_authentic(
    born: lifecycle_kit.Born,
) -> None:
    """Anyone can seal to a public key; only the owner of the slot's backup-auth key can make the MAC."""
    held, slot = born.ring.document, born.ring.document.slots[0]
    with KeyMemory.generate() as planted, KeyMemory.generate() as guessed_auth:
        forged = seal_root(
            planted,
            store_id=held.store_id,
            lineage=held.lineage,
            slot=slot,
            auth=guessed_auth,
            generation=1,
            check=slot.roots[0].check,
            sealed_at=lifecycle_kit.AT,
        )
    assert not is_authentic(born.slot_key.auth, header_of(held, slot, forged), forged)


def test_a_slot_added_by_a_storage_writer_is_not_confirmed(born: lifecycle_kit.Born) -> None:
    held = born.ring.document
    other = lifecycle_kit.born("intruder")
    forged = msgspec.structs.replace(
        held,
        slots=(*held.slots, other.ring.document.slots[0]),
        keys=(*held.keys, other.ring.document.keys[3]),
    )
    line = born.raw.split(b"\n")
    raw = b"\n".join([line[0], msgspec.json.encode(forged), line[2], b""])
    with refused(Reason.PLANTED):
        restore.confirm(restore.choose(raw, None), born.ring.root)


def test_a_backup_of_another_lineage_is_foreign(born: lifecycle_kit.Born) -> None:
    moved = msgspec.structs.replace(born.ring.document, lineage="0" * 32)
    with refused(Reason.FOREIGN):
        restore.compare_copies(moved, born.raw, born.ring.roots)


def test_an_old_backup_does_not_replace_a_newer_keyring(born: lifecycle_kit.Born) -> None:
    newer = restore.recovered(born.ring.document, LATER, "nexus", "0" * 32)
    with refused(Reason.OLD):
        restore.compare_copies(
            born.ring.document, keyring.encode(newer, born.ring.root), born.ring.roots
        )


def test_a_backup_newer_than_the_store_means_the_store_is_an_old_copy(
    born: lifecycle_kit.Born,
) -> None:
    newer = restore.recovered(born.ring.document, LATER, "nexus", "0" * 32)
    against = restore.compare_copies(newer, born.raw, born.ring.roots)
    assert against is not None
    assert against.reason is Reason.STALE_STORE


@pytest.mark.parametrize(
    "present", [None, b"", b"garbage", b"spike-keyring 1\n{}\nmac " + b"0" * 64 + b"\n"]
)
def test_a_backup_may_take_the_place_of_a_lost_or_damaged_keyring(
    born: lifecycle_kit.Born, present: bytes | None
) -> None:
    assert restore.compare_copies(born.ring.document, present, born.ring.roots) is None


def test_a_backup_may_take_the_place_of_a_keyring_that_is_not_authentic(
    born: lifecycle_kit.Born,
) -> None:
    tampered = born.raw.replace(b'"revision":1', b'"revision":9')
    assert restore.compare_copies(born.ring.document, tampered, born.ring.roots) is None


@pytest.mark.parametrize(
    ("epoch", "revision", "access"), [(2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 0, 0)]
)
def test_a_higher_anchor_shows_that_the_store_is_an_old_copy(
    born: lifecycle_kit.Born, epoch: int, revision: int, access: int
) -> None:
    seen = msgspec.structs.replace(
        anchor.anchor_of(born.ring.document, access), epoch=epoch, revision=revision
    )
    with refused(Reason.STALE_STORE):
        restore.require_current(born.ring.document, 1, (seen,))


def test_an_anchor_of_another_lineage_is_foreign(born: lifecycle_kit.Born) -> None:
    seen = msgspec.structs.replace(anchor.anchor_of(born.ring.document, 1), lineage="0" * 32)
    with refused(Reason.FOREIGN):
        restore.require_current(born.ring.document, 1, (seen,))


def test_of_several_anchors_the_valid_ones_count_and_bad_ones_are_told(
    born: lifecycle_kit.Born,
) -> None:
    held, root = born.ring.document, born.ring.root
    low = anchor.encode(anchor.anchor_of(held, 1), root)
    high = anchor.encode(anchor.anchor_of(held, 7), root)
    other = lifecycle_kit.born()
    foreign = anchor.encode(anchor.anchor_of(other.ring.document, 99), other.ring.root)
    with KeyMemory.generate() as guess:
        forged = anchor.encode(anchor.anchor_of(held, 99), guess)
    weighed = anchor.weigh_untrusted(
        [low, b"", high, foreign, forged, high[:-2]], held, born.ring.roots
    )
    assert [valid.access_generation for valid in weighed.valid] == [1, 7]
    assert len(weighed.rejected) == 4


def test_a_recovery_is_an_epoch_and_is_noted(born: lifecycle_kit.Born) -> None:
    slot_id = born.ring.document.slots[0].id
    after = restore.recovered(born.ring.document, LATER, "spiffe://spike.ist/x", slot_id)
    assert after.age == (2, 2)
    assert after.slots[0].verified_at == LATER
    assert [(event.sequence, event.kind) for event in after.outbox] == [(1, "init"), (2, "restore")]
    keyring.decode_untrusted(keyring.encode(after, born.ring.root))


def test_events_leave_the_outbox_in_a_chain_that_is_the_same_each_time(
    born: lifecycle_kit.Born,
) -> None:
    after = restore.recovered(born.ring.document, LATER, "nexus", "0" * 32)
    first, again = drain(after, LATER), drain(after, LATER)
    assert first == again
    assert first is not None
    assert first.keyring.outbox == ()
    assert first.keyring.audit_head
    assert [key for key, _ in first.entries] == ["00000000000000000001", "00000000000000000002"]
    assert drain(first.keyring, LATER) is None


def test_a_key_backup_holds_the_whole_keyring_and_no_changed_byte_is_believed(
    born: lifecycle_kit.Born,
) -> None:
    raw = backup_of(born.ring)
    held = restore.choose(None, raw)
    assert restore.confirm(held, born.ring.root) == born.ring.document
    for position in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[position] ^= 1
        with pytest.raises(RefusalError):
            restore.confirm(restore.choose(None, bytes(changed)), born.ring.root)


def pending_of(ring: KeyRing) -> bytes:
    """Return the pending backup of the keyring that is to follow."""
    following = restore.recovered(ring.document, LATER, "nexus", "0" * 32)
    statement = anchor.encode(anchor.anchor_of(following, 1), ring.root)
    raw = keyring.encode(following, ring.root)
    return backup.encode(raw, statement, LATER, following, ring.root, pending=True)


def test_a_pending_backup_says_so_and_only_it_does(born: lifecycle_kit.Born) -> None:
    plain, pending = backup_of(born.ring), pending_of(born.ring)
    assert plain.startswith(b"spike-backup 1\n")
    assert b"pending" not in plain.partition(b'"keyring"')[0]
    assert pending.startswith(b"spike-backup 2\n")
    assert not backup.decode_untrusted(plain).pending
    assert backup.decode_untrusted(pending).pending


@pytest.mark.parametrize("kind", ["plain", "pending"])
def test_a_backup_cannot_be_made_to_say_otherwise(born: lifecycle_kit.Born, kind: str) -> None:
    raw, others = backup_of(born.ring), []
    if kind == "plain":
        newer = raw.replace(b"backup 1\n", b"backup 2\n")
        others = [newer, newer.replace(b'"}\n', b'","pending":true}\n')]
    else:
        raw = pending_of(born.ring)
        others = [
            raw.replace(b"backup 2\n", b"backup 1\n"),
            raw.replace(b',"pending":true', b""),
            raw.replace(b',"pending":true', b',"pending":false'),
            raw.replace(b"backup 2\n", b"backup 1\n").replace(b',"pending":true', b""),
        ]
    for other in others:
        assert other != raw
        with pytest.raises(RefusalError) as caught:
            restore.confirm(restore.choose(None, other), born.ring.root)
        assert caught.value.reason in (Reason.DAMAGED, Reason.PLANTED)


def in_force(born: lifecycle_kit.Born, stored: bytes | None, *seen: anchor.Anchor) -> None:
    candidate = restore.choose(None, pending_of(born.ring))
    confirmed = restore.confirm(candidate, born.ring.root)
    restore.require_in_force(candidate, confirmed, stored, born.ring.root, seen)


def test_a_pending_backup_counts_once_the_keyring_at_hand_names_its_root_key_active(
    born: lifecycle_kit.Born,
) -> None:
    in_force(born, born.raw)
    other = lifecycle_kit.born()  # what is at hand has another root key active
    with refused(Reason.PENDING):
        in_force(born, other.raw)
    tampered = born.raw.replace(b'"revision":1', b'"revision":9')
    with refused(Reason.PENDING):
        in_force(born, tampered)


@pytest.mark.parametrize("stored", [None, b"", b"garbage"])
def test_without_a_keyring_a_pending_backup_needs_an_anchor_that_is_as_far(
    born: lifecycle_kit.Born, stored: bytes | None
) -> None:
    at_hand = anchor.anchor_of(
        born.ring.document, 1
    )  # of before: epoch 1, and what is pending is of epoch 2
    reached = msgspec.structs.replace(at_hand, epoch=2)
    elsewhere = msgspec.structs.replace(at_hand, epoch=9, lineage="0" * 32)
    for seen in ((), (at_hand,), (elsewhere,)):
        with refused(Reason.PENDING):
            in_force(born, stored, *seen)
    in_force(born, stored, at_hand, reached)


def test_a_backup_that_is_not_pending_needs_no_such_word(born: lifecycle_kit.Born) -> None:
    candidate = restore.choose(None, backup_of(born.ring))
    restore.require_in_force(candidate, born.ring.document, None, born.ring.root, ())
