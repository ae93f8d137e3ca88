"""The access list: what is not in it, or differs from it, does not count."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from size import size
from spike.error import FormatError, NewerFormatError
from spike.policy.access_list import (
    EMPTY,
    AccessList,
    Right,
    RightKind,
    add,
    confirm,
    decode_access_list_untrusted,
    encode_access_list,
    is_listed,
    remove,
)

A = Right(RightKind.POLICY, "a")
B = Right(RightKind.POLICY, "b")


def test_each_change_is_a_generation_and_gives_the_right_that_revision() -> None:
    first = add(EMPTY, A, b"one")
    second = add(first, B, b"two")
    third = add(second, A, b"three")
    assert [EMPTY.generation, first.generation, second.generation, third.generation] == [0, 1, 2, 3]
    assert third.entries[A].revision == 3
    assert third.entries[B].revision == 2
    assert third.entries[A].digest == hashlib.sha256(b"three").digest()
    assert first.entries[A].digest == hashlib.sha256(b"one").digest(), "the older list is as it was"


def test_a_revision_is_not_used_again_after_a_removal() -> None:
    removed = remove(add(EMPTY, A, b"one"), A)
    assert removed.entries == {}
    assert add(removed, A, b"one").entries[A].revision == 3


def test_only_what_is_listed_can_be_removed() -> None:
    with pytest.raises(KeyError):
        remove(EMPTY, A)


def test_only_listed_rights_in_their_listed_form_count() -> None:
    listed = add(add(add(EMPTY, A, b"one"), B, b"two"), Right(RightKind.POLICY, "c"), b"three")
    found = confirm(listed, RightKind.POLICY, {"a": b"one", "b": b"TWO", "d": b"four"})
    assert found.counting == {"a": b"one"}
    assert found.differing == ("b",)
    assert found.unlisted == ("d",)
    assert found.missing == ("c",)


def test_an_old_row_put_back_does_not_count() -> None:
    narrowed = add(add(EMPTY, A, b"wide"), A, b"narrow")
    assert confirm(narrowed, RightKind.POLICY, {"a": b"wide"}).counting == {}
    assert not is_listed(narrowed, A, b"wide")
    revoked = remove(narrowed, A)
    assert confirm(revoked, RightKind.POLICY, {"a": b"narrow"}).counting == {}
    assert not is_listed(revoked, A, b"narrow")


TEXT = b'[1,7,{"policy":{"a":[3,"%b"],"b":[7,"%b"]}}]' % (b"0a" * 32, b"ff" * 32)


def test_a_list_of_format_1_reads_as_it_always_did() -> None:
    listed = decode_access_list_untrusted(TEXT)
    assert listed.generation == 7
    assert listed.entries == {A: (3, b"\x0a" * 32), B: (7, b"\xff" * 32)}
    assert encode_access_list(listed) == TEXT
    assert encode_access_list(EMPTY) == b"[1,0,{}]"


@pytest.mark.parametrize(
    "damaged",
    [
        pytest.param(b"", id="empty"),
        pytest.param(TEXT[:-1], id="cut"),
        pytest.param(TEXT.replace(b"[1,7", b"[0,7"), id="format 0"),
        pytest.param(TEXT.replace(b"[1,7", b"[1,-7"), id="negative generation"),
        pytest.param(TEXT.replace(b"[1,7", b"[1,6"), id="a revision above the generation"),
        pytest.param(TEXT.replace(b"[3,", b"[7,"), id="one revision twice"),
        pytest.param(TEXT.replace(b"[3,", b"[0,"), id="revision 0"),
        pytest.param(TEXT.replace(b"ff" * 32, b"FF" * 32), id="upper-case digest"),
        pytest.param(TEXT.replace(b"ff" * 32, b"ff" * 31), id="short digest"),
        pytest.param(TEXT.replace(b"policy", b"saint"), id="an unknown kind"),
        pytest.param(b'[1,7,{"policy":{}}]', id="a kind without a right"),
        pytest.param(TEXT.replace(b'"a"', b'"c"'), id="not sorted"),
        pytest.param(TEXT.replace(b'"b"', b'"a"'), id="one name twice"),
    ],
)
def test_a_damaged_list_is_refused(damaged: bytes) -> None:
    with pytest.raises(FormatError):
        decode_access_list_untrusted(damaged)


def test_a_newer_format_is_named() -> None:
    with pytest.raises(NewerFormatError):
        decode_access_list_untrusted(b"[2,7,[]]")


class AccessListModel(RuleBasedStateMachine):
    """A store that an adversary writes to beside us: every row ever written can come back."""

    def __init__(self) -> None:
        super().__init__()
        self.listed: AccessList = EMPTY
        self.rightful: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.ever: list[tuple[str, bytes]] = []

    names = st.sampled_from(["a", "b", "c"])

    @rule(name=names, content=st.binary(max_size=2))
    def write(self, name: str, content: bytes) -> None:
        self.listed = add(self.listed, Right(RightKind.POLICY, name), content)
        self.rightful[name] = self.stored[name] = content
        self.ever.append((name, content))

    @rule(name=names)
    def revoke(self, name: str) -> None:
        if name in self.rightful:
            self.listed = remove(self.listed, Right(RightKind.POLICY, name))
            del self.rightful[name]
            self.stored.pop(name, None)

    @rule(name=names)
    def adversary_deletes(self, name: str) -> None:
        self.stored.pop(name, None)

    @rule(data=st.data())
    def adversary_puts_back(self, data: st.DataObject) -> None:
        if self.ever:
            name, content = data.draw(st.sampled_from(self.ever))
            self.stored[name] = content

    @rule(name=names, content=st.binary(max_size=2))
    def adversary_writes(self, name: str, content: bytes) -> None:
        self.stored[name] = content

    @invariant()
    def nothing_counts_but_what_is_rightful(self) -> None:
        found = confirm(self.listed, RightKind.POLICY, self.stored)
        assert found.counting == {
            name: content
            for name, content in self.stored.items()
            if self.rightful.get(name) == content
        }
        accounted = {*found.counting, *found.differing, *found.unlisted, *found.missing}
        assert accounted == {*self.stored, *self.rightful}

    @invariant()
    def the_stored_form_gives_the_same_back(self) -> None:
        assert decode_access_list_untrusted(encode_access_list(self.listed)) == self.listed


AccessListModel.TestCase.settings = settings(
    max_examples=size(test=50, proof=3000), stateful_step_count=20, deadline=None, derandomize=True
)
TestAccessListAgainstAdversary = AccessListModel.TestCase
