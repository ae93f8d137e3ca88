"""Attacks on the documents of the root key's life: what a storage writer plants must end as a named refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
import pytest

import lifecycle_kit
from spike.error import FormatError
from spike.lifecycle import anchor, keyring, restore
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.refusal import Reason, RefusalError

LATER = "2026-11-24T12:00:00Z"


@pytest.fixture
def born() -> Iterator[lifecycle_kit.Born]:
    made = lifecycle_kit.born()
    yield made
    made.ring.wipe()


def refused(reason: Reason) -> pytest.RaisesExc[RefusalError]:
    return pytest.raises(RefusalError, check=lambda error: error.reason is reason)


def planted(born: lifecycle_kit.Born, changed: Keyring) -> bytes:
    """Return the keyring as a storage writer would change it: well-formed, its MAC left as it was."""
    head, _, tail, _ = born.raw.split(b"\n")
    return b"\n".join([head, msgspec.json.encode(changed), tail, b""])


def root_without_history(held: Keyring) -> Keyring:
    return msgspec.structs.replace(
        held, roots=(msgspec.structs.replace(held.roots[0], history=()),)
    )


def key_without_history(held: Keyring) -> Keyring:
    first, *others = held.keys
    return msgspec.structs.replace(held, keys=(msgspec.structs.replace(first, history=()), *others))


@pytest.mark.parametrize("change", [root_without_history, key_without_history])
def test_a_generation_without_a_state_is_damage_and_does_not_stand_in_a_backups_way(
    born: lifecycle_kit.Born, change: Callable[[Keyring], Keyring]
) -> None:
    raw = planted(born, change(born.ring.document))
    with pytest.raises(FormatError):
        keyring.decode_untrusted(raw)
    with refused(Reason.DAMAGED):
        restore.choose(raw, None)
    assert restore.compare_copies(born.ring.document, raw, born.ring.roots) is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("argon2", "$argon2id$v=19$m=1024,t=1,p=1"),
        ("argon2", "$argon2id$v=19$m=268435456,t=3,p=4"),
        ("argon2", ""),
        ("salt", b""),
        ("salt", b"\1" * 17),
        ("public", b"\1" * 32),
    ],
)
def test_a_slot_no_password_could_open_is_damaged_before_a_password_is_derived(
    born: lifecycle_kit.Born, field: str, value: object
) -> None:
    held = born.ring.document
    slot = msgspec.structs.replace(held.slots[0], **{field: value})
    raw = planted(born, msgspec.structs.replace(held, slots=(slot,)))
    with refused(Reason.DAMAGED):
        restore.choose_slot(restore.choose(raw, None).held, "")


def test_a_keyring_planted_under_another_name_does_not_lock_a_true_backup_out(
    born: lifecycle_kit.Born,
) -> None:
    """Nobody can tell whose it is: the records do, and they are opened before anything is written."""
    intruder = lifecycle_kit.born("intruder")
    assert restore.compare_copies(born.ring.document, intruder.raw, born.ring.roots) is None


def test_an_older_access_list_is_not_outweighed_by_a_newer_keyring(
    born: lifecycle_kit.Born,
) -> None:
    """A right revoked before the anchor was seen must not come back because a restore has happened since."""
    held = born.ring.document
    seen = anchor.anchor_of(held, 7)
    newer = restore.recovered(held, LATER, "nexus", held.slots[0].id)
    restore.require_current(newer, 7, (seen,))
    with refused(Reason.STALE_STORE):
        restore.require_current(newer, 6, (seen,))


def test_each_valid_anchor_is_held_against_the_store_not_the_highest_alone(
    born: lifecycle_kit.Born,
) -> None:
    held = born.ring.document
    high = msgspec.structs.replace(anchor.anchor_of(held, 1), epoch=1, revision=1)
    with refused(Reason.STALE_STORE):
        restore.require_current(
            msgspec.structs.replace(held, epoch=9), 1, (high, anchor.anchor_of(held, 2))
        )
    elsewhere = msgspec.structs.replace(high, lineage="0" * 32, epoch=0)
    with refused(Reason.FOREIGN):
        restore.require_current(held, 1, (high, elsewhere))
