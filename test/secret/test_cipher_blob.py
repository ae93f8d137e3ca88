"""Cipher blobs: their layout byte by byte, that any plaintext comes back, and that nothing else opens."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from cryptography.cobblestone import Cobblestone256Decryptor

from size import record, seed, size
from spike.crypto.record import PLAINTEXT_LIMIT_BYTES, RecordContext, open_untrusted, seal
from spike.error import FormatError, NewerFormatError, OpenError
from spike.memory import KeyMemory
from spike.secret.cipher_blob import (
    CipherTriple,
    blob_size_bytes,
    join_untrusted,
    open_blob_untrusted,
    seal_blob,
    split,
)

STORE = bytes(range(16))
LIMIT_BYTES = 64 << 10
# Around every full chunk of 16 KiB, and the ends.
EDGES = [
    0,
    1,
    *(n * 16384 + d for n in range(1, 4) for d in (-1, 0, 1)),
    LIMIT_BYTES - 1,
    LIMIT_BYTES,
]


@pytest.fixture(scope="module")
def key() -> Iterator[KeyMemory]:
    with KeyMemory.generate() as key:
        yield key


def opened(key: KeyMemory, blob: bytes, store: bytes = STORE) -> bytes:
    return open_blob_untrusted(lambda _: key, store, blob)


def test_a_blob_is_a_version_byte_and_a_record_of_kind_cipher(key: KeyMemory) -> None:
    blob = seal_blob(key, 7, STORE, b"plaintext")
    assert blob[:7] == b"\x01" + b"\x01\x01" + (7).to_bytes(4, "big")
    context = RecordContext(STORE, "cipher", "", "", "")
    assert open_untrusted(key, context, blob[1:]) == b"plaintext"


def test_whoever_has_the_key_opens_a_blob_without_spike_as_the_formats_page_says(
    key: KeyMemory,
) -> None:
    plaintext = random.Random(3).randbytes(40_000)
    blob = seal_blob(key, 7, STORE, plaintext)
    context = blob[1:7] + STORE + b"\0\6cipher" + b"\0\0" * 3
    with key.view() as view:
        decryptor = Cobblestone256Decryptor(view, context)
        assert decryptor.update(blob[7:]) + decryptor.finalize() == plaintext


def test_the_triple_is_the_salt_s_first_12_bytes_and_the_record_without_them(
    key: KeyMemory,
) -> None:
    blob = seal_blob(key, 7, STORE, b"plaintext")
    header, salt, rest = blob[1:7], blob[7:31], blob[31:]
    triple = split(blob)
    assert triple == CipherTriple(1, salt[:12], header + salt[12:] + rest)
    assert join_untrusted(triple) == blob


@pytest.mark.parametrize("plaintext_bytes", EDGES)
def test_a_plaintext_comes_back_and_the_size_of_its_blob_is_known(
    key: KeyMemory, plaintext_bytes: int
) -> None:
    plaintext = random.Random(plaintext_bytes).randbytes(plaintext_bytes)
    blob = seal_blob(key, 1, STORE, plaintext)
    assert len(blob) == blob_size_bytes(plaintext_bytes)
    assert opened(key, blob) == plaintext
    assert opened(key, join_untrusted(split(blob))) == plaintext


def test_the_largest_blob_opens(key: KeyMemory) -> None:
    plaintext = bytes(PLAINTEXT_LIMIT_BYTES)
    blob = seal_blob(key, 1, STORE, memoryview(plaintext))
    assert len(blob) == blob_size_bytes(PLAINTEXT_LIMIT_BYTES)
    assert opened(key, blob) == plaintext


def test_random_plaintexts_come_back_in_both_forms(key: KeyMemory) -> None:
    chosen, count = seed(), size(test=300, proof=10_000)
    print("seed", chosen)
    source = random.Random(chosen)
    for _ in range(count):
        plaintext = source.randbytes(source.randint(0, LIMIT_BYTES))
        blob = seal_blob(key, 1, STORE, plaintext)
        assert opened(key, blob) == plaintext
        assert join_untrusted(split(blob)) == blob
    record(
        "cipher round trips, 0 bytes to the limit", count, "each plaintext came back", seed=chosen
    )


def test_the_same_plaintext_is_never_encrypted_twice_to_the_same_bytes(key: KeyMemory) -> None:
    blobs = {seal_blob(key, 1, STORE, b"same") for _ in range(100)}
    assert len(blobs) == 100
    assert len({split(blob).nonce for blob in blobs}) == 100


def test_a_blob_with_any_bit_turned_does_not_open(key: KeyMemory) -> None:
    blob = seal_blob(key, 1, STORE, b"plaintext")
    for position in range(len(blob) * 8):
        changed = bytearray(blob)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises((OpenError, FormatError)):
            opened(key, bytes(changed))


def test_a_blob_that_was_cut_or_continued_does_not_open(key: KeyMemory) -> None:
    blob = seal_blob(key, 1, STORE, bytes(16384))
    for wrong in (*(blob[:n] for n in range(0, len(blob), 97)), blob[:-1], blob + b"\0", blob * 2):
        with pytest.raises((OpenError, FormatError)):
            opened(key, wrong)


def test_a_blob_opens_in_its_own_store_alone(key: KeyMemory) -> None:
    blob = seal_blob(key, 1, STORE, b"plaintext")
    with pytest.raises(OpenError):
        opened(key, blob, bytes(16))
    with KeyMemory.generate() as other, pytest.raises(OpenError):
        opened(other, blob)


@pytest.mark.parametrize("kind", ["secret", "wrapped-key", "", "ciphe"])
def test_a_record_of_another_kind_is_no_blob_whatever_the_key(key: KeyMemory, kind: str) -> None:
    row = seal(key, 1, RecordContext(STORE, kind, "", "", ""), b"plaintext")
    with pytest.raises(OpenError):
        opened(key, b"\x01" + row)


def test_the_key_is_asked_for_by_the_generation_in_the_blob(key: KeyMemory) -> None:
    asked: list[int] = []

    def key_of(generation: int) -> KeyMemory:
        asked.append(generation)
        raise OpenError

    with pytest.raises(OpenError):
        open_blob_untrusted(key_of, STORE, seal_blob(key, 0xFFFF_FFFF, STORE, b""))
    assert asked == [0xFFFF_FFFF]


@pytest.mark.parametrize("version", [0, 2, 255, -1, 2**40])
def test_another_version_is_refused_in_both_forms(key: KeyMemory, version: int) -> None:
    blob = seal_blob(key, 1, STORE, b"plaintext")
    with pytest.raises(FormatError):
        join_untrusted(split(blob)._replace(version=version))
    with pytest.raises(FormatError):
        opened(key, bytes([version & 0xFF]) + blob[1:])


@pytest.mark.parametrize(
    ("nonce", "ciphertext"),
    [(b"", bytes(99)), (bytes(11), bytes(99)), (bytes(13), bytes(99)), (bytes(12), bytes(65))],
)
def test_a_triple_of_impossible_size_is_refused(nonce: bytes, ciphertext: bytes) -> None:
    with pytest.raises(FormatError):
        join_untrusted(CipherTriple(1, nonce, ciphertext))


def test_a_record_of_a_newer_format_is_named_as_such(key: KeyMemory) -> None:
    blob = bytearray(seal_blob(key, 1, STORE, b"plaintext"))
    blob[1] = 2
    with pytest.raises(NewerFormatError):
        opened(key, bytes(blob))
