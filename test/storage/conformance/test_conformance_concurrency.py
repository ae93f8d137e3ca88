"""Many tasks at once: no lost update, no half apply seen, no neighbour harmed, nothing half
cancelled."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable

from size import size
from spike.error import FenceError, StoreConflictError
from spike.storage.protocol import (
    KEYRING,
    MUST_NOT_EXIST,
    SECRET,
    Change,
    Put,
    Record,
    RecordId,
    Revision,
    SetFence,
    Store,
)
from storage.conformance.engine import collect, named, new


async def read(store: Store, id: RecordId) -> Record:  # noqa: A002 - the field's own name
    record = await store.get(id)
    assert record is not None
    return record


async def add_one(store: Store, id: RecordId) -> Revision:  # noqa: A002 - the field's own name
    """Read, add, write; again for as long as others come between."""
    while True:
        record = await read(store, id)
        count = int(record.blob) + 1
        try:
            return await store.put(Put(id, b"%d" % count, 1, record.revision), fence=None)
        except StoreConflictError:
            continue


async def test_writers_of_one_record_never_lose_an_update(store: Store) -> None:
    writers, rounds = 8, size(test=20, proof=500)
    counter = named("counter")
    await store.put(Put(counter, b"0", 1, MUST_NOT_EXIST), fence=None)

    async def write() -> list[Revision]:
        return [await add_one(store, counter) for _ in range(rounds)]

    revisions = await asyncio.gather(*(write() for _ in range(writers)))
    assert (await read(store, counter)).blob == b"%d" % (writers * rounds)
    given = [it for each in revisions for it in each]
    assert len(set(given)) == writers * rounds
    assert all(each == sorted(each) for each in revisions)


async def test_of_many_who_make_one_record_one_wins(store: Store) -> None:
    puts = [Put(named("one"), b"%d" % n, 1, MUST_NOT_EXIST) for n in range(32)]
    outcomes = await asyncio.gather(
        *(store.put(it, fence=None) for it in puts), return_exceptions=True
    )
    won = [n for n, it in enumerate(outcomes) if not isinstance(it, BaseException)]
    assert len(won) == 1
    assert all(isinstance(it, StoreConflictError) for n, it in enumerate(outcomes) if n not in won)
    assert (await read(store, named("one"))).blob == b"%d" % won[0]


async def test_a_refused_change_does_not_harm_its_neighbours(store: Store) -> None:
    taken = await store.put(new("taken"), fence=None)
    calls: list[Awaitable[object]] = []
    for n in range(60):
        match n % 3:
            case 0:
                calls.append(store.put(new(f"{n}"), fence=0))
            case 1:
                calls.append(store.apply([new(f"{n}"), new("taken")], fence=0))
            case _:
                calls.append(store.apply([new(f"{n}")], fence=7))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for n, outcome in enumerate(outcomes):
        expected = (int, StoreConflictError, FenceError)[n % 3]
        assert type(outcome) is expected, (n, outcome)
        assert (await store.get(named(f"{n}")) is not None) == (n % 3 == 0)
    assert (await read(store, named("taken"))).revision == taken


async def test_what_was_acknowledged_is_seen_at_once_by_every_read(store: Store) -> None:
    async def write_and_read(task: int) -> None:
        for n in range(size(test=10, proof=200)):
            put = new(f"{task}/{n}", b"%d" % n, generation=task)
            revision = await store.put(put, fence=None)
            assert await store.get(put.id) == Record(put.id, put.blob, task, revision)
            found = await store.scan(SECRET, put.id.key, None, 1_000)
            assert put.id in [it.id for it in found.items]
            walked = await store.scan_generation(SECRET, task, None, 1_000)
            assert put.id in [it.id for it in walked.items]
            assert (await store.census())[(SECRET, task)] == n + 1

    await asyncio.gather(*(write_and_read(task) for task in range(6)))


async def test_no_reader_sees_a_part_of_an_apply(store: Store) -> None:
    names = [named(f"{n}") for n in range(10)]
    puts = [Put(it, b"0", 1, MUST_NOT_EXIST) for it in names]
    revisions = await store.apply(puts, fence=None)
    done = asyncio.Event()

    async def write() -> None:
        present = revisions
        for n in range(1, size(test=40, proof=1_000)):
            blob = b"%d" % n
            puts = [Put(i, blob, n, r) for i, r in zip(names, present, strict=True)]
            present = await store.apply(puts, fence=None)
        done.set()

    async def look() -> int:
        looks = 0
        while not done.is_set():
            page = await store.scan(SECRET, "", None, 100)
            assert len(page.items) == 10
            assert len({it.blob for it in page.items}) == 1
            assert len({it.generation for it in page.items}) == 1
            assert len(await store.census()) == 1
            looks += 1
            await asyncio.sleep(0)
        return looks

    _, looks = await asyncio.gather(write(), look())
    assert looks > 1


async def test_no_write_under_an_old_epoch_gets_in_once_the_fence_has_moved(store: Store) -> None:
    """The flip of a rotation against writers that still hold the old epoch."""
    keyring = RecordId(KEYRING, "")
    revision = await store.put(Put(keyring, b"0", 0, MUST_NOT_EXIST), fence=None)
    epoch = 0
    stop = asyncio.Event()

    async def write(task: int) -> int:
        refused = n = 0
        while not stop.is_set():
            sealed_under = epoch
            n += 1
            await asyncio.sleep(0)  # the seal, during which the epoch may move
            try:
                await store.put(new(f"{task}/{n}", generation=sealed_under), fence=sealed_under)
            except FenceError:
                refused += 1
            else:
                written[sealed_under] = written.get(sealed_under, 0) + 1
                entered[sealed_under].set()
        return refused

    async def flip() -> None:
        nonlocal epoch, revision
        for following in range(1, size(test=10, proof=200)):
            await entered[epoch].wait()
            changes: list[Change] = [
                SetFence(following),
                Put(keyring, b"%d" % following, 0, revision),
            ]
            _, revision = await store.apply(changes, fence=epoch)
            # From here on nothing may be added under the epoch before.
            closed[epoch] = (await store.census()).get((SECRET, epoch), 0)
            epoch = following
        stop.set()

    entered: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)
    written: dict[int, int] = {}
    closed: dict[int, int] = {}
    await asyncio.gather(flip(), *(write(task) for task in range(4)))
    census = await store.census()
    assert {n: census[(SECRET, n)] for n in closed} == closed
    assert {n: written[n] for n in closed} == closed


async def test_a_cancelled_apply_happened_whole_or_not_at_all(store: Store) -> None:
    whole = 0
    for n in range(size(test=30, proof=1_000)):
        changes = [new(f"{n}/a"), new(f"{n}/b")]
        task = asyncio.create_task(store.apply(changes, fence=None))
        for _ in range(n % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        # A write that stands behind it in every queue: then its fate is decided.
        await store.put(new(f"{n}/z"), fence=None)
        found = await store.scan_key(SECRET, f"{n}/", None, 10)
        assert [it.id.key for it in found.items] in (
            [f"{n}/a", f"{n}/b", f"{n}/z"],
            [f"{n}/z"],
        )
        whole += len(found.items) == 3
    assert len(await collect(lambda after: store.scan_key(SECRET, "", after, 100))) == (
        whole * 2 + size(test=30, proof=1_000)
    )


async def test_a_close_finishes_what_was_begun(store: Store) -> None:
    puts = [asyncio.create_task(store.put(new(f"{n}"), fence=None)) for n in range(50)]
    await asyncio.sleep(0)
    await store.close()
    revisions = await asyncio.gather(*puts)
    assert len(set(revisions)) == 50
