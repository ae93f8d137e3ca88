"""What an engine may be able to do beyond the protocol: one moment of the store, states kept aside, a fresh start."""

from __future__ import annotations

import pytest

from spike.error import FenceError, InputError, StoreUnavailableError
from spike.storage.ability import CanErase, CanSetAside, CanSnapshot, Snapshot
from spike.storage.protocol import (
    KEYRING,
    MUST_NOT_EXIST,
    POLICY,
    SECRET,
    Delete,
    Put,
    Record,
    SetFence,
    Store,
)
from storage.conformance.conftest import Place
from storage.conformance.engine import named, new


async def whole(snapshot: Snapshot, limit_bytes: int = 100) -> list[Record]:
    found: list[Record] = []
    while part := await snapshot.read(limit_bytes):
        found += part
    return found


async def kept(store: Store) -> dict[str, bytes]:
    page = await store.scan(SECRET, "", None, 1000)
    return {record.id.key: record.blob for record in page.items}


async def test_a_snapshot_is_one_moment_whatever_is_written_meanwhile(store: Store) -> None:
    if not isinstance(store, CanSnapshot):
        pytest.skip("this engine takes no snapshots")
    names = [f"a{number:03d}" for number in range(50)]
    revisions = await store.apply([new(name, b"before") for name in names], fence=None)
    await store.apply([SetFence(7), new("current", kind=KEYRING)], fence=None)
    snapshot = await store.snapshot()
    first = list(await snapshot.read(20))
    assert 0 < len(first) < len(names)
    await store.apply(
        [
            Put(named(names[-1]), b"behind", 1, revisions[-1]),
            Delete(named(names[-2]), revisions[-2]),
            new("b", b"behind"),
            SetFence(8),
        ],
        fence=None,
    )
    found = [*first, *await whole(snapshot)]
    assert snapshot.fence == 7
    assert [(it.id.kind, it.id.key) for it in found] == [
        (KEYRING, "current"),
        *((SECRET, name) for name in names),
    ]
    assert {it.blob for it in found[1:]} == {b"before"}
    assert list(await snapshot.read(1)) == []
    await snapshot.close()
    await snapshot.close()


async def test_records_of_a_snapshot_come_in_the_order_of_kind_key_and_version(
    store: Store,
) -> None:
    if not isinstance(store, CanSnapshot):
        pytest.skip("this engine takes no snapshots")
    ids = [
        named(key, version, kind)
        for kind in (POLICY, SECRET)
        for key in ("", "a", "a\uffff", "a\U00010000", "b")
        for version in ("", "0", "1")
    ]
    changes = [Put(each, b"", 1, MUST_NOT_EXIST) for each in reversed(ids)]
    await store.apply(changes, fence=None)
    snapshot = await store.snapshot()
    assert [it.id for it in await whole(snapshot, 1)] == ids
    with pytest.raises(InputError):
        await snapshot.read(0)
    await snapshot.close()


async def test_a_snapshot_that_was_not_read_to_its_end_leaves_nothing_behind(store: Store) -> None:
    if not isinstance(store, CanSnapshot):
        pytest.skip("this engine takes no snapshots")
    await store.apply([new(f"a{number:03d}") for number in range(50)], fence=None)
    snapshot = await store.snapshot()
    await snapshot.read(20)
    await store.apply([new("b")], fence=None)
    await snapshot.close()
    assert await store.purge(1 << 30) == 0
    if isinstance(store, CanSetAside):
        other = await store.snapshot()
        await other.read(20)
        await store.set_aside("one")
        assert await store.census() == {}


async def test_a_store_closes_with_a_snapshot_open(place: Place) -> None:
    store = await place.open()
    if not isinstance(store, CanSnapshot):
        await store.close()
        pytest.skip("this engine takes no snapshots")
    await store.apply([new("a")], fence=None)
    await store.snapshot()
    await store.close()
    with pytest.raises(StoreUnavailableError):
        await store.snapshot()


async def test_what_is_set_aside_is_whole_and_comes_back(place: Place) -> None:
    store = await place.open()
    if not isinstance(store, CanSetAside):
        await store.close()
        pytest.skip("this engine sets nothing aside")
    await store.apply([SetFence(5), new("a", b"first")], fence=None)
    await store.set_aside("one")
    assert await store.census() == {}
    assert (await store.health()).fence == 0
    await store.apply([SetFence(9), new("a", b"second")], fence=None)
    with pytest.raises(InputError):
        await store.set_aside("one")
    with pytest.raises(InputError):
        await store.set_aside("../one")
    assert await kept(store) == {"a": b"second"}
    await store.bring_back("one", "two")
    assert await kept(store) == {"a": b"first"}
    with pytest.raises(FenceError):
        await store.apply([new("b")], fence=9)
    assert list(await store.asides()) == ["two"]
    with pytest.raises(InputError):
        await store.bring_back("one", None)
    again = store
    if (await store.health()).durable:
        await store.close()
        opened = await place.open()
        assert isinstance(opened, CanSetAside)
        again = opened
    assert await kept(again) == {"a": b"first"}
    await again.bring_back("two", None)
    assert await kept(again) == {"a": b"second"}
    assert list(await again.asides()) == []
    await again.close()


async def test_an_erased_store_is_as_new(place: Place) -> None:
    store = await place.open()
    if not isinstance(store, CanErase):
        await store.close()
        pytest.skip("this engine does not erase itself")
    await store.apply([SetFence(5), new("a")], fence=None)
    await store.erase()
    assert await store.census() == {}
    assert (await store.health()).fence == 0
    await store.apply([new("a")], fence=0)
    await store.close()
