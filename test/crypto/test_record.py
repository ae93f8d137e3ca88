from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from size import size
from spike.crypto.record import (
    WRAPPED_KEY,
    RecordContext,
    _encode_context,
    generation_of_untrusted,
    open_into,
    open_untrusted,
    seal,
)
from spike.error import FormatError, NewerFormatError, OpenError, WipedError
from spike.memory import KeyMemory

TEXTS = st.text(max_size=40)
CONTEXTS = st.builds(RecordContext, st.binary(min_size=16, max_size=16), TEXTS, TEXTS, TEXTS, TEXTS)
GENERATIONS = st.integers(1, 0xFFFF_FFFF)
CONTEXT = RecordContext(bytes(range(16)), "secret", "tenant/acme/db", "0a" * 16, "password")


@settings(max_examples=size(test=100, proof=10_000), deadline=None)
@given(context=CONTEXTS, generation=GENERATIONS, plaintext=st.binary(max_size=2000))
def test_a_record_opens_where_it_was_sealed(
    context: RecordContext, generation: int, plaintext: bytes
) -> None:
    with KeyMemory.generate() as key:
        blob = seal(key, generation, context, plaintext)
        assert len(blob) == 78 + len(plaintext)
        assert generation_of_untrusted(blob) == generation
        assert open_untrusted(key, context, blob) == plaintext
        assert open_untrusted(key, context, memoryview(bytearray(blob))) == plaintext


@settings(max_examples=size(test=100, proof=10_000), deadline=None)
@given(context=CONTEXTS, other=CONTEXTS)
def test_a_record_moved_to_another_context_does_not_open(
    context: RecordContext, other: RecordContext
) -> None:
    assume(context != other)
    with KeyMemory.generate() as key:
        blob = seal(key, 1, context, b"value")
        with pytest.raises(OpenError):
            open_untrusted(key, other, blob)


@pytest.mark.parametrize(
    "other",
    [
        replace(CONTEXT, store_id=bytes(16)),
        replace(CONTEXT, kind="secret-meta"),
        replace(CONTEXT, key="tenant/acme/db2"),
        replace(CONTEXT, version="0b" * 16),
        replace(CONTEXT, field="Password"),
    ],
)
def test_each_field_of_the_context_counts_alone(other: RecordContext) -> None:
    with KeyMemory.generate() as key:
        blob = seal(key, 1, CONTEXT, b"value")
        with pytest.raises(OpenError):
            open_untrusted(key, other, blob)


def test_text_does_not_move_from_one_field_to_the_next() -> None:
    """Without lengths, ("ab", "c") and ("a", "bc") would be one context."""
    with KeyMemory.generate() as key:
        blob = seal(key, 1, replace(CONTEXT, key="ab", version="c"), b"value")
        for pair in (("a", "bc"), ("abc", ""), ("", "abc")):
            with pytest.raises(OpenError):
                open_untrusted(key, replace(CONTEXT, key=pair[0], version=pair[1]), blob)


@settings(max_examples=size(test=300, proof=30_000), deadline=None)
@given(one=CONTEXTS, two=CONTEXTS)
def test_the_encoding_of_a_context_is_injective(one: RecordContext, two: RecordContext) -> None:
    header = bytes((1, 1, 0, 0, 0, 1))
    assert (_encode_context(header, one) == _encode_context(header, two)) == (one == two)


def test_the_encoding_of_a_context_is_the_documented_one() -> None:
    assert _encode_context(
        bytes((1, 1, 0, 0, 0, 7)), RecordContext(b"s" * 16, "k", "é", "", "f")
    ) == (b"\x01\x01\x00\x00\x00\x07" + b"s" * 16 + b"\x00\x01k\x00\x02\xc3\xa9\x00\x00\x00\x01f")


