from __future__ import annotations

import hashlib
import zlib
from typing import Any

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import example, given, settings
from hypothesis import strategies as st

from size import size
from spike.crypto import cobblestone
from spike.error import OpenError
from spike.memory import KeyMemory
from vector_file import load

CHUNKED = load("c2sp_chunked_encryption_aes_256_gcm_test.json")
GCM = load("aes_256_gcm_test.json")
LENGTHS = st.sampled_from([0, 1, 32, 16_383, 16_384, 16_385, 32_768, 40_000])


def memory_of(data: bytes) -> KeyMemory:
    memory = KeyMemory.allocate(len(data))
    with memory.view() as view:
        view[:] = data
    return memory


@pytest.mark.parametrize("case", CHUNKED, ids=lambda case: f"{case['tcId']}-{case['comment']}")
def test_published_vectors_of_chunked_encryption(case: dict[str, Any]) -> None:
    message = zlib.decompress(bytes.fromhex(case["ct"]))
    context = bytes.fromhex(case["ctx"])
    with memory_of(bytes.fromhex(case["key"])) as key:
        if case["result"] == "valid":
            plaintext = cobblestone.open_untrusted(key, context, message)
            assert len(plaintext) == case["msgLength"]
            assert hashlib.sha512(plaintext).hexdigest() == case["msgSha512"]
        else:
            refused = ValueError if "InvalidKeySize" in case["flags"] else OpenError
            with pytest.raises(refused):
                cobblestone.open_untrusted(key, context, message)


def test_the_vectors_hold_valid_and_invalid_cases() -> None:
    results = [case["result"] for case in CHUNKED]
    assert (results.count("valid"), results.count("invalid")) == (10, 25)
    assert {case["result"] for case in GCM} == {"valid", "invalid"}


@pytest.mark.parametrize("case", GCM, ids=lambda case: str(case["tcId"]))
def test_published_vectors_of_aes_256_gcm(case: dict[str, Any]) -> None:
    nonce, aad = bytes.fromhex(case["iv"]), bytes.fromhex(case["aad"])
    sealed, plaintext = bytes.fromhex(case["ct"] + case["tag"]), bytes.fromhex(case["msg"])
    with memory_of(bytes.fromhex(case["key"])) as key, key.view() as view:
        cipher = AESGCM(view)
        out = bytearray(len(plaintext))
        if case["result"] == "valid":
            assert cipher.encrypt(nonce, plaintext, aad) == sealed
            cipher.decrypt_into(nonce, sealed, aad, out)
            assert out == plaintext
        else:
            with pytest.raises(InvalidTag):
                cipher.decrypt_into(nonce, sealed, aad, out)


@settings(max_examples=size(test=30, proof=3000), deadline=None)
@given(key=st.binary(min_size=32, max_size=32), context=st.binary(max_size=200), length=LENGTHS)
def test_what_we_seal_the_library_opens_and_the_other_way_round(
    key: bytes, context: bytes, length: int
) -> None:
    plaintext = bytes(index % 251 for index in range(length))
    with memory_of(key) as memory:
        sealed = cobblestone.seal(memory, context, plaintext)
        theirs = Cobblestone256Decryptor(key, context)
        assert theirs.update(sealed) + theirs.finalize() == plaintext
        library = Cobblestone256Encryptor(key, context)
        sealed = library.update(plaintext) + library.finalize()
        assert cobblestone.open_untrusted(memory, context, sealed) == plaintext


@settings(max_examples=size(test=200, proof=20_000), deadline=None)
@given(length=LENGTHS, bit=st.integers(min_value=0))
@example(length=40_000, bit=0)
def test_a_message_with_any_bit_changed_does_not_open(length: int, bit: int) -> None:
    with KeyMemory.generate() as key:
        sealed = bytearray(cobblestone.seal(key, b"context", bytes(length)))
        bit %= len(sealed) * 8
        sealed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(OpenError):
            cobblestone.open_untrusted(key, b"context", sealed)


@pytest.mark.parametrize("length", [0, 1, 16_383, 16_384, 40_000])
def test_a_message_cut_or_lengthened_anywhere_does_not_open(length: int) -> None:
    with KeyMemory.generate() as key:
        sealed = cobblestone.seal(key, b"", bytes(length))
        full = 16_384 + 16
        cuts = {0, 1, 23, 24, 55, 56, 71, len(sealed) - 17, len(sealed) - 16, len(sealed) - 1}
        cuts |= {56 + full * index for index in range((len(sealed) - 56) // full + 1)}
        for cut in sorted(cut for cut in cuts if 0 <= cut < len(sealed)):
            with pytest.raises(OpenError):
                cobblestone.open_untrusted(key, b"", sealed[:cut])
        for tail in (b"\x00", bytes(16), sealed[56:]):
            with pytest.raises(OpenError):
                cobblestone.open_untrusted(key, b"", sealed + tail)


def test_chunks_do_not_change_places() -> None:
    with KeyMemory.generate() as key:
        sealed = cobblestone.seal(key, b"", bytes(40_000))
        full = 16_384 + 16
        head, first, second, rest = (
            sealed[:56],
            sealed[56 : 56 + full],
            sealed[56 + full : 56 + 2 * full],
            sealed[56 + 2 * full :],
        )
        assert cobblestone.open_untrusted(key, b"", head + first + second + rest) == bytes(40_000)
        for order in (
            head + second + first + rest,
            head + first + first + rest,
            head + first + rest,
        ):
            with pytest.raises(OpenError):
                cobblestone.open_untrusted(key, b"", order)


def test_each_message_has_a_salt_of_its_own() -> None:
    with KeyMemory.generate() as key:
        sealed = [cobblestone.seal(key, b"", b"same") for _ in range(1000)]
    assert len({message[:24] for message in sealed}) == 1000
    assert len({message[56:] for message in sealed}) == 1000


def test_nobody_can_choose_the_salt() -> None:
    assert cobblestone.seal.__code__.co_varnames[: cobblestone.seal.__code__.co_argcount] == (
        "key",
        "context",
        "plaintext",
        "before",
    )
    assert cobblestone.seal.__code__.co_kwonlyargcount == 0


def test_what_is_put_before_a_message_changes_nothing_of_it() -> None:
    before = bytes(cobblestone.SALT_BYTES)
    with KeyMemory.generate() as key:
        made = [cobblestone.seal(key, b"c", b"plaintext", before) for _ in range(2)]
        for each in made:
            assert each.startswith(before)
            assert cobblestone.open_untrusted(key, b"c", each[len(before) :]) == b"plaintext"
        salts = {each[len(before) :][: cobblestone.SALT_BYTES] for each in made}
        assert len(salts) == 2
        assert before not in salts


def test_a_wrong_message_leaves_zeros_in_key_memory() -> None:
    with KeyMemory.generate() as key, KeyMemory.generate() as out:
        with out.view() as view:
            sealed = bytearray(cobblestone.seal(key, b"", view))
        sealed[-1] ^= 1
        with pytest.raises(OpenError):
            cobblestone.open_into(key, b"", sealed, out)
        with out.view() as view:
            assert bytes(view) == bytes(32)
