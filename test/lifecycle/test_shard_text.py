"""A recovery shard as text: one text each, every mistyped character found, nothing of it repeated in an error."""

from __future__ import annotations

import hashlib
import random
import re
import string
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from share_kit import key_of
from size import record, seed, size
from spike.error import FormatError, NewerFormatError, WipedError
from spike.lifecycle.shard_text import (
    ShardText,
    decode_shard_text_untrusted,
    encode_shard_text,
    encode_three_part,
)
from spike.memory.key_memory import KeyMemory

SET = "0123456789abcdef" * 2
VALUE = bytes(range(0xE0, 0x100))
HEX = VALUE.hex()
CHECKED = f"spike-shard:1:{SET}:2:17:{HEX}"
CHECKSUM = hashlib.sha256(b"spike/shard-text/v1/checksum" + CHECKED.encode()).hexdigest()[:8]
OWN = f"{CHECKED}:{CHECKSUM}"
THREE_PART = f"spike:17:{HEX}"


def bytes_of(key: KeyMemory) -> bytes:
    with key.view() as view:
        return bytes(view)


def read(text: str | bytes | bytearray) -> tuple[int, bytes, str | None, int | None]:
    """Return what a text says, and wipe it."""
    found = decode_shard_text_untrusted(text.encode() if isinstance(text, str) else text)
    said = (found.index, bytes_of(found.value), found.set_id, found.threshold)
    found.value.wipe()
    return said


def trouble(text: str | bytes) -> str:
    with pytest.raises(FormatError) as refused:
        read(text)
    return refused.value.message


def edge_values() -> Iterator[bytes]:
    for bit in range(256):
        yield (1 << bit).to_bytes(32, "big")
    for fill in (0x00, 0x01, 0x09, 0x0A, 0x7F, 0x80, 0x90, 0xA0, 0xFF):
        yield bytes([fill]) * 32


def test_both_forms_are_as_the_format_page_says() -> None:
    with key_of(VALUE) as value:
        assert encode_shard_text(SET, 2, 17, value) == OWN.encode()
        assert encode_three_part(17, value) == THREE_PART.encode()
    assert read(OWN) == (17, VALUE, SET, 2)
    assert read(THREE_PART) == (17, VALUE, None, None)


def test_every_edge_value_and_number_comes_back() -> None:
    tried = 0
    for value in edge_values():
        with key_of(value) as key:
            assert read(encode_shard_text(SET, 3, 5, key)) == (5, value, SET, 3)
            assert read(encode_three_part(5, key)) == (5, value, None, None)
        tried += 2
    with key_of(VALUE) as key:
        for number in range(1, 256):
            text = encode_shard_text(SET, 256 - number, number, key)
            assert read(text) == (number, VALUE, SET, 256 - number)
            assert read(encode_three_part(number, key)) == (number, VALUE, None, None)
            tried += 2
    record("shard text: every edge value, index and threshold", tried, "the same shard")


@given(value=st.binary(min_size=32, max_size=32), around=st.tuples(*[st.text(" \t\r\n")] * 2))
@settings(max_examples=size(test=50, proof=5000), deadline=None)
def test_white_space_around_it_does_not_matter(value: bytes, around: tuple[str, str]) -> None:
    with key_of(value) as key:
        for text in (encode_shard_text(SET, 3, 5, key), encode_three_part(5, key)):
            before, after = (each[:100].encode() for each in around)
            assert read(before + text + after)[1] == value


def test_white_space_within_it_does() -> None:
    for text in (OWN, THREE_PART):
        for place in range(1, len(text)):
            for white in " \n\t":
                trouble(text[:place] + white + text[place:])


def test_every_mistyped_character_is_found() -> None:
    """Each character of our form replaced by each other one that may stand in it, left out, or doubled."""
    tried = 0
    for place, right in enumerate(OWN):
        for wrong in string.digits + "abcdefABCDEFlOo:-skpr":
            if wrong != right:
                trouble(OWN[:place] + wrong + OWN[place + 1 :])
                tried += 1
        trouble(OWN[:place] + OWN[place + 1 :])
        trouble(OWN[:place] + right + OWN[place:])
        tried += 2
    record("shard text: one mistyped character", tried, "found")