@settings(max_examples=size(test=400, proof=40_000), deadline=None)
@given(bit=st.integers(min_value=0), length=st.integers(0, 100))
def test_a_record_with_any_bit_changed_is_refused(bit: int, length: int) -> None:
    with KeyMemory.generate() as key:
        blob = bytearray(seal(key, 5, CONTEXT, bytes(length)))
        bit %= len(blob) * 8
        blob[bit // 8] ^= 1 << bit % 8
        with pytest.raises((OpenError, FormatError)):
            open_untrusted(key, CONTEXT, blob)
        with KeyMemory.generate(max(length, 1)) as out, pytest.raises((OpenError, FormatError)):
            open_into(key, CONTEXT, blob, out)


def test_a_record_cut_at_any_place_or_lengthened_is_refused() -> None:
    with KeyMemory.generate() as key:
        blob = seal(key, 5, CONTEXT, b"some plaintext")
        for cut in range(len(blob)):
            with pytest.raises((OpenError, FormatError)):
                open_untrusted(key, CONTEXT, blob[:cut])
        for tail in (b"\x00", blob, bytes(20_000)):
            with pytest.raises((OpenError, FormatError)):
                open_untrusted(key, CONTEXT, blob + tail)


def test_a_record_claimed_for_another_generation_does_not_open() -> None:
    with KeyMemory.generate() as key:
        blob = bytearray(seal(key, 5, CONTEXT, b"value"))
        blob[5] = 6
        assert generation_of_untrusted(blob) == 6
        with pytest.raises(OpenError):
            open_untrusted(key, CONTEXT, blob)


def test_formats_of_a_newer_version_are_named_and_unknown_ones_refused() -> None:
    with KeyMemory.generate() as key:
        blob = bytearray(seal(key, 1, CONTEXT, b"value"))
        for number in range(2, 256):
            blob[0] = number
            with pytest.raises(NewerFormatError, match=f"the record has format {number}") as caught:
                open_untrusted(key, CONTEXT, blob)
            assert (caught.value.found, caught.value.known) == (number, 1)
        blob[0] = 0
        with pytest.raises(FormatError, match="unknown format 0"):
            open_untrusted(key, CONTEXT, blob)
        blob[0] = 1
        for number in (0, *range(2, 256)):
            blob[1] = number
            with pytest.raises(FormatError, match=f"unknown suite {number}"):
                generation_of_untrusted(blob)


def test_no_record_has_the_generation_zero() -> None:
    with KeyMemory.generate() as key:
        blob = seal(key, 1, CONTEXT, b"value")
        with pytest.raises(FormatError, match="generation 0"):
            open_untrusted(key, CONTEXT, blob[:2] + bytes(4) + blob[6:])


def test_a_wrong_key_does_not_open_and_a_wiped_one_is_refused() -> None:
    with KeyMemory.generate() as key, KeyMemory.generate() as other:
        blob = seal(key, 1, CONTEXT, b"value")
        with pytest.raises(OpenError) as caught:
            open_untrusted(other, CONTEXT, blob)
        assert str(caught.value) == "the sealed data do not open"
        key.wipe()
        with pytest.raises(WipedError):
            open_untrusted(key, CONTEXT, blob)
        with pytest.raises(WipedError):
            seal(key, 1, CONTEXT, b"value")


def test_a_wrapped_key_goes_from_key_memory_to_key_memory() -> None:
    context = RecordContext(bytes(16), WRAPPED_KEY, "record", "", "1")
    with KeyMemory.generate() as wrap, KeyMemory.generate() as key:
        with key.view() as view:
            blob = seal(wrap, 3, context, view)
        with KeyMemory.allocate(32) as out:
            open_into(wrap, context, blob, out)
            assert out.same_as(key)
        for size_bytes in (31, 33):
            with KeyMemory.allocate(size_bytes) as out, pytest.raises(OpenError):
                open_into(wrap, context, blob, out)


def test_sizes_have_limits() -> None:
    limit = 16 * 1024 * 1024
    with KeyMemory.generate() as key, KeyMemory.generate(16) as short:
        largest = seal(key, 1, CONTEXT, bytes(limit))
        assert open_untrusted(key, CONTEXT, largest) == bytes(limit)
        with pytest.raises(ValueError, match="at most 16 MiB"):
            seal(key, 1, CONTEXT, bytes(limit + 1))
        with pytest.raises(FormatError, match="impossible size"):
            open_untrusted(key, CONTEXT, largest + b"\x00")
        for generation in (0, -1, 1 << 32):
            with pytest.raises(ValueError, match="generation"):
                seal(key, generation, CONTEXT, b"")
        with pytest.raises(ValueError, match="65,535"):
            seal(key, 1, replace(CONTEXT, key="k" * 65_536), b"")
        with pytest.raises(ValueError, match="16 bytes"):
            seal(key, 1, replace(CONTEXT, store_id=b"short"), b"")
        with pytest.raises(ValueError, match="32 bytes"):
            seal(short, 1, CONTEXT, b"")
