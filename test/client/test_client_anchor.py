"""The anchors Pilot keeps: never backwards, whole after a crash, nobody else's."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spike.client.anchor import (
    AnchorStore,
    Behind,
    Kept,
    SeenAnchor,
    decode_untrusted,
    directory_of,
    encode,
)
from spike.error import FormatError, NewerFormatError, SettingError
from spike.lifecycle import anchor as statements
from spike.lifecycle.anchor import Anchor
from spike.memory.key_memory import KeyMemory

STORE = "0123456789abcdef" * 2
LINEAGE = "a" * 32
SERVER = "https://localhost:8553"
MOMENT = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def root() -> Iterator[KeyMemory]:
    with KeyMemory.generate() as key:
        yield key


def seen(
    root: KeyMemory,
    epoch: int,
    revision: int = 1,
    access: int = 0,
    *,
    lineage: str = LINEAGE,
    store_id: str = STORE,
    generation: int = 1,
) -> SeenAnchor:
    raw = statements.encode(
        Anchor(store_id, lineage, epoch, revision, access, "", generation), root
    )
    return SeenAnchor.of_untrusted(raw, MOMENT, SERVER)


@pytest.fixture
def store(tmp_path: Path) -> AnchorStore:
    return AnchorStore(tmp_path / "spike" / "pilot")


def test_what_was_kept_is_found_again(store: AnchorStore, root: KeyMemory) -> None:
    assert store.get(STORE) is None
    assert store.latest(SERVER) is None
    assert store.keep(seen(root, 3)) == Kept()
    assert store.get(STORE) == seen(root, 3)
    assert store.latest(SERVER) == seen(root, 3)
    assert store.latest("https://other:1") is None
    assert store.get("f" * 32) is None


@pytest.mark.parametrize(
    ("held", "offered", "is_kept"),
    [
        ((3, 5, 2), (4, 1, 2), True),
        ((3, 5, 2), (3, 6, 2), True),
        # A newer keyring beside an older access list would bring revoked rights back.
        ((3, 5, 2), (4, 1, 0), False),
        ((3, 5, 2), (3, 6, 1), False),
        ((3, 5, 2), (3, 5, 3), True),
        ((3, 5, 2), (3, 5, 2), True),
        ((3, 5, 2), (3, 5, 1), False),
        ((3, 5, 2), (3, 4, 9), False),
        ((3, 5, 2), (2, 9, 9), False),
    ],
)
def test_an_anchor_never_goes_back(
    store: AnchorStore,
    root: KeyMemory,
    held: tuple[int, int, int],
    offered: tuple[int, int, int],
    is_kept: bool,
) -> None:
    store.keep(seen(root, *held))
    result = store.keep(seen(root, *offered))
    assert result == (Kept() if is_kept else Behind(seen(root, *held)))
    assert store.get(STORE) == seen(root, *(offered if is_kept else held))


def test_another_lineage_counts_only_with_a_higher_epoch(
    store: AnchorStore, root: KeyMemory
) -> None:
    store.keep(seen(root, 3))
    assert isinstance(store.keep(seen(root, 3, 99, lineage="b" * 32)), Behind)
    assert store.keep(seen(root, 4, 1, lineage="b" * 32)) == Kept()
    assert isinstance(store.keep(seen(root, 4, 99)), Behind)


def test_a_copy_with_another_root_key_is_told_by_its_epoch(
    store: AnchorStore, root: KeyMemory
) -> None:
    """Rotated to generation 2, rolled back to 1: neither a lower nor a higher number makes an old copy good."""
    store.keep(seen(root, 3))
    assert store.keep(seen(root, 4, generation=2)) == Kept()
    assert isinstance(store.keep(seen(root, 3, 99)), Behind)
    assert store.keep(seen(root, 5)) == Kept()
    assert isinstance(store.keep(seen(root, 4, 99, generation=2)), Behind)


def test_stores_do_not_touch_each_other(store: AnchorStore, root: KeyMemory) -> None:
    store.keep(seen(root, 9))
    assert store.keep(seen(root, 1, store_id="b" * 32)) == Kept()
    assert store.get(STORE) == seen(root, 9)
    later = replace(seen(root, 2, store_id="b" * 32), seen_at="2026-11-23T12:00:01Z")
    store.keep(later)
    assert store.latest(SERVER) == later


def test_only_this_user_can_read_what_is_kept(
    store: AnchorStore, root: KeyMemory, tmp_path: Path
) -> None:
    mask = os.umask(0)
    try:
        store.keep(seen(root, 1))
    finally:
        os.umask(mask)
    directory = tmp_path / "spike" / "pilot"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in directory.iterdir()] == [0o600]


def test_a_directory_that_others_can_write_to_is_refused(
    store: AnchorStore, root: KeyMemory, tmp_path: Path
) -> None:
    store.keep(seen(root, 1))
    (tmp_path / "spike" / "pilot").chmod(0o770)
    with pytest.raises(SettingError, match="others can write"):
        store.keep(seen(root, 2))


def test_a_damaged_anchor_is_named_and_not_overwritten(
    store: AnchorStore, root: KeyMemory, tmp_path: Path
) -> None:
    store.keep(seen(root, 1))
    file = tmp_path / "spike" / "pilot" / f"{STORE}.anchor"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(FormatError, match=str(file)):
        store.keep(seen(root, 2))
    assert store.latest(SERVER) is None


def test_what_a_crash_left_half_written_does_not_stand_in_the_way(
    store: AnchorStore, root: KeyMemory, tmp_path: Path
) -> None:
    store.keep(seen(root, 1))
    (tmp_path / "spike" / "pilot" / f"{STORE}.new").write_bytes(b"half")
    assert store.keep(seen(root, 2)) == Kept()
    assert store.get(STORE) == seen(root, 2)


def test_of_many_at_once_the_highest_stays(store: AnchorStore, root: KeyMemory) -> None:
    anchors = [seen(root, epoch) for epoch in range(1, 17)]
    threads = [threading.Thread(target=store.keep, args=(each,)) for each in anchors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert store.get(STORE) == anchors[-1]


@given(
    epoch=st.integers(0, 2**40),
    revision=st.integers(0, 2**40),
    server=st.text(max_size=60).map(lambda text: "https://" + text.encode().hex()),
)
def test_a_file_reads_back_as_it_was_written(
    root: KeyMemory, epoch: int, revision: int, server: str
) -> None:
    anchor = replace(seen(root, epoch, revision), server=server)
    assert decode_untrusted(encode(anchor)) == anchor


@pytest.mark.parametrize(
    "spoil",
    [
        lambda raw: raw[:-1],
        lambda raw: raw + b"\n",
        lambda raw: b" " + raw,
        lambda raw: raw.replace(b'"format":1', b'"format":1,"more":1'),
        lambda raw: raw.replace(b'"format":1', b'"format":0'),
        lambda raw: raw.replace(b"Z", b"z"),
        lambda raw: raw.replace(b'"server":"https', b'"server":"\\u0068ttps'),
        lambda raw: raw * 2,
        lambda raw: raw[:0],
        lambda raw: raw * 100,
    ],
)
def test_a_file_has_one_form_only(root: KeyMemory, spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(FormatError):
        decode_untrusted(spoil(encode(seen(root, 1))))


def test_a_file_of_a_newer_version_says_so(root: KeyMemory) -> None:
    with pytest.raises(NewerFormatError):
        decode_untrusted(encode(seen(root, 1)).replace(b'"format":1', b'"format":2'))


@pytest.mark.parametrize(
    ("environment", "directory"),
    [
        ({"SPIKE_PILOT_STATE_DIR": "/a", "XDG_STATE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_STATE_HOME": "/b", "HOME": "/c"}, "/b/spike/pilot"),
        ({"HOME": "/c"}, "/c/.local/state/spike/pilot"),
    ],
)
def test_anchors_lie_where_the_environment_says(
    environment: dict[str, str], directory: str
) -> None:
    assert directory_of(environment) == Path(directory)


@pytest.mark.parametrize("environment", [{}, {"SPIKE_PILOT_STATE_DIR": "relative"}])
def test_without_an_absolute_place_nothing_is_guessed(environment: dict[str, str]) -> None:
    with pytest.raises(SettingError) as refused:
        directory_of(environment)
    assert "SPIKE_PILOT_STATE_DIR" in refused.value.next_step
