"""The keyring document: one canonical encoding, authenticated, and refused when anything in it is wrong."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import msgspec
import pytest

import lifecycle_kit
from size import record, seed, size
from spike.crypto.purpose import Purpose, purpose_key
from spike.error import FormatError, NewerFormatError, OpenError, RefusedError
from spike.lifecycle import document, keyring
from spike.lifecycle.keyring import KeyPurpose, Keyring, WrappedKey
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.state import State, Transition
from spike.memory.key_memory import KeyMemory


@pytest.fixture
def born() -> Iterator[lifecycle_kit.Born]:
    made = lifecycle_kit.born()
    yield made
    made.ring.wipe()


def test_what_is_accepted_re_encodes_to_the_same_bytes(born: lifecycle_kit.Born) -> None:
    read = keyring.decode_untrusted(born.raw)
    confirmed = read.confirmed_by(born.ring.root)
    assert confirmed == born.ring.document
    assert keyring.encode(confirmed, born.ring.root) == born.raw


def test_another_root_key_does_not_confirm_it(born: lifecycle_kit.Born) -> None:
    with KeyMemory.generate() as other:
        assert keyring.decode_untrusted(born.raw).confirmed_by(other) is None


def test_no_changed_byte_is_ever_confirmed(born: lifecycle_kit.Born) -> None:
    chosen = seed()
    print("seed", chosen)
    chance = random.Random(chosen)
    rounds = size(test=600, proof=20_000)
    for _ in range(rounds):
        raw = bytearray(born.raw)
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        with contextlib.suppress(FormatError):
            assert keyring.decode_untrusted(bytes(raw)).confirmed_by(born.ring.root) is None
    record("keyring: one bit flipped is never confirmed", rounds, "refused", seed=chosen)


@pytest.mark.parametrize("cut", [0, 1, 16, 100, -1, -2, -70])
def test_a_cut_or_extended_document_is_refused(born: lifecycle_kit.Born, cut: int) -> None:
    for raw in (born.raw[:cut], born.raw + b"x", born.raw + b"\n", born.raw + born.raw):
        with pytest.raises(FormatError):
            keyring.decode_untrusted(raw)


def test_a_newer_format_is_refused_naming_the_one_needed(born: lifecycle_kit.Born) -> None:
    newer = born.raw.replace(b"spike-keyring 1\n", b"spike-keyring 3\n")
    with pytest.raises(NewerFormatError, match="format 3") as caught:
        keyring.decode_untrusted(newer)
    assert "keyring format 3" in caught.value.next_step


def test_a_document_carries_the_lowest_format_that_holds_it(born: lifecycle_kit.Born) -> None:
    with pytest.raises(FormatError, match="another format"):
        keyring.decode_untrusted(born.raw.replace(b"spike-keyring 1\n", b"spike-keyring 2\n"))


def test_more_than_a_mebibyte_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(FormatError, match="larger"):
        keyring.decode_untrusted(b"spike-keyring 1\n" + b" " * (1 << 20))


def signed(body: bytes, ring: KeyRing) -> bytes:
    """Return a document with a valid MAC around any body, as only an owner of the root key could make it."""
    store = bytes.fromhex(ring.document.store_id)
    covered = b"spike-keyring 1\n" + body + b"\n"
    with purpose_key(ring.root, Purpose.KEYRING_MAC, store, 1) as key:
        whole = document.compose("keyring", 1, msgspec.Raw(body), key)  # type: ignore[arg-type]  # a body as is
    assert whole.startswith(covered)
    return whole


@pytest.mark.parametrize(
    ("change", "into"),
    [
        (b'{"store_id"', b'{ "store_id"'),
        (b'"share_sets":[]', b'"share_sets":null'),
        (b'"epoch":1', b'"epoch":1.0'),
        (b'"epoch":1', b'"epoch":-1'),
        (b'"epoch":1', b'"epoch":1,"epoch":1'),
        (b'"epoch":1', b'"epoch":1,"extra":0'),
        (b'"audit_head":""', b'"audit_head":"\\u0000"'),
    ],
)
def test_a_second_encoding_of_the_same_thing_is_refused_even_with_a_valid_mac(
    born: lifecycle_kit.Born, change: bytes, into: bytes
) -> None:
    body = born.raw.split(b"\n")[1]
    assert change in body
    with pytest.raises(FormatError, match="damaged"):
        keyring.decode_untrusted(signed(body.replace(change, into), born.ring))


def with_key(held: Keyring, **changes: object) -> Keyring:
    first, *others = held.keys
    return msgspec.structs.replace(held, keys=(msgspec.structs.replace(first, **changes), *others))


def test_a_keyring_that_contradicts_itself_is_neither_written_nor_read(
    born: lifecycle_kit.Born,
) -> None:
    held = born.ring.document
    root = held.roots[0]
    suspended = Transition(state=State.SUSPENDED, at=lifecycle_kit.AT, actor="nexus", reason="test")
    contradictions = [
        msgspec.structs.replace(held, roots=()),
        msgspec.structs.replace(held, roots=(root, root)),
        msgspec.structs.replace(
            held, roots=(msgspec.structs.replace(root, history=(*root.history, suspended)),)
        ),
        msgspec.structs.replace(held, keys=held.keys[1:]),
        msgspec.structs.replace(held, keys=(*held.keys, held.keys[0])),
        msgspec.structs.replace(held, slots=(held.slots[0], held.slots[0])),
        with_key(held, root=2),
    ]
    for contradiction in contradictions:
        with pytest.raises(FormatError):
            keyring.encode(contradiction, born.ring.root)
        with pytest.raises(FormatError):
            keyring.decode_untrusted(signed(msgspec.json.encode(contradiction), born.ring))


def test_a_ring_opened_from_the_document_holds_the_same_keys(born: lifecycle_kit.Born) -> None:
    again = KeyRing.open(born.ring.document, lifecycle_kit.copy_of(born.ring.root))
    assert again.active_record.key.same_as(born.ring.active_record.key)
    assert again.auth(born.ring.document.slots[0].id).same_as(born.slot_key.auth)
    assert again.mismatches() == ()
    again.wipe()
    assert not born.ring.root.wiped


def test_a_ring_does_not_open_with_another_root_key_and_wipes_it(born: lifecycle_kit.Born) -> None:
    other = KeyMemory.generate()
    with pytest.raises(RefusedError, match="check value"):
        KeyRing.open(born.ring.document, other)
    assert other.wiped


def test_wrapped_keys_cannot_be_exchanged_within_the_document(born: lifecycle_kit.Born) -> None:
    held = born.ring.document
    first, second, *others = held.keys
    swapped = msgspec.structs.replace(
        held,
        keys=(
            msgspec.structs.replace(first, wrapped=second.wrapped),
            msgspec.structs.replace(second, wrapped=first.wrapped),
            *others,
        ),
    )
    with pytest.raises(OpenError):
        KeyRing.open(swapped, lifecycle_kit.copy_of(born.ring.root))


def test_the_minute_check_names_each_key_whose_bytes_changed(born: lifecycle_kit.Born) -> None:
    with born.ring.active_record.key.view() as view:
        view[7] ^= 1
    assert born.ring.mismatches() == ("record 1",)
    with born.ring.root.view() as view:
        view[31] ^= 0x80
    assert set(born.ring.mismatches()) == {"root", "record 1"}


def test_there_is_one_key_for_each_purpose_and_all_are_different(born: lifecycle_kit.Born) -> None:
    wrapped: list[WrappedKey] = list(born.ring.document.keys)
    assert sorted(key.purpose for key in wrapped) == sorted(set(KeyPurpose) - {KeyPurpose.ROOT})
    assert len({key.check for key in wrapped}) == len(wrapped)


def test_a_keyring_that_could_not_be_read_again_is_not_written() -> None:
    born = lifecycle_kit.born()
    far = msgspec.structs.replace(born.ring.document, replaced_at="tomorrow")
    with pytest.raises(FormatError):
        keyring.encode(far, born.ring.root)
