"""The chain of the history and the tally of a verification, as pure rules."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

import lifecycle_kit
from spike.error import FormatError, NewerFormatError
from spike.lifecycle.census import NAMED_LIMIT, BadReason, Finding, Tally
from spike.lifecycle.chain import Chain, decode_entry_untrusted, sequence_of_untrusted
from spike.lifecycle.history import Entry, record_key
from spike.lifecycle.keyring import Event


def chain_of(count: int) -> list[bytes]:
    entries: list[bytes] = []
    for number in range(1, count + 1):
        event = Event(
            sequence=number, at=lifecycle_kit.AT, kind="test", actor="somebody", detail={}
        )
        before = hashlib.sha256(entries[-1]).hexdigest() if entries else ""
        entries.append(msgspec.json.encode(Entry(format=1, previous=before, event=event)))
    return entries


def faults(entries: list[bytes | None]) -> list[str]:
    chain, found = Chain(), []
    for raw in entries:
        if raw is None:
            chain.skip()
            found.append("gap")
        else:
            found.append(chain.follow(raw)[1])
    return found


def test_a_whole_chain_holds_and_ends_with_its_last_entry() -> None:
    entries, chain = chain_of(4), Chain()
    assert [chain.follow(raw)[1] for raw in entries] == [""] * 4
    assert chain.next == 5
    assert chain.ends_with(hashlib.sha256(entries[-1]).hexdigest())
    assert not chain.ends_with(hashlib.sha256(entries[-2]).hexdigest())
    assert Chain().ends_with("")


def test_a_fault_shows_once_and_where_it_is() -> None:
    one, two, three, four = chain_of(4)
    assert faults([one, None, three, four]) == ["", "gap", "", ""]
    assert faults([one, three, three, four]) == ["", "it is entry 3", *_before(3), ""]
    other = two.replace(b"somebody", b"some one")
    assert faults([one, other, three, four]) == ["", "", *_before(3), ""]
    assert faults([b"{}", two])[0] == "the history entry is damaged: it has another form"


def _before(sequence: int) -> list[str]:
    return [f"entry {sequence - 1} is not the one that stood before it"]


@pytest.mark.parametrize(
    "key", ["", "1", "0" * 20, "x" * 20, "0" * 19 + "²", "1" * 21, " " + "1" * 19]
)
def test_a_key_that_no_entry_has_is_refused(key: str) -> None:
    with pytest.raises(FormatError):
        sequence_of_untrusted(key)


def test_an_entry_of_a_newer_format_is_named_as_such() -> None:
    (entry,) = chain_of(1)
    with pytest.raises(NewerFormatError):
        decode_entry_untrusted(entry.replace(b'"format":1', b'"format":2'))
    assert sequence_of_untrusted(record_key(7)) == 7


def test_a_tally_adds_up_and_keeps_no_more_names_than_its_limit() -> None:
    tally = Tally()
    for number in range(NAMED_LIMIT + 5):
        tally.note_bad(Finding("secret", str(number), "", BadReason.ORPHAN, ""))
    tally.note_good()
    tally.note_vanished()
    tally.note_generation("secret", 9, {1, 2}, 10)
    assert tally.scanned == NAMED_LIMIT + 7
    assert (len(tally.named), tally.unnamed) == (NAMED_LIMIT, 5)
    assert tally.census == {("secret", 0): 1}
