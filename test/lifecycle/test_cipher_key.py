"""Generations of the cipher key in a ring: the active one encrypts, the accepted ones decrypt."""

from __future__ import annotations

import msgspec
import pytest

import lifecycle_kit
from spike.error import FormatError, OpenError
from spike.lifecycle import keyring
from spike.lifecycle.ring import KeyRing


def test_a_newborn_store_encrypts_and_decrypts_with_generation_1() -> None:
    ring = lifecycle_kit.born().ring
    assert ring.active_cipher.generation == 1
    assert ring.cipher(1).same_as(ring.active_cipher.key)
    assert not ring.cipher(1).same_as(ring.record(1))


def test_an_older_generation_still_decrypts_and_the_newest_encrypts() -> None:
    first = lifecycle_kit.born().ring
    third = lifecycle_kit.with_next_cipher(lifecycle_kit.with_next_cipher(first))
    assert third.active_cipher.generation == 3
    assert third.cipher(1).same_as(first.cipher(1))
    assert not third.cipher(2).same_as(third.cipher(3))


def test_what_is_older_than_the_oldest_accepted_generation_is_refused() -> None:
    ring = lifecycle_kit.with_next_cipher(lifecycle_kit.born().ring)
    raised = lifecycle_kit.accepting_from(ring, 2)
    assert raised.cipher(2).same_as(ring.cipher(2))
    for generation in (0, 1, 3, 2**32 - 1):
        with pytest.raises(OpenError):
            raised.cipher(generation)


def test_the_oldest_accepted_generation_is_a_limit_of_the_cipher_key_alone() -> None:
    ring = lifecycle_kit.with_next_cipher(lifecycle_kit.born().ring)
    raised = lifecycle_kit.accepting_from(ring, 2)
    assert raised.record(1).same_as(ring.record(1))
    assert raised.active_record.generation == 1


def test_a_keyring_that_accepts_nothing_of_what_it_encrypts_is_refused() -> None:
    born = lifecycle_kit.born()
    wrong = msgspec.structs.replace(born.ring.document, oldest_cipher=2)
    with pytest.raises(FormatError, match="accepts nothing"):
        keyring.encode(wrong, born.ring.root)


def test_a_keyring_with_two_cipher_generations_survives_storage() -> None:
    ring = lifecycle_kit.with_next_cipher(lifecycle_kit.born().ring)
    raw = keyring.encode(ring.document, ring.root)
    confirmed = keyring.decode_untrusted(raw).confirmed_by(ring.root)
    assert confirmed is not None
    again = KeyRing.open(confirmed, lifecycle_kit.copy_of(ring.root))
    assert again.cipher(1).same_as(ring.cipher(1))
    assert again.active_cipher.key.same_as(ring.active_cipher.key)
    assert again.mismatches() == ()
