"""Scans: order, prefix, cursors that stay good, pages, generations, census."""

from __future__ import annotations

import pytest

from spike.error import InputError
from spike.storage.protocol import (
    BLOB_LIMIT_BYTES,
    GENERATION_LIMIT,
    KEY_LIMIT_BYTES,
    MUST_NOT_EXIST,
    PAGE_LIMIT,
    POLICY,
    SECRET,
    Cursor,
    Delete,
    Kind,
    Put,
    RecordHead,
    RecordId,
    Store,
)
from storage.conformance.engine import collect, named, new

# U+FFFF comes before U+10000 in UTF-8 and behind it in UTF-16; capitals come before small letters.
KEYS = [
    "",
    " ",
    "A",
    "a",
    "a%",
    "a/",
    "a/b",
    "a/b/c",
    "a_",
    "ab",
    "a\u00e9",
    "a\ud7ff",
    "a\ue000",
    "a\uffff",
    "a\U00010000",
    "a\U0010ffff",
    "b",
    "\u00e9",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "\U0010ffff\U0010ffff",
]


async def fill(store: Store, keys: list[str]) -> None:
    await store.apply([new(key, key.encode()) for key in reversed(keys)], fence=None)


async def keys_of(store: Store, prefix: str, limit: int) -> list[str]:
    heads = await collect(lambda after: store.scan_key(SECRET, prefix, after, limit))
    records = await collect(lambda after: store.scan(SECRET, prefix, after, limit))
    assert heads == [RecordHead(it.id, it.generation, it.revision) for it in records]
    assert all(it.blob == it.id.key.encode() for it in records)
    return [it.id.key for it in heads]


@pytest.mark.parametrize("limit", [1, 2, 7, PAGE_LIMIT])
async def test_records_come_in_the_order_of_their_keys_bytes(store: Store, limit: int) -> None:
    await fill(store, KEYS)
    assert await keys_of(store, "", limit) == sorted(KEYS, key=str.encode)


@pytest.mark.parametrize("limit", [1, 3, PAGE_LIMIT])
async def test_a_prefix_selects_what_begins_with_it_and_nothing_else(
    store: Store, limit: int
) -> None:
    await fill(store, KEYS)
    for prefix in [*KEYS, "a/b/", "a\ud7fe", "zzz", "\U0010fffe"]:
        expected = sorted((key for key in KEYS if key.startswith(prefix)), key=str.encode)
        assert await keys_of(store, prefix, limit) == expected


async def test_versions_of_one_key_follow_each_other_in_order(store: Store) -> None:
    ids = [named(key, version) for key in ("a", "a-", "b") for version in ("", "0", "00", "f0")]
    await store.apply([Put(it, b"", 1, MUST_NOT_EXIST) for it in reversed(ids)], fence=None)
    found = await collect(lambda after: store.scan_key(SECRET, "", after, 1))
    assert [it.id for it in found] == ids


async def test_a_scan_sees_its_own_kind_alone(store: Store) -> None:
    await fill(store, ["a", "b"])
    await store.put(new("a", kind=POLICY), fence=None)
    await store.put(new("a", kind=Kind("secret-meta")), fence=None)
    assert await keys_of(store, "", 10) == ["a", "b"]
    empty = await store.scan(Kind("unheard-of"), "", None, 10)
    assert (empty.items, empty.after) == ((), None)


async def test_the_last_full_page_has_no_cursor(store: Store) -> None:
    await fill(store, ["a", "b", "c", "d"])
    for scan in (store.scan, store.scan_key):
        page = await scan(SECRET, "", None, 2)
        assert page.after is not None
        last = await scan(SECRET, "", page.after, 2)
        assert [it.id.key for it in last.items] == ["c", "d"]
        assert last.after is None


async def test_a_cursor_stays_good_while_records_come_and_go(store: Store) -> None:
    await fill(store, [f"k{n:02}" for n in range(0, 40, 2)])
    seen: list[str] = []
    after: Cursor | None = None
    step = 0
    while True:
        page = await store.scan(SECRET, "k", after, 3)
        seen += [it.id.key for it in page.items]
        if page.after is None:
            break
        after = page.after
        # The record the cursor stands on goes, one before it and one behind it come.
        last = page.items[-1]
        await store.delete(Delete(last.id, last.revision), fence=None)
        await store.put(new(f"k{step * 2 + 1:02}x", f"k{step * 2 + 1:02}x".encode()), fence=None)
        await store.put(new(f"{last.id.key}+", b""), fence=None)
        step += 1
    assert len(seen) == len(set(seen))
    assert seen == sorted(seen)
    assert {f"k{n:02}" for n in range(0, 40, 2)} <= set(seen)
    assert any(it.endswith("+") for it in seen)


async def test_a_record_written_again_during_a_scan_is_returned_once(store: Store) -> None:
    await fill(store, ["a", "b", "c"])
    page = await store.scan(SECRET, "", None, 2)
    for record in page.items:
        await store.put(Put(record.id, b"again", 2, record.revision), fence=None)
    rest = await store.scan(SECRET, "", page.after, 2)
    assert [it.id.key for it in rest.items] == ["c"]


