"""Changes: compare-and-swap, all or nothing, revisions, the fence, limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spike.error import FenceError, InputError, StoreConflictError, StoreUnavailableError
from spike.storage.protocol import (
    BLOB_LIMIT_BYTES,
    CHANGE_BYTE_LIMIT,
    CHANGE_LIMIT,
    EPOCH_LIMIT,
    GENERATION_LIMIT,
    KEY_LIMIT_BYTES,
    MUST_NOT_EXIST,
    SECRET,
    Change,
    Delete,
    Kind,
    Put,
    Record,
    RecordId,
    Revision,
    SetFence,
    Store,
)
from storage.conformance.engine import named, new

NEVER = Revision(2**62)
"""A revision no store has reached."""


async def everything(store: Store) -> list[Record]:
    page = await store.scan(SECRET, "", None, 1_000)
    assert page.after is None
    return list(page.items)


async def test_a_record_is_read_as_it_was_put(store: Store) -> None:
    put = Put(RecordId(SECRET, "tenant/ä b\n\\%_", "0a-f"), bytes(range(256)), 7, MUST_NOT_EXIST)
    revision = await store.put(put, fence=None)
    assert revision >= 1
    assert await store.get(put.id) == Record(put.id, put.blob, 7, revision)


async def test_a_record_that_is_not_there_is_none(store: Store) -> None:
    await store.put(new("a"), fence=None)
    for other in (named("b"), named("a", "00"), named("a", kind=Kind("policy")), named("A")):
        assert await store.get(other) is None


async def test_kind_key_and_version_each_tell_records_apart(store: Store) -> None:
    ids = [RecordId(Kind(k), key, v) for k in ("x", "y") for key in ("", "a") for v in ("", "a")]
    for at, each in enumerate(ids):
        await store.put(Put(each, b"%d" % at, at, MUST_NOT_EXIST), fence=None)
    for at, each in enumerate(ids):
        found = await store.get(each)
        assert found is not None
        assert (found.blob, found.generation) == (b"%d" % at, at)


async def test_a_kind_nobody_has_heard_of_is_stored(store: Store) -> None:
    kind = Kind("x-made-up-later-9")
    await store.put(new("a", kind=kind), fence=None)
    assert await store.get(named("a", kind=kind)) is not None


async def test_a_put_replaces_blob_and_generation_and_takes_a_later_revision(store: Store) -> None:
    first = await store.put(new("a", b"one", 1), fence=None)
    second = await store.put(Put(named("a"), b"", 2, first), fence=None)
    assert second > first
    assert await store.get(named("a")) == Record(named("a"), b"", 2, second)


async def test_a_deleted_record_is_gone(store: Store) -> None:
    revision = await store.put(new("a"), fence=None)
    await store.delete(Delete(named("a"), revision), fence=None)
    assert await store.get(named("a")) is None
    assert await everything(store) == []


async def test_a_record_made_again_never_shows_an_old_revision(store: Store) -> None:
    seen: set[int] = set()
    for _ in range(5):
        revision = await store.put(new("a"), fence=None)
        assert revision not in seen
        seen.add(revision)
        await store.delete(Delete(named("a"), revision), fence=None)
    await store.put(new("a"), fence=None)
    for old in seen:
        with pytest.raises(StoreConflictError):
            await store.put(Put(named("a"), b"late", 1, Revision(old)), fence=None)


@pytest.mark.parametrize(
    "refused",
    [
        pytest.param(new("there", b"x"), id="made where one is"),
        pytest.param(Put(named("there"), b"x", 1, NEVER), id="put at another revision"),
        pytest.param(Put(named("missing"), b"x", 1, NEVER), id="put where none is"),
        pytest.param(Delete(named("there"), NEVER), id="deleted at another revision"),
        pytest.param(Delete(named("missing"), NEVER), id="deleted where none is"),
    ],
)
@pytest.mark.parametrize("position", range(3))
async def test_one_refused_change_at_any_position_leaves_all_undone(
    store: Store, refused: Change, position: int
) -> None:
    kept = await store.put(new("there", b"kept"), fence=None)
    moved = await store.put(new("moved", b"before"), fence=None)
    before = await everything(store)
    changes: list[Change] = [new("made"), Put(named("moved"), b"after", 2, moved)]
    changes.insert(position, refused)
    with pytest.raises(StoreConflictError) as caught:
        await store.apply(changes, fence=None)
    assert not isinstance(caught.value, FenceError)
    assert ("there" if "there" in repr(refused) else "missing") in caught.value.message
    assert await everything(store) == before
    found = await store.get(named("there"))
    assert found is not None
    assert found.revision == kept


async def test_no_revision_but_the_present_one_will_do(store: Store) -> None:
    neighbour = await store.put(new("neighbour"), fence=None)
    revision = await store.put(new("a", b"0"), fence=None)
    past = [neighbour, revision]
    for n in range(1, 4):
        revision = await store.put(Put(named("a"), b"%d" % n, 1, past[-1]), fence=None)
        past.append(revision)
    for wrong in (*past[:-1], Revision(revision + 1), NEVER):
        for change in (Put(named("a"), b"late", 1, wrong), Delete(named("a"), wrong)):
            with pytest.raises(StoreConflictError):
                await store.apply([change], fence=None)
    assert await store.get(named("a")) == Record(named("a"), b"3", 1, revision)


async def test_many_changes_of_all_sorts_are_one(store: Store) -> None:
    revisions = await store.apply([new(f"{n}", b"old") for n in range(30)], fence=None)
    assert len(set(revisions)) == 30
    changes: list[Change] = []
    for n in range(30):
        match n % 3:
            case 0:
                changes.append(Put(named(f"{n}"), b"new", 2, revisions[n]))
            case 1:
                changes.append(Delete(named(f"{n}"), revisions[n]))
            case _:
                changes.append(new(f"more {n}", b"new", 2))
    changes.insert(11, SetFence(5))
    after = await store.apply(changes, fence=None)
    assert len(after) == len(changes)
    assert min(after) > max(revisions)
    found = {it.id.key: it for it in await everything(store)}
    put = {c.id.key: r for c, r in zip(changes, after, strict=True) if isinstance(c, Put)}
    assert {key: it.revision for key, it in found.items() if it.blob == b"new"} == put
    assert {key for key, it in found.items() if it.blob == b"old"} == {
        f"{n}" for n in range(30) if n % 3 == 2
    }
    assert (await store.health()).fence == 5


async def test_as_many_changes_as_allowed_are_one(store: Store) -> None:
    changes = [new(f"{n:05}", b"x" * 10) for n in range(CHANGE_LIMIT)]
    assert len(set(await store.apply(changes, fence=None))) == CHANGE_LIMIT
    assert await store.census() == {(SECRET, 1): CHANGE_LIMIT}


async def test_a_new_store_has_fence_zero(store: Store) -> None:
    assert (await store.health()).fence == 0
    await store.put(new("a"), fence=0)
    with pytest.raises(FenceError):
        await store.put(new("b"), fence=1)


async def test_a_write_under_another_epoch_than_the_fence_is_refused(store: Store) -> None:
    revision = await store.put(new("a"), fence=None)
    await store.apply([SetFence(3)], fence=None)
    refused: list[Change] = [new("b"), Put(named("a"), b"x", 1, revision)]
    for epoch in (0, 2, 4, EPOCH_LIMIT):
        with pytest.raises(FenceError):
            await store.apply(refused, fence=epoch)
        with pytest.raises(FenceError):
            await store.put(new("b"), fence=epoch)
        with pytest.raises(FenceError):
            await store.delete(Delete(named("a"), revision), fence=epoch)
    assert [it.revision for it in await everything(store)] == [revision]
    await store.apply(refused, fence=3)
    await store.put(new("c"), fence=None)


async def test_the_fence_is_judged_before_the_records(store: Store) -> None:
    await store.put(new("a"), fence=None)
    with pytest.raises(FenceError):
        await store.apply([new("a")], fence=9)


async def test_the_fence_stays_or_grows_and_never_falls(store: Store) -> None:
    await store.apply([SetFence(3)], fence=0)
    await store.apply([SetFence(3)], fence=3)
    await store.apply([SetFence(EPOCH_LIMIT), new("a")], fence=3)
    with pytest.raises(FenceError):
        await store.apply([SetFence(4), new("b")], fence=EPOCH_LIMIT)
    assert (await store.health()).fence == EPOCH_LIMIT
    assert await store.get(named("b")) is None


@pytest.mark.parametrize("position", range(3))
async def test_a_fence_moves_only_together_with_the_changes_beside_it(
    store: Store, position: int
) -> None:
    changes: list[Change] = [new("b"), Delete(named("missing"), NEVER)]
    changes.insert(position, SetFence(8))
    with pytest.raises(StoreConflictError):
        await store.apply(changes, fence=None)
    assert (await store.health()).fence == 0
    await store.put(new("b"), fence=0)


async def test_the_largest_record_is_stored_and_read(store: Store) -> None:
    id = RecordId(Kind("k" * 64), "é" * (KEY_LIMIT_BYTES // 2), "f" * 64)  # noqa: A001
    blob = bytes(range(256)) * (BLOB_LIMIT_BYTES // 256)
    await store.put(Put(id, blob, GENERATION_LIMIT, MUST_NOT_EXIST), fence=None)
    found = await store.get(id)
    assert found is not None
    assert found.blob == blob
    assert found.generation == GENERATION_LIMIT
    page = await store.scan(id.kind, id.key, None, 1)
    assert page.items == (found,)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: named("k" * (KEY_LIMIT_BYTES + 1)), id="key too long"),
        pytest.param(lambda: named("é" * (KEY_LIMIT_BYTES // 2) + "x"), id="key too long, bytes"),
        pytest.param(lambda: named("a\0b"), id="key with U+0000"),
        pytest.param(lambda: named("\ud800"), id="key with half a surrogate pair"),
        pytest.param(lambda: named("a", "f" * 65), id="version too long"),
        pytest.param(lambda: named("a", "00:"), id="version with a colon"),
        pytest.param(lambda: named("a", "00\n"), id="version with a newline"),
        pytest.param(lambda: named("a", kind=Kind("")), id="kind empty"),
        pytest.param(lambda: named("a", kind=Kind("Secret")), id="kind in capitals"),
        pytest.param(lambda: named("a", kind=Kind("k" * 65)), id="kind too long"),
        pytest.param(lambda: new("a", bytes(BLOB_LIMIT_BYTES + 1)), id="blob too large"),
        pytest.param(lambda: new("a", generation=-1), id="generation negative"),
        pytest.param(lambda: new("a", generation=GENERATION_LIMIT + 1), id="generation large"),
        pytest.param(lambda: Put(named("a"), b"", 1, Revision(0)), id="revision zero"),
        pytest.param(lambda: Delete(named("a"), Revision(0)), id="revision zero, delete"),
        pytest.param(lambda: SetFence(-1), id="epoch negative"),
        pytest.param(lambda: SetFence(EPOCH_LIMIT + 1), id="epoch large"),
    ],
)
def test_what_is_out_of_its_limits_cannot_be_written_down(make: Callable[[], object]) -> None:
    with pytest.raises(InputError):
        make()


async def test_an_apply_out_of_its_limits_is_refused_whole(store: Store) -> None:
    large = bytes(BLOB_LIMIT_BYTES)
    count = CHANGE_BYTE_LIMIT // BLOB_LIMIT_BYTES
    refused: list[list[Change]] = [
        [],
        [new(f"{n}") for n in range(CHANGE_LIMIT + 1)],
        [*(new(f"{n}", large) for n in range(count)), new("more", b"x")],
        [new("a"), new("a")],
        [new("b"), new("a"), Delete(named("a"), NEVER)],
        [SetFence(1), new("a"), SetFence(2)],
    ]
    for changes in refused:
        with pytest.raises(InputError):
            await store.apply(changes, fence=None)
    with pytest.raises(InputError):
        await store.put(new("a"), fence=-1)
    assert await store.census() == {}


async def test_a_closed_store_answers_that_it_is_closed(store: Store) -> None:
    await store.put(new("a"), fence=None)
    await store.close()
    await store.close()
    for call in (
        lambda: store.get(named("a")),
        lambda: store.put(new("b"), fence=None),
        lambda: store.delete(Delete(named("a"), NEVER), fence=None),
        lambda: store.apply([new("b")], fence=None),
        lambda: store.scan(SECRET, "", None, 1),
        lambda: store.scan_key(SECRET, "", None, 1),
        lambda: store.scan_generation(SECRET, 1, None, 1),
        store.census,
        store.health,
        store.check,
        lambda: store.purge(1),
    ):
        with pytest.raises(StoreUnavailableError):
            await call()


async def test_health_check_and_purge_of_a_sound_store_find_nothing_wrong(store: Store) -> None:
    revision = await store.put(new("a", b"x" * 100_000), fence=None)
    await store.delete(Delete(named("a"), revision), fence=None)
    await store.check()
    for _ in range(1_000):
        if await store.purge(4096) == 0:
            break
    else:
        pytest.fail("the purge does not come to an end")
    health = await store.health()
    assert health.fault == ""
    assert health.engine
    assert health.format >= 1
    assert health.free_bytes is None or health.free_bytes > 0
    with pytest.raises(InputError):
        await store.purge(0)
