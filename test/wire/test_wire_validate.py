"""Section 3 of the wire contract, line by line; lengths in bytes, texts matched whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import re2
from hypothesis import given, settings
from hypothesis import strategies as st

from size import size
from spike.error import InputError
from spike.wire import validate

Check = Callable[[str], None]


def accepts(check: Check, text: str) -> bool:
    try:
        check(text)
    except InputError as error:
        if len(text) > len("^spiffe://") and text in error.message:
            raise ValueError("an error repeats the value") from error
        return False
    return True


def check_value_key(key: str) -> None:
    validate.check_value_keys({"good": "", key: "any value\n\0"})


LONGEST: list[tuple[Check, str, int]] = [
    (validate.check_name, "", 250),
    (check_value_key, "", 250),
    (validate.check_path, "", 500),
    (validate.check_path_pattern, "", 500),
    (validate.check_spiffe_pattern, "spiffe://", 500),
]


@pytest.mark.parametrize(("check", "start", "longest"), LONGEST)
def test_length_has_a_bound(check: Check, start: str, longest: int) -> None:
    assert accepts(check, start + "a" * (longest - len(start)))
    assert not accepts(check, start + "a" * (longest - len(start) + 1))
    assert not accepts(check, "")
    assert not accepts(check, start + "a" * 10_000_000)


@pytest.mark.parametrize("check", [row[0] for row in LONGEST])
@pytest.mark.parametrize(
    "suffix", ["\n", "\r\n", "\0", " \n", "é", "\u2028", "\x7f", "%", ",", "'", '"', "`", "ａ"]
)
def test_a_character_too_many_is_refused_also_a_final_newline(check: Check, suffix: str) -> None:
    start = "spiffe://a/b"
    if check in {validate.check_name, check_value_key}:
        start = "ab"
    elif check is not validate.check_spiffe_pattern:
        start = "a/b"
    assert accepts(check, start)
    assert not accepts(check, start + suffix)
    assert not accepts(check, suffix + start)


ALNUM = "abcXYZ019"
# From the contract's own classes, character for character.
CLASSES: list[tuple[Check, str]] = [
    (validate.check_name, ALNUM + "-_ "),
    (check_value_key, ALNUM + "-_ "),
    (validate.check_path, ALNUM + r"._-/()?+*|[]{}" + "\\"),
    (validate.check_path_pattern, ALNUM + r"._-/^$()?+*|[]{}" + "\\"),
]


@pytest.mark.parametrize(("check", "allowed"), CLASSES)
def test_exactly_the_listed_characters_are_allowed(check: Check, allowed: str) -> None:
    for code in range(256):
        character = chr(code)
        listed = character in allowed or (character.isascii() and character.isalnum())
        assert accepts(check, character) is listed, repr(character)


@pytest.mark.parametrize("path", ["/", "//", "../..", "/a/", ".", "a//b", "()", "\\"])
def test_a_path_is_taken_as_it_is(path: str) -> None:
    assert accepts(validate.check_path, path)


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        ("spiffe://a", True),
        ("^spiffe://a", True),
        ("spiffe://a$", True),
        ("^spiffe://a$", True),
        (r"^spiffe://spike\.ist/workload/[a-z]+/.*$", True),
        ("spiffe://.*", True),
        ("spiffe://(a)/(b)?", True),
        ("spiffe://a//b", True),
        ("spiffe://a/_", True),
        ("spiffe://a_b", False),
        ("spiffe://", False),
        ("spiffe:///a", False),
        ("spiffe://a/", False),
        ("spiffe://a/b/", True),
        ("spiffe://$", False),
        ("^^spiffe://a", False),
        ("spiffe://a$$", False),
        ("spiffe://a$b", False),
        ("spiffe://a^", False),
        ("spiffe://a|spiffe://b", False),
        ("spiffe://a{2}", False),
        ("SPIFFE://a", False),
        ("(spiffe://a)", False),
        (".*", False),
        ("https://a", False),
        ("xspiffe://a", False),
        ("^spiffe://a$\n", False),
        ("\n^spiffe://a$", False),
    ],
)
def test_a_spiffe_pattern_has_the_form_of_the_contract(pattern: str, allowed: bool) -> None:
    assert accepts(validate.check_spiffe_pattern, pattern) is allowed


CONTRACT_SPIFFE_PATTERN = re2.compile(
    r"^\^?spiffe://[\\a-zA-Z0-9.\-*()+?\[\]]+(/[\\/a-zA-Z0-9._\-*()+?\[\]]+)*\$?$"
)


@settings(max_examples=size(test=500, proof=100_000), derandomize=True)
@given(
    st.lists(
        st.sampled_from(["^", "spiffe://", "/", "//", "a", "_", ".", "*", "\\", "[", "$", "\n"]),
        max_size=8,
    )
)
def test_our_spiffe_pattern_is_the_contract_s(parts: list[str]) -> None:
    for text in ("".join(parts), "spiffe://" + "".join(parts)):
        expected = CONTRACT_SPIFFE_PATTERN.search(text) is not None
        assert accepts(validate.check_spiffe_pattern, text) is expected


def test_a_hostile_spiffe_pattern_is_refused_without_trying_every_split() -> None:
    # Python's engine would take exponential time over the contract's own spelling of this pattern.
    assert not accepts(validate.check_spiffe_pattern, "spiffe://a" + "/" * 480 + "|")


@pytest.mark.parametrize("name", ["read", "write", "list", "execute", "super"])
def test_each_permission_is_one_of_five(name: str) -> None:
    validate.check_permissions([name])
    validate.check_permissions([name, "read"])
    for wrong in (name.upper(), name + " ", name + "\n", "", "admin"):
        with pytest.raises(InputError):
            validate.check_permissions([name, wrong])


def test_no_permission_is_refused() -> None:
    with pytest.raises(InputError):
        validate.check_permissions([])


@pytest.mark.parametrize(
    ("shard", "allowed"),
    [
        ([0] * 31 + [1], True),
        ([255] * 32, True),
        ([0] * 32, False),
        ([1] * 31, False),
        ([1] * 33, False),
        ([], False),
        (None, False),
        ([1] * 31 + [256], False),
        ([1] * 31 + [-1], False),
    ],
)
def test_a_shard_is_32_integers_not_all_zero(shard: list[int] | None, allowed: bool) -> None:
    if allowed:
        validate.check_shard(shard)
        return
    with pytest.raises(InputError):
        validate.check_shard(shard)


@pytest.mark.parametrize(
    ("number", "allowed"), [(0, False), (1, True), (255, True), (256, False), (-1, False)]
)
def test_the_id_of_a_shard_is_1_to_255(number: int, allowed: bool) -> None:
    if allowed:
        validate.check_shard_id(number)
        return
    with pytest.raises(InputError):
        validate.check_shard_id(number)


@pytest.mark.parametrize("length", [0, 11, 13, 24])
def test_a_nonce_has_12_bytes(length: int) -> None:
    validate.check_nonce(b"\0" * 12)
    with pytest.raises(InputError):
        validate.check_nonce(b"\0" * length)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("a", True),
        ("1-a.B_c", True),
        ("a" * 64, True),
        ("a" * 65, False),
        ("", False),
        ("-a", False),
        (".a", False),
        ("a b", False),
        ("a\n", False),
        ("é", False),
    ],
)
def test_the_name_of_a_slot(name: str, allowed: bool) -> None:
    assert accepts(validate.check_slot_name, name) is allowed


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("root", True),
        ("shards", True),
        ("slot:admin", True),
        ("keeper:2", True),
        ("keeper:spiffe://spike.ist/spike/keeper/2", True),
        ("slot:", False),
        ("slot:a b", False),
        ("keeper:", False),
        ("root:1", False),
        ("", False),
        ("everything", False),
    ],
)
def test_what_can_be_said_to_have_leaked(name: str, allowed: bool) -> None:
    assert accepts(lambda text: validate.check_leaked([text]), name) is allowed


def test_one_get_many_asks_for_at_most_a_thousand() -> None:
    validate.check_item_count(0)
    validate.check_item_count(1000)
    with pytest.raises(InputError):
        validate.check_item_count(1001)
