"""What a durable engine still knows after it was closed, or killed in the middle of its work."""

from __future__ import annotations

import asyncio
import random
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from size import record, seed, size
from spike.error import FenceError, StoreConflictError
from spike.storage.protocol import SECRET, SECRET_META, Delete, Put, RecordId, SetFence, Store
from storage.conformance.conftest import Place
from storage.conformance.crash_writer import TASKS
from storage.conformance.engine import ENGINES, collect, named, new

WRITER = Path(__file__).with_name("crash_writer.py")


@pytest.fixture(params=[engine for engine in ENGINES if engine != "memory"])
async def durable(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    place = Place(request.param, tmp_path / "store")
    store = await place.open()
    is_durable = (await store.health()).durable
    await store.close()
    if not is_durable:
        pytest.skip(f"the engine {place.engine} keeps nothing by design")
    return place


async def test_records_fence_and_cursor_outlive_a_close(durable: Place) -> None:
    store = await durable.open()
    await store.apply([new(f"{n}", b"%d" % n, n) for n in range(10)], fence=None)
    await store.apply([SetFence(4)], fence=0)
    page = await store.scan(SECRET, "", None, 4)
    before = await collect(lambda after: store.scan(SECRET, "", after, 3))
    await store.close()
    store = await durable.open()
    assert await collect(lambda after: store.scan(SECRET, "", after, 3)) == before
    rest = await store.scan(SECRET, "", page.after, 100)
    assert [*page.items, *rest.items] == before
    with pytest.raises(FenceError):
        await store.put(new("x"), fence=0)
    await store.put(new("x"), fence=4)
    await store.close()


async def test_no_revision_is_given_again_after_a_close(durable: Place) -> None:
    given: set[int] = set()
    for _ in range(3):
        store = await durable.open()
        revision = await store.put(new("a"), fence=None)
        await store.delete(Delete(named("a"), revision), fence=None)
        (fenced,) = await store.apply([SetFence(1)], fence=None)
        with pytest.raises(StoreConflictError):
            await store.put(Put(named("a"), b"", 1, revision), fence=None)
        await store.close()
        assert not given & {revision, fenced}
        given |= {revision, fenced}


async def acknowledged_until_killed(place: Place, after_s: float) -> dict[int, int]:
    """Run the writer, kill it `after_s` after its store was open, return the last step of each
    task."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, WRITER, place.engine, place.directory, stdout=PIPE
    )
    assert child.stdout is not None
    opened = await child.stdout.readline()
    # A moment chosen at random is the point here; nothing is waited for.
    await asyncio.sleep(after_s)
    child.kill()
    lines = (await child.stdout.read()).decode().splitlines()
    await child.wait()
    assert opened == b"open\n"
    return dict(tuple(map(int, line.split())) for line in lines)  # type: ignore[misc] # two numbers a line


async def check_steps(store: Store, acknowledged: dict[int, int]) -> None:
    for task in range(TASKS):
        counter = await store.get(RecordId(SECRET_META, f"{task}"))
        step = 0 if counter is None else int(counter.blob)
        # One apply may have been on its way: whole, but not acknowledged.
        assert acknowledged.get(task, step) <= step <= acknowledged.get(task, step) + 1
        records = await collect(lambda after, t=task: store.scan(SECRET, f"{t}/", after, 1_000))  # type: ignore[misc] # a default binds the loop's value
        assert {it.id.key: it.blob for it in records} == {
            f"{task}/{n}/{side}": b"%d " % n * 200 for n in range(1, step + 1) for side in "ab"
        }


async def test_a_killed_writer_leaves_all_it_acknowledged_and_nothing_half(durable: Place) -> None:
    number, rounds = seed(), size(test=5, proof=50)
    print(f"SPIKE_SEED={number}")
    chance = random.Random(number)
    total = 0
    for _ in range(rounds):
        acknowledged = await acknowledged_until_killed(durable, chance.uniform(0.0, 0.3))
        store = await durable.open()
        await store.check()
        await check_steps(store, acknowledged)
        await store.close()
        total += sum(acknowledged.values())
    assert total > 0, "no round acknowledged anything: nothing was tried"
    result = f"{durable.engine}: nothing acknowledged was lost, no half apply"
    record("storage: killed at a random moment", rounds, result, seed=number)
