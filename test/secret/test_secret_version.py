"""Rules of versions: each sentence of the wire contract, section 4, as a row; then anything at all against a model."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from size import size
from spike.secret.encoding import decode_meta_untrusted, encode_meta
from spike.secret.version import (
    NotFound,
    NothingUndeleted,
    SecretMeta,
    VersionId,
    VersionNumber,
    delete,
    put,
    resolve,
    undelete,
)
from spike.wire.go_time import UnixNs


def version_id(number: int) -> VersionId:
    return VersionId(f"{number:032x}")


def secret(live: str, max_versions: int = 10) -> SecretMeta:
    """Build a secret by puts and deletes: "v.v" = versions 1 to 3, of which 2 is deleted."""
    meta = None
    for number in range(1, len(live) + 1):
        meta = put(meta, version_id(number), UnixNs(number), max_versions).meta
    assert meta is not None
    deleted = [number for number, mark in enumerate(live, 1) if mark == "."]
    return delete(meta, deleted, UnixNs(100)) if deleted else meta


def shown(meta: SecretMeta) -> str:
    """Show a secret as `secret` takes it; pruned versions are blanks."""
    marks = {entry.number: "v" if entry.deleted_at is None else "." for entry in meta.versions}
    return "".join(marks.get(VersionNumber(n), " ") for n in range(1, meta.highest + 1))


def test_the_first_put_makes_version_1_with_the_retention_of_that_day() -> None:
    result = put(None, version_id(7), UnixNs(5), max_versions=3)
    assert result.version.number == 1
    assert result.version.id == version_id(7)
    assert result.pruned == ()
    assert result.meta == SecretMeta((result.version,), 3, UnixNs(5), UnixNs(5))


@pytest.mark.parametrize(
    ("before", "after"),
    [("v", "vv"), ("v.", "v.v"), ("..", "..v"), (".v", ".vv")],
)
def test_a_put_makes_the_highest_number_plus_one_also_when_the_highest_is_deleted(
    before: str, after: str
) -> None:
    result = put(secret(before), version_id(99), UnixNs(200), 10)
    assert shown(result.meta) == after
    assert result.meta.current == result.version.number == len(after)


def test_retention_is_fixed_at_creation_and_prunes_the_lowest() -> None:
    result = put(secret("v.v", max_versions=3), version_id(4), UnixNs(200), max_versions=100)
    assert shown(result.meta) == " .vv"
    assert result.pruned == (version_id(1),)
    assert result.meta.max_versions == 3


def test_a_put_changes_the_update_time_and_not_the_creation_time() -> None:
    meta = put(secret("v"), version_id(2), UnixNs(200), 10).meta
    assert (meta.created_at, meta.updated_at) == (1, 200)


@pytest.mark.parametrize(
    ("before", "versions", "after", "current"),
    [
        ("vvv", [], "vv.", 2),
        ("vvv", [0], "vv.", 2),
        ("vvv", [3], "vv.", 2),
        ("vvv", [1], ".vv", 3),
        ("vvv", [1, 2, 3], "...", 0),
        ("vvv", [2, 0], "v..", 1),
        ("vvv", [0, 0, 3], "vv.", 2),
        ("v.v", [], "v..", 1),
        ("vvv", [4, -1, 99], "vvv", 3),
        ("..", [], "..", 0),
        ("..", [0], "..", 0),
        (".v", [1], ".v", 2),
    ],
)
def test_delete(before: str, versions: list[int], after: str, current: int) -> None:
    meta = delete(secret(before), versions, UnixNs(200))
    assert shown(meta) == after
    assert meta.current == current


def test_a_deletion_keeps_the_time_of_the_first_one() -> None:
    meta = delete(secret("v.v"), [2, 3], UnixNs(200))
    assert [entry.deleted_at for entry in meta.versions] == [None, 100, 200]


def test_a_delete_that_changes_nothing_gives_the_same_metadata() -> None:
    meta = secret("v.")
    assert delete(meta, [2, 7], UnixNs(200)) is meta


@pytest.mark.parametrize(
    ("before", "versions", "after", "current"),
    [
        ("v..", [3], "v.v", 3),
        ("v..", [2], "vv.", 2),
        ("..v", [1], "v.v", 3),
        ("...", [], "..v", 3),
        ("...", [0], "..v", 3),
        ("...", [1], "v..", 1),
        ("...", [0, 1], "v.v", 3),
        ("v.v", [2, 9], "vvv", 3),
        ("..", [1, 2], "vv", 2),
    ],
)
def test_undelete(before: str, versions: list[int], after: str, current: int) -> None:
    meta = undelete(secret(before), versions, UnixNs(200))
    assert isinstance(meta, SecretMeta)
    assert shown(meta) == after
    assert meta.current == current


@pytest.mark.parametrize(
    ("before", "versions"),
    [("vv", []), ("vv", [0]), ("v.", []), ("v.", [0]), ("v.", [1]), ("..", [3]), ("..", [-2])],
)
def test_undelete_says_when_nothing_was_undeleted(before: str, versions: list[int]) -> None:
    assert undelete(secret(before), versions, UnixNs(200)) == NothingUndeleted()


@pytest.mark.parametrize(
    ("state", "version", "found"),
    [
        ("vv", 0, 2),
        ("vv", 1, 1),
        ("v.", 0, 1),
        ("v.", 2, None),
        ("..", 0, None),
        ("vv", 3, None),
        ("vv", -1, None),
    ],
)
def test_resolve(state: str, version: int, found: int | None) -> None:
    expected = NotFound() if found is None else version_id(found)
    assert resolve(secret(state), version) == expected


def test_a_pruned_version_is_not_found_and_cannot_be_undeleted() -> None:
    meta = secret("vvv", max_versions=2)
    assert resolve(meta, 1) == NotFound()
    assert undelete(meta, [1], UnixNs(200)) == NothingUndeleted()


def test_the_oldest_version_is_the_lowest_that_lives() -> None:
    assert [secret(state).oldest for state in ("vv", ".v", "..")] == [1, 2, 0]


class Row(NamedTuple):
    """A version as the model keeps it."""

    id: VersionId
    deleted: bool


class VersionModel(RuleBasedStateMachine):
    """The wire contract's sentences, done literally on a dictionary with a `current` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.meta: SecretMeta | None = None
        self.rows: dict[int, Row] = {}
        self.current = 0
        self.max_versions = 0
        self.last_id = 0
        self.now = 0
        self.erased: set[VersionId] = set()

    def tick(self) -> UnixNs:
        self.now += 1
        return UnixNs(self.now)

    @rule(max_versions=st.integers(1, 4))
    def put(self, max_versions: int) -> None:
        self.last_id += 1
        new_id = version_id(self.last_id)
        result = put(self.meta, new_id, self.tick(), max_versions)
        self.meta = result.meta
        self.max_versions = self.max_versions or max_versions
        # "Put makes version 1 or highest+1."
        number = max(self.rows) + 1 if self.rows else 1
        self.rows[number] = Row(new_id, deleted=False)
        self.current = number
        pruned = []
        while len(self.rows) > self.max_versions:
            pruned.append(self.rows.pop(min(self.rows)).id)
        self.erased |= set(pruned)
        assert list(result.pruned) == pruned
        assert result.version.number == number

    @precondition(lambda self: self.meta is not None)
    @rule(versions=st.lists(st.integers(-1, 12), max_size=4))
    def delete(self, versions: list[int]) -> None:
        assert self.meta is not None
        self.meta = delete(self.meta, versions, self.tick())
        # "empty, or 0 in it = current"; "unknown version numbers are ignored"
        named = {self.current if number == 0 else number for number in versions or [0]}
        for number in named & set(self.rows):
            self.rows[number] = self.rows[number]._replace(deleted=True)
        # "When the current version is deleted, current becomes the highest live one, or 0."
        if self.current and self.rows[self.current].deleted:
            live = [number for number, row in self.rows.items() if not row.deleted]
            self.current = max(live) if live else 0

    @precondition(lambda self: self.meta is not None)
    @rule(versions=st.lists(st.integers(-1, 12), max_size=4))
    def undelete(self, versions: list[int]) -> None:
        assert self.meta is not None
        result = undelete(self.meta, versions, self.tick())
        deleted = [number for number, row in self.rows.items() if row.deleted]
        # "empty with no current version = highest deleted one; 0 likewise"
        stand_in = self.current or (max(deleted) if deleted else 0)
        named = {stand_in if number == 0 else number for number in versions or [0]}
        undeleted = named & set(deleted)
        if not undeleted:  # "404 if nothing was undeleted"
            assert result == NothingUndeleted()
            return
        assert isinstance(result, SecretMeta)
        self.meta = result
        for number in undeleted:
            self.rows[number] = self.rows[number]._replace(deleted=False)
        # "Undelete of a number above the current one makes it current."
        self.current = max(self.current, *undeleted)

    @invariant()
    def both_agree(self) -> None:
        if self.meta is None:
            return
        seen = {
            entry.number: Row(entry.id, entry.deleted_at is not None)
            for entry in self.meta.versions
        }
        assert seen == self.rows
        assert self.meta.current == self.current
        assert self.meta.max_versions == self.max_versions
        for number in range(-1, self.last_id + 2):
            row = self.rows.get(number or self.current)
            expected = NotFound() if row is None or row.deleted else row.id
            assert resolve(self.meta, number) == expected

    @invariant()
    def the_stored_form_gives_the_same_back(self) -> None:
        if self.meta is not None:
            assert decode_meta_untrusted(encode_meta(self.meta)) == self.meta

    @invariant()
    def nothing_erased_is_ever_pointed_to(self) -> None:
        if self.meta is not None:
            assert not self.erased & {entry.id for entry in self.meta.versions}


VersionModel.TestCase.settings = settings(
    max_examples=size(test=60, proof=5000), stateful_step_count=25, deadline=None, derandomize=True
)
TestVersionsAgainstModel = VersionModel.TestCase