async def test_a_scan_by_generation_finds_those_records_alone(store: Store) -> None:
    await store.apply([new(f"{n:02}", b"", generation=n % 3) for n in range(30)], fence=None)
    await store.put(new("00", generation=1, kind=POLICY), fence=None)
    for generation in range(3):
        for limit in (1, 4, 10, 11):
            found = await collect(
                lambda after, g=generation, n=limit: store.scan_generation(SECRET, g, after, n)  # type: ignore[misc] # defaults bind the loop's values
            )
            assert [it.id.key for it in found] == [f"{n:02}" for n in range(generation, 30, 3)]
            assert {it.generation for it in found} == {generation}
    assert (await store.scan_generation(SECRET, GENERATION_LIMIT, None, 1)).items == ()


async def test_a_walker_that_moves_records_to_another_generation_meets_each_once(
    store: Store,
) -> None:
    await store.apply([new(f"{n:02}", b"old", 1) for n in range(25)], fence=None)
    moved: list[str] = []
    after: Cursor | None = None
    while True:
        page = await store.scan_generation(SECRET, 1, after, 4)
        changes = [Put(it.id, b"new", 2, it.revision) for it in page.items]
        moved += [it.id.key for it in page.items]
        await store.apply(changes, fence=None)
        if page.after is None:
            break
        after = page.after
    assert moved == [f"{n:02}" for n in range(25)]
    assert await store.census() == {(SECRET, 2): 25}


async def test_the_census_counts_by_kind_and_generation(store: Store) -> None:
    assert await store.census() == {}
    await store.apply([new(f"{n}", generation=n % 2) for n in range(5)], fence=None)
    policy = await store.put(new("0", generation=9, kind=POLICY), fence=None)
    assert await store.census() == {(SECRET, 0): 3, (SECRET, 1): 2, (POLICY, 9): 1}
    await store.delete(Delete(named("0", kind=POLICY), policy), fence=None)
    assert await store.census() == {(SECRET, 0): 3, (SECRET, 1): 2}


async def test_a_page_of_large_records_ends_early_and_goes_on(store: Store) -> None:
    half = bytes(BLOB_LIMIT_BYTES // 2)
    for n in range(5):
        await store.put(new(f"{n}", half), fence=None)
    first = await store.scan(SECRET, "", None, 5)
    assert [it.id.key for it in first.items] == ["0", "1"]
    rest = await collect(lambda after: store.scan(SECRET, "", after or first.after, 5))
    assert [it.id.key for it in rest] == ["2", "3", "4"]
    heads = await store.scan_key(SECRET, "", None, 5)
    assert len(heads.items) == 5
    walked = await collect(lambda after: store.scan_generation(SECRET, 1, after, 5))
    assert len(walked) == 5


async def test_a_scan_out_of_its_limits_is_refused(store: Store) -> None:
    for limit in (0, -1, PAGE_LIMIT + 1):
        with pytest.raises(InputError):
            await store.scan(SECRET, "", None, limit)
        with pytest.raises(InputError):
            await store.scan_key(SECRET, "", None, limit)
        with pytest.raises(InputError):
            await store.scan_generation(SECRET, 1, None, limit)
    for generation in (-1, GENERATION_LIMIT + 1):
        with pytest.raises(InputError):
            await store.scan_generation(SECRET, generation, None, 1)
    for prefix in ("p" * (KEY_LIMIT_BYTES + 1), "a\0", "\udc00"):
        with pytest.raises(InputError):
            await store.scan(SECRET, prefix, None, 1)
    with pytest.raises(InputError):
        await store.scan(Kind("no kind"), "", None, 1)


async def test_a_cursor_from_another_scan_brings_in_nothing_from_outside(store: Store) -> None:
    await fill(store, ["a", "aa", "b/1", "b/2", "c"])
    await store.put(new("b/3", kind=POLICY), fence=None)
    page = await store.scan(SECRET, "", None, 1)
    assert [it.id.key for it in page.items] == ["a"]
    inside = await store.scan(SECRET, "b/", page.after, 10)
    assert [it.id.key for it in inside.items] == ["b/1", "b/2"]
    heads = await store.scan_key(SECRET, "b/", page.after, 10)
    assert [it.id.key for it in heads.items] == ["b/1", "b/2"]
    behind = await store.scan(SECRET, "", page.after, 2)
    beyond = await store.scan(SECRET, "a", behind.after, 10)
    assert beyond.items == ()


@pytest.mark.parametrize("text", ["", "nonsense", "\0", "x" * 100_000, "\ud800:", "00:a\0"])
async def test_what_is_no_cursor_is_refused(store: Store, text: str) -> None:
    await fill(store, ["a"])
    with pytest.raises(InputError):
        await store.scan(SECRET, "", Cursor(text), 1)


async def test_a_long_key_has_a_cursor_too(store: Store) -> None:
    keys = ["\u00e9" * (KEY_LIMIT_BYTES // 2 - 1) + end for end in ("", "a", "b")]
    for key in keys:
        id = RecordId(SECRET, key, "f" * 64)  # noqa: A001 - the field's own name
        await store.put(Put(id, key.encode(), 1, MUST_NOT_EXIST), fence=None)
    assert await keys_of(store, keys[0], 1) == keys