def test_two_swapped_characters_are_found() -> None:
    for place in range(len(OWN) - 1):
        swapped = OWN[:place] + OWN[place + 1] + OWN[place] + OWN[place + 2 :]
        if swapped != OWN:
            trouble(swapped)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "begins with spike-shard: or with spike:"),
        ("  \n", "begins with spike-shard: or with spike:"),
        ("SPIKE:1:" + HEX, "begins with"),
        (HEX, "begins with"),
        ("spike", "has 3 parts between colons; here are 1"),
        ("spike:1", "has 3 parts between colons; here are 2"),
        (THREE_PART + ":", "has 3 parts between colons; here are 4"),
        ("spike-shard", "has 7 parts between colons; here are 1"),
        (CHECKED, "has 7 parts between colons; here are 6"),
        (OWN + ":1", "has 7 parts between colons; here are 8"),
        ("spike:0:" + HEX, "the index of a recovery shard is never 0"),
        ("spike:00:" + HEX, "the index of a recovery shard is never 0"),
        ("spike:01:" + HEX, "the index of the recovery shard begins with a zero"),
        ("spike:256:" + HEX, "the index of a recovery shard is at most 255"),
        ("spike:1000:" + HEX, "the index of a recovery shard is a number from 1 to 255"),
        ("spike:-1:" + HEX, "the index of a recovery shard is a number from 1 to 255"),
        ("spike:+1:" + HEX, "the index of a recovery shard is a number from 1 to 255"),
        ("spike:x:" + HEX, "the index of a recovery shard is a number from 1 to 255"),
        ("spike::" + HEX, "the index of a recovery shard is a number from 1 to 255"),
        ("spike:\u0661:" + HEX, "the index of a recovery shard is a number from 1 to 255"),
        ("spike:1:" + HEX[:-1], "64 hexadecimal digits; here are 63"),
        ("spike:1:" + HEX + "0", "64 hexadecimal digits; here are 65"),
        ("spike:1:", "64 hexadecimal digits; here are 0"),
        ("spike:1:" + HEX.upper(), "character 1 of the value is no lower-case"),
        ("spike:1:" + HEX[:11] + "g" + HEX[12:], "character 12 of the value is no lower-case"),
        ("spike:1:" + HEX[:63] + "/", "character 64 of the value is no lower-case"),
        (OWN.replace(SET, SET[:-1]), "set id of a recovery shard is 32 lower-case"),
        (OWN.replace(SET, SET.upper()), "set id of a recovery shard is 32 lower-case"),
        (OWN.replace(":2:17:", ":0:17:"), "the threshold of a recovery shard is never 0"),
        (OWN.replace(":2:17:", ":300:17:"), "the threshold of a recovery shard is at most 255"),
        (OWN.replace(":2:17:", ":3:17:"), "the checksum does not fit"),
        (OWN.replace(":17:", ":18:"), "the checksum does not fit"),
        (CHECKED + ":", "the checksum does not fit"),
        (CHECKED + ":" + CHECKSUM.upper(), "the checksum does not fit"),
        (OWN.replace(":1:", ":0:", 1), "the format of a recovery shard is never 0"),
        (OWN + "\n" + OWN, "has 7 parts between colons; here are 13"),
        ("spike:1:" + HEX + " " * 1024, "a recovery shard is one line"),
    ],
)
def test_an_error_says_where_to_look(text: str, told: str) -> None:
    assert told in trouble(text)


def test_a_newer_form_is_named_as_such() -> None:
    with pytest.raises(NewerFormatError) as refused:
        read(f"spike-shard:2:{SET}:whatever")
    assert (refused.value.found, refused.value.known) == (2, 1)


def test_no_error_repeats_anything_of_the_text() -> None:
    """No eight characters of set id, value or checksum, and nothing that was typed for a number."""
    chosen = seed()
    print("seed", chosen)
    chance = random.Random(chosen)
    parts = re.compile("|".join(OWN[i : i + 8] for i in range(14, len(OWN) - 7)))
    rounds = size(test=2000, proof=200_000)
    told: list[FormatError] = []
    for _ in range(rounds):
        text = list(chance.choice((OWN, THREE_PART)))
        for _ in range(chance.randint(1, 3)):
            text[chance.randrange(len(text))] = chance.choice("0fg:Z9 é")
        try:
            read("".join(text))
        except FormatError as error:
            told.append(error)
    assert len(told) > rounds // 2
    assert not [error for error in told if parts.search(error.message)]
    assert not [error for error in told if error.__cause__ or error.__context__]
    record("shard text: errors that repeat the text", rounds, "none", seed=chosen)


@pytest.mark.parametrize("byte", [0x00, 0x3A, 0x60, 0x67, 0x80, 0xFF, 0xE9])
def test_any_byte_may_stand_anywhere(byte: int) -> None:
    for text in (OWN.encode(), THREE_PART.encode()):
        for place in range(len(text)):
            changed = bytearray(text)
            changed[place] = byte
            if changed != text:
                with pytest.raises(FormatError):
                    decode_shard_text_untrusted(changed)


def test_a_text_can_be_overwritten_after_it_was_read_or_refused() -> None:
    """Nothing keeps a look into the caller's buffer: it could not even be cleared."""
    for text in (OWN, THREE_PART, OWN[:-1], THREE_PART + "g"):
        buffer = bytearray(text.encode())
        try:
            read(buffer)
        except FormatError as error:
            kept = error  # with its traceback, and the frames in it
            assert kept.__traceback__ is not None
        buffer.clear()


def test_what_was_read_before_an_error_is_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[KeyMemory] = []
    allocate = KeyMemory.allocate

    def watched(size_bytes: int) -> KeyMemory:
        made.append(allocate(size_bytes))
        return made[-1]

    monkeypatch.setattr(KeyMemory, "allocate", watched)
    trouble(THREE_PART[:-1] + "g")
    trouble(OWN[:-1] + ("0" if OWN[-1] != "0" else "1"))
    assert len(made) == 2
    assert all(key.wiped for key in made)


def test_a_shard_does_not_show_its_value() -> None:
    found = decode_shard_text_untrusted(OWN.encode())
    assert isinstance(found, ShardText)
    assert HEX[:8] not in repr(found)
    found.value.wipe()


@pytest.mark.parametrize(
    ("set_id", "threshold", "index"),
    [
        *[("", 2, 1), (SET.upper(), 2, 1), (SET + "\n", 2, 1)],
        *[(SET, 0, 1), (SET, 256, 1), (SET, 2, 0), (SET, 2, 256), (SET, 2, -1)],
    ],
)
def test_a_shard_that_cannot_be_is_not_written(set_id: str, threshold: int, index: int) -> None:
    with key_of(VALUE) as value, pytest.raises(ValueError, match="recovery shard"):
        encode_shard_text(set_id, threshold, index, value)


def test_only_32_bytes_are_written() -> None:
    with KeyMemory.allocate(31) as short, KeyMemory.allocate(32) as gone:
        for index in (0, 256):
            with pytest.raises(ValueError, match="index"):
                encode_three_part(index, gone)
        with pytest.raises(ValueError, match="32 bytes"):
            encode_three_part(1, short)
        gone.wipe()
        with pytest.raises(WipedError):
            encode_three_part(1, gone)
