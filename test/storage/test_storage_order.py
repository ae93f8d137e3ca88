"""The order of records and its cursors, as pure functions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike.error import InputError
from spike.storage.order import cursor_at, position_untrusted, prefix_end
from spike.storage.protocol import CURSOR_LIMIT_BYTES, SECRET, Cursor, RecordId

TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0")
    | st.sampled_from("a\ud7ff\ue000\uffff\U0010ffff"),
    max_size=6,
)
VERSIONS = st.text("0123456789abcdef-z", max_size=64)


@given(TEXT, TEXT)
def test_what_begins_with_a_prefix_lies_between_it_and_its_end(prefix: str, text: str) -> None:
    end = prefix_end(prefix)
    within = prefix.encode() <= text.encode() and (end is None or text.encode() < end.encode())
    assert within == text.startswith(prefix)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("", None),
        ("a", "b"),
        ("a/", "a0"),
        ("\ud7ff", "\ue000"),
        ("a\U0010ffff", "b"),
        ("\U0010ffff\U0010ffff", None),
    ],
)
def test_the_end_of_a_prefix_is_the_least_text_behind_it(prefix: str, end: str | None) -> None:
    assert prefix_end(prefix) == end


@given(TEXT, VERSIONS)
def test_a_cursor_gives_back_its_position(key: str, version: str) -> None:
    cursor = cursor_at(RecordId(SECRET, key, version))
    assert len(cursor.encode()) <= CURSOR_LIMIT_BYTES
    assert position_untrusted(cursor) == (key, version)


def test_no_cursor_is_the_beginning() -> None:
    assert position_untrusted(None) is None


@given(st.text(max_size=80))
def test_a_text_is_the_one_cursor_of_its_position_or_is_refused(text: str) -> None:
    try:
        position = position_untrusted(Cursor(text))
    except InputError:
        return
    assert position is not None
    assert cursor_at(RecordId(SECRET, *position)) == text
