from __future__ import annotations

import hashlib
import hmac
from typing import Any

import pytest

from spike.crypto.derivation import derive_into
from spike.crypto.mac import mac, mac_matches
from spike.crypto.purpose import (
    Purpose,
    check_value,
    check_value_matches,
    data_check_value,
    purpose_key,
)
from spike.error import WipedError
from spike.memory import KeyMemory
from vector_file import load

STORE = bytes(range(16))
# Ours has neither salt nor room for more than HKDF gives: only these vectors apply as they are.
HKDF = [
    case
    for case in load("hkdf_sha512_test.json")
    if not case["salt"] and case["result"] == "valid" and case["size"] <= 16_320
]


def memory_of(data: bytes) -> KeyMemory:
    memory = KeyMemory.allocate(len(data))
    with memory.view() as view:
        view[:] = data
    return memory


def content(memory: KeyMemory) -> bytes:
    with memory.view() as view:
        return bytes(view)


@pytest.mark.parametrize("case", HKDF, ids=lambda case: str(case["tcId"]))
def test_published_vectors_of_hkdf_sha512(case: dict[str, Any]) -> None:
    with memory_of(bytes.fromhex(case["ikm"])) as key, KeyMemory.allocate(case["size"]) as out:
        derive_into(key, bytes.fromhex(case["info"]), out)
        assert content(out) == bytes.fromhex(case["okm"])


def test_enough_vectors_apply() -> None:
    assert len(HKDF) >= 10


def test_more_than_hkdf_gives_is_refused() -> None:
    with (
        KeyMemory.generate() as key,
        KeyMemory.allocate(16_321) as out,
        pytest.raises(ValueError, match="16,320"),
    ):
        derive_into(key, b"", out)


def test_a_mac_is_the_first_half_of_hmac_sha_512() -> None:
    with memory_of(b"k" * 32) as key:
        expected = hmac.new(b"k" * 32, b"message", hashlib.sha512).digest()[:32]
        assert mac(key, b"message") == expected
        assert mac_matches(key, b"message", expected)


def test_a_wrong_tag_or_message_or_key_does_not_match() -> None:
    with KeyMemory.generate() as key, KeyMemory.generate() as other:
        tag = mac(key, b"message")
        for index in range(32):
            wrong = bytearray(tag)
            wrong[index] ^= 1
            assert not mac_matches(key, b"message", bytes(wrong))
        for wrong_size in (b"", tag[:31], tag + b"\x00", tag * 2):
            assert not mac_matches(key, b"message", wrong_size)
        assert not mac_matches(key, b"messagf", tag)
        assert not mac_matches(other, b"message", tag)
        key.wipe()
        with pytest.raises(WipedError):
            mac(key, b"message")


def test_purpose_keys_are_the_documented_ones() -> None:
    """Computed a second time with the standard library alone, as a reader of the format would."""
    with memory_of(bytes(range(32))) as root, purpose_key(root, Purpose.WRAP, STORE, 7) as key:
        extracted = hmac.digest(bytes(64), bytes(range(32)), "sha512")
        info = b"spike/root/v1/wrap" + STORE + b"\x00\x00\x00\x07"
        assert content(key) == hmac.digest(extracted, info + b"\x01", "sha512")[:32]


def test_every_purpose_store_and_generation_has_a_key_of_its_own() -> None:
    with KeyMemory.generate() as root:
        keys = [
            content(purpose_key(root, purpose, store, generation))
            for purpose in Purpose
            for store in (STORE, bytes(16))
            for generation in (1, 2, 256, 0xFFFF_FFFF)
        ]
    assert len(set(keys)) == len(Purpose) * 2 * 4


def test_the_purposes_are_those_of_the_key_hierarchy() -> None:
    assert [purpose.value for purpose in Purpose] == [
        "wrap",
        "check",
        "keyring-mac",
        "backup-mac",
        "share-mac",
        "anchor-mac",
        "manifest-mac",
    ]


def test_a_check_value_confirms_one_key_in_one_store_and_generation() -> None:
    with KeyMemory.generate() as root, KeyMemory.generate() as other:
        expected = check_value(root, STORE, 3)
        assert len(expected) == 32
        assert check_value_matches(expected, check_value(root, STORE, 3))
        for found in (
            check_value(other, STORE, 3),
            check_value(root, bytes(16), 3),
            check_value(root, STORE, 4),
            data_check_value(root, "check", STORE, 3),
        ):
            assert not check_value_matches(expected, found)


def test_a_check_value_of_a_data_key_is_bound_to_its_purpose() -> None:
    with KeyMemory.generate() as key:
        values = {
            data_check_value(key, purpose, store, generation)
            for purpose in ("record", "recor", "cipher", "audit")
            for store in (STORE, bytes(16))
            for generation in (1, 2)
        }
    assert len(values) == 16


@pytest.mark.parametrize(("store", "generation"), [(b"short", 1), (STORE, 0), (STORE, 1 << 32)])
def test_what_a_key_is_bound_to_must_be_well_formed(store: bytes, generation: int) -> None:
    with KeyMemory.generate() as key:
        for derive in (
            lambda: purpose_key(key, Purpose.WRAP, store, generation),
            lambda: check_value(key, store, generation),
            lambda: data_check_value(key, "record", store, generation),
        ):
            with pytest.raises(ValueError, match=r"store id|generation"):
                derive()
        for purpose in ("", "ü", "x" * 256):
            with pytest.raises(ValueError, match="ASCII"):
                data_check_value(key, purpose, STORE, 1)
