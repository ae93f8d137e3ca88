"""What a share is bound to, what vouches for it, and the set that Nexus holds."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace
from typing import Any

import pytest

import doc_kit
from share_kit import deal, dealt, key_of
from spike.crypto.shamir import proof_of
from spike.error import RefusedError, WipedError
from spike.lifecycle.shard_text import encode_shard_text
from spike.lifecycle.share import (
    MEANING,
    HeldSet,
    ShareError,
    ShareLabel,
    ShareProblem,
    digest_of,
    tag_key,
    tag_of,
)
from spike.memory.key_memory import KeyMemory

STORE, LINEAGE, SET = "0a" * 16, "1b" * 16, "2c" * 16
LABEL = ShareLabel(STORE, LINEAGE, SET, 7, 3, 2)
CANONICAL = bytes.fromhex(STORE + LINEAGE + SET + "00000007" + "03" + "02")


def bytes_of(key: KeyMemory) -> bytes:
    with key.view() as view:
        return bytes(view)


def test_a_label_is_54_bytes_in_one_order() -> None:
    assert LABEL.canonical() == CANONICAL
    assert len(CANONICAL) == 54


@pytest.mark.parametrize(
    "other",
    [
        replace(LABEL, store_id=LINEAGE),
        replace(LABEL, lineage=STORE),
        replace(LABEL, set_id=STORE),
        replace(LABEL, generation=8),
        replace(LABEL, index=2),
        replace(LABEL, threshold=3),
        replace(LABEL, index=2, threshold=3),
    ],
)
def test_every_part_of_a_label_counts_in_digest_and_tag(other: ShareLabel) -> None:
    with KeyMemory.generate() as value, KeyMemory.generate() as key:
        assert digest_of(other, value) != digest_of(LABEL, value)
        assert tag_of(key, other, value) != tag_of(key, LABEL, value)


@pytest.mark.parametrize(
    "text", ["", "0a" * 15, "0a" * 17, "0A" * 16, "0a " * 10 + "0a", "xy" * 16]
)
def test_an_id_of_another_form_has_no_canonical_label(text: str) -> None:
    for name in ("store_id", "lineage", "set_id"):
        changed: dict[str, Any] = {name: text}
        with pytest.raises(ValueError, match="hexadecimal"):
            replace(LABEL, **changed).canonical()


def test_a_digest_is_as_the_format_page_says() -> None:
    with KeyMemory.generate() as value:
        covered = b"spike/share/v1/digest" + CANONICAL + bytes_of(value)
        assert digest_of(LABEL, value) == hashlib.sha256(covered).hexdigest()


def test_a_tag_is_as_the_format_page_says() -> None:
    """HKDF and MAC put together from the standard library."""
    with KeyMemory.generate() as root, KeyMemory.generate() as value:
        info = b"spike/root/v1/share-mac" + bytes.fromhex(STORE) + (7).to_bytes(4, "big")
        extracted = hmac.digest(bytes(64), bytes_of(root), "sha512")
        derived = hmac.digest(extracted, info + b"\x01", "sha512")[:32]
        covered = b"spike/share/v1/tag" + CANONICAL + bytes_of(value)
        with tag_key(root, LABEL) as key:
            assert bytes_of(key) == derived
            found = tag_of(key, LABEL, value)
        assert found == hmac.digest(derived, covered, "sha512")[:32].hex()


def test_the_examples_of_the_format_page_are_right() -> None:
    """For whoever writes another implementation."""
    with key_of(bytes(range(32))) as root, key_of(bytes(range(0xE0, 0x100))) as value:
        with tag_key(root, LABEL) as key:
            examples = {"digest": digest_of(LABEL, value), "tag   ": tag_of(key, LABEL, value)}
        examples["proof "] = proof_of(value, bytes(32)).hex()
        shard = encode_shard_text(SET, LABEL.threshold, LABEL.index, value).decode()
    page = doc_kit.page("docs/reference/format.md")
    lines = ["\n".join(f"{name} {text}" for name, text in examples.items()), shard]
    assert [line for line in lines if f"```text\n{line}\n```" not in page] == []


def test_a_held_set_gives_each_share_with_label_tag_digest_and_proof() -> None:
    with dealt(2, 3) as made, tag_key(made.root, made.held.share(1).label) as key:
        held = made.held
        assert held.indexes == (1, 2, 3)
        assert (held.threshold, held.generation, held.set_id) == (2, 7, made.share_set.id)
        for index in held.indexes:
            share = held.share(index)
            assert share.label == ShareLabel(made.store_id, made.lineage, held.set_id, 7, index, 2)
            assert share.tag == tag_of(key, share.label, share.value)
            assert held.digest(index) == digest_of(share.label, share.value)
            assert held.proof(index, bytes(32)) == proof_of(share.value, bytes(32))


def test_two_splits_of_one_root_key_have_no_share_in_common() -> None:
    with dealt(2, 3) as first:
        second = deal(2, 3, first.root)
        for index in (1, 2, 3):
            assert not first.held.share(index).value.same_as(second.held.share(index).value)
        second.held.wipe()


def test_a_wiped_set_gives_nothing_any_more() -> None:
    made = deal(2, 3)
    share = made.held.share(2)
    with made.held as held:
        assert not share.value.wiped
    made.held.wipe()
    assert share.value.wiped
    for use in (held.digest, lambda index: held.proof(index, bytes(32))):
        with pytest.raises(WipedError):
            use(2)


@pytest.mark.parametrize("index", [0, 4, -1, 256])
def test_an_index_the_set_does_not_have_is_refused(index: int) -> None:
    with dealt(2, 3) as made:
        for use in (made.held.share, made.held.digest, lambda i: made.held.proof(i, bytes(32))):
            with pytest.raises(ShareError) as refused:
                use(index)
            assert refused.value.problem is ShareProblem.UNKNOWN_INDEX


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 4},
        {"threshold": 0},
        {"indexes": (1, 1, 2)},
        {"indexes": (0, 1, 2)},
        {"indexes": (1, 2, 256)},
        {"store_id": "no id"},
        {"set_id": "AB" * 16},
        {"generation": 0},
        {"generation": 1 << 32},
    ],
)
def test_a_split_that_makes_no_sense_leaves_nothing(
    wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[KeyMemory] = []
    allocate = KeyMemory.allocate

    def watched(size_bytes: int) -> KeyMemory:
        made.append(allocate(size_bytes))
        return made[-1]

    setting: dict[str, Any] = {
        "store_id": STORE,
        "lineage": LINEAGE,
        "set_id": SET,
        "generation": 7,
    }
    setting |= {"threshold": 2, "indexes": (1, 2, 3)} | wrong
    with KeyMemory.generate() as root:
        monkeypatch.setattr(KeyMemory, "allocate", watched)
        with pytest.raises(ValueError, match=r"."):
            HeldSet.split(root, **setting)
        assert all(key.wiped for key in made)


def test_only_a_root_key_is_split() -> None:
    with KeyMemory.generate(31) as short, pytest.raises(ValueError, match="32 bytes"):
        deal(2, 3, short)


def test_neither_a_share_nor_a_set_shows_its_bytes() -> None:
    with dealt(2, 3) as made:
        shown = repr(made.held.share(1)) + repr(made.held)
        assert bytes_of(made.held.share(1).value).hex() not in shown
        assert "KeyMemory(32 bytes, held)" in shown


def test_every_problem_has_a_sentence() -> None:
    assert set(MEANING) == set(ShareProblem)
    assert isinstance(ShareError(ShareProblem.TOO_FEW), RefusedError)
    assert len(set(MEANING.values())) == len(MEANING)
