"""The file of a system backup: what was put in comes out, and nothing that was changed is taken for it."""

from __future__ import annotations

import random

import pytest

import lifecycle_kit
from size import PROOF, record, seed
from spike.error import FormatError, NewerFormatError
from spike.lifecycle.system_backup import HeldRecord
from spike.storage.protocol import SECRET, RecordId
from system_backup_kit import composed, parsed, records_of


@pytest.fixture(scope="module")
def born() -> lifecycle_kit.Born:
    return lifecycle_kit.born()


@pytest.fixture(scope="module")
def raw(born: lifecycle_kit.Born) -> bytes:
    return composed(born, records_of(born, 20))


@pytest.mark.parametrize("piece_bytes", [1, 7, 4096, 1 << 20])
def test_what_is_put_in_comes_out_in_pieces_of_any_size(
    born: lifecycle_kit.Born, raw: bytes, piece_bytes: int
) -> None:
    summary, found = parsed(raw, piece_bytes)
    assert found == records_of(born, 20)
    assert summary.size_bytes == len(raw)
    told = summary.manifest.hint
    assert (told.records, told.store_id) == (22, born.ring.document.store_id)
    assert {(line.kind, line.generation): line.records for line in told.census} == {
        ("keyring", 1): 1,
        ("policy", 1): 1,
        ("secret", 1): 10,
        ("secret", 2): 10,
    }
    assert summary.manifest.confirmed_by(born.ring.root, born.ring.document) == told
    assert summary.backup.confirmed_by(born.ring.root) == born.ring.document


def test_no_byte_can_be_changed(raw: bytes) -> None:
    number = seed()
    print("seed", number)
    chance = random.Random(number)
    places = range(len(raw)) if PROOF else chance.sample(range(len(raw)), 400)
    for place in places:
        changed = bytearray(raw)
        changed[place] ^= 1 << chance.randrange(8)
        with pytest.raises(FormatError):
            parsed(bytes(changed))
    record("a byte of a system backup flipped", len(places), "each named as damage", seed=number)


def test_no_byte_can_be_cut_off_or_put_behind(raw: bytes) -> None:
    number = seed()
    print("seed", number)
    chance = random.Random(number)
    ends = range(len(raw)) if PROOF else sorted(chance.sample(range(len(raw)), 200))
    for end in ends:
        with pytest.raises(FormatError):
            parsed(raw[:end])
    for more in (b"\0", b"M", raw, raw[:100]):
        with pytest.raises(FormatError, match="something follows its end"):
            parsed(raw + more)
    record("a system backup cut short", len(ends), "each refused", seed=number)


def test_damage_is_told_with_its_place(raw: bytes) -> None:
    place = raw.index(b"path/0010")
    with pytest.raises(FormatError, match=r"a frame differs from its digest \(at byte \d+\)"):
        parsed(raw[:place] + b"X" + raw[place + 1 :])
    with pytest.raises(FormatError, match="it is cut short"):
        parsed(raw[:-1])


def test_a_newer_format_and_a_foreign_file_are_named(born: lifecycle_kit.Born, raw: bytes) -> None:
    with pytest.raises(NewerFormatError, match="system backup has format 2"):
        parsed(raw.replace(b"spike-system-backup 1", b"spike-system-backup 2", 1))
    key_backup = raw[raw.index(b"spike-backup ") :]
    with pytest.raises(FormatError, match="this is a key backup"):
        parsed(key_backup)
    for other in (b"", b"spike", b"SQLite format 3\0" * 10, b"spike-system-backup 01\n" + raw[22:]):
        with pytest.raises(FormatError, match=r"no system backup|cut short"):
            parsed(other)


def test_parts_of_two_stores_do_not_make_one_file(born: lifecycle_kit.Born) -> None:
    other = lifecycle_kit.born()
    mixed = [*records_of(other, 0), *records_of(born, 5)[2:]]
    with pytest.raises(FormatError, match="its records have another keyring"):
        parsed(composed(born, mixed))


def test_records_out_of_order_or_twice_are_refused(born: lifecycle_kit.Born) -> None:
    records = records_of(born, 5)
    for wrong in ([*records, records[-1]], [*records[:3], records[4], records[3]]):
        with pytest.raises(FormatError, match="not in order"):
            parsed(composed(born, wrong))


def test_the_largest_record_passes(born: lifecycle_kit.Born) -> None:
    large = HeldRecord(RecordId(SECRET, "z" * 1024, "a" * 64), 1, b"\0" * (8 << 20))
    _, found = parsed(composed(born, [*records_of(born, 1), large]), 1 << 18)
    assert found[-1] == large


def test_another_root_key_confirms_nothing(born: lifecycle_kit.Born, raw: bytes) -> None:
    other = lifecycle_kit.born()
    summary, _ = parsed(raw)
    assert summary.manifest.confirmed_by(other.ring.root, born.ring.document) is None
    assert summary.manifest.confirmed_by(born.ring.root, other.ring.document) is None
