"""The pace of a re-encryption, on a clock of the test: flat out alone, small bites beside requests, limits kept."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from nexus_kit import running
from reencryption_kit import ROTATION, flip, furnish, under
from spike.nexus.reencryption import Reencryption
from spike.nexus.reencryption_pace import (
    LARGE,
    LONGEST_REST_S,
    POLL_S,
    RELIEF,
    RELIEF_LIMIT,
    SMALL,
    Limits,
    WalkPace,
)


@dataclass
class World:
    """A clock, requests, and what an operator has set."""

    now_s: float = 100.0
    served: int = 0
    limits: Limits = field(default_factory=Limits)
    late_s: float = 0.0
    """How late the event loop comes to what is due."""
    slept: list[float] = field(default_factory=list)
    resume_after: int = 0
    """A pause ends after so many looks."""

    async def sleep(self, pause_s: float) -> None:
        self.slept.append(pause_s)
        self.now_s += pause_s + self.late_s
        if self.resume_after:
            self.resume_after -= 1
            if not self.resume_after:
                self.limits = Limits(self.limits.max_rate)

    def pace(self) -> WalkPace:
        return WalkPace(
            lambda: self.served, lambda: self.limits, time=lambda: self.now_s, sleep=self.sleep
        )

    async def batches(self, pace: WalkPace, count: int, took_s: float = 0.01) -> list[int]:
        """Go through batches that each take so long; return their sizes."""
        sizes = []
        for _ in range(count):
            sizes.append(await pace.permit())
            self.now_s += took_s
            pace.note(sizes[-1], took_s)
        return sizes


async def test_alone_it_goes_flat_out_and_never_rests() -> None:
    world = World()
    sizes = await world.batches(world.pace(), 10)
    assert sizes[0] < LARGE
    assert sizes[-1] == LARGE
    assert sizes == sorted(sizes)
    assert world.slept == []


async def test_beside_requests_batches_are_small_and_it_rests_longer_than_it_works() -> None:
    world = World()
    pace = world.pace()
    await world.batches(pace, 10)
    for _ in range(20):
        world.served += 1
        (size,) = await world.batches(pace, 1, took_s=0.01)
        assert size == SMALL
    assert sum(world.slept) >= 19 * RELIEF * 0.01 - 1e-9


async def test_it_is_alone_again_when_nobody_has_asked_for_a_while() -> None:
    world = World()
    pace = world.pace()
    world.served += 1
    assert (await world.batches(pace, 1))[0] == SMALL
    world.now_s += 1
    assert (await world.batches(pace, 8))[-1] == LARGE


async def test_it_rests_longer_where_the_loop_is_late_and_no_longer_when_it_is_on_time() -> None:
    world = World(late_s=0.02)
    pace = world.pace()

    async def rest() -> float:
        world.served += 1
        world.slept.clear()
        await world.batches(pace, 1, took_s=0.002)
        return sum(world.slept)

    rests = [await rest() for _ in range(12)]
    assert max(rests) == pytest.approx(0.002 * RELIEF_LIMIT)
    world.late_s = 0.0
    rests = [await rest() for _ in range(60)]
    assert rests[-1] == pytest.approx(0.002 * RELIEF)


async def test_it_rests_longer_where_a_batch_takes_longer_than_it_can_and_learns_that_a_store_became_slow() -> (
    None
):
    world = World()
    pace = world.pace()

    async def relief(took_s: float) -> float:
        world.served += 1
        await world.batches(pace, 1, took_s)
        world.served += 1
        world.slept.clear()
        await pace.permit()
        return sum(world.slept) / took_s

    for _ in range(5):
        assert await relief(0.002) == pytest.approx(RELIEF)
    assert await relief(0.005) > RELIEF
    assert max([await relief(0.005) for _ in range(5)]) == pytest.approx(RELIEF_LIMIT)
    assert [await relief(0.005) for _ in range(60)][-1] == pytest.approx(RELIEF)


async def test_a_batch_that_waited_for_its_store_is_not_rested_for_as_long() -> None:
    world = World()
    pace = world.pace()
    await pace.permit()
    world.served += 1
    world.now_s += 3600
    pace.note(SMALL, 3600)
    since_s = world.now_s
    await pace.permit()
    assert world.now_s - since_s == pytest.approx(LONGEST_REST_S)


async def test_a_maximum_rate_is_kept_over_any_time() -> None:
    world = World(limits=Limits(max_rate=100))
    pace, began = world.pace(), world.now_s
    done = sum(await world.batches(pace, 60, took_s=0.001))
    took_s = world.now_s - began
    assert done / took_s <= 100 * 1.05
    assert done / took_s >= 100 * 0.9
    assert max(world.slept) <= POLL_S, "a pause must not wait for the end of a long sleep"


@pytest.mark.parametrize("rate", [1, 7, 1_000, 1_000_000])
async def test_a_batch_is_never_more_than_a_tenth_of_a_second_s_worth(rate: int) -> None:
    world = World(limits=Limits(max_rate=rate))
    sizes = await world.batches(world.pace(), 20)
    assert max(sizes) <= max(1, rate // 10)
    assert min(sizes) >= 1


async def test_a_new_maximum_rate_holds_from_the_next_batch_on() -> None:
    world = World()
    pace = world.pace()
    await world.batches(pace, 10)
    world.limits = Limits(max_rate=50)
    await world.batches(pace, 1)
    began = world.now_s
    done = sum(await world.batches(pace, 20, took_s=0.0))
    assert done / (world.now_s - began) <= 50 * 1.3
    world.limits = Limits()
    world.slept.clear()
    await world.batches(pace, 5)
    assert world.slept == []


async def test_nothing_is_made_up_for_after_a_pause() -> None:
    world = World(limits=Limits(max_rate=100))
    pace = world.pace()
    await world.batches(pace, 10)
    world.limits = Limits(100, paused=True)
    world.resume_after = 200
    began = world.now_s
    await pace.permit()
    assert world.now_s - began >= 199 * POLL_S
    resumed = world.now_s
    done = sum(await world.batches(pace, 30, took_s=0.0))
    assert done / (world.now_s - resumed) <= 100 * 1.2


async def test_the_rate_is_that_of_the_last_seconds_without_pauses() -> None:
    world = World()
    pace = world.pace()
    assert pace.rate_per_s == 0
    for _ in range(100):
        world.now_s += 0.1
        pace.note(50, 0.1)
    assert pace.rate_per_s == 500
    world.limits, world.resume_after = Limits(paused=True), 1_000
    await pace.permit()
    assert pace.rate_per_s == 0
    for _ in range(100):
        world.now_s += 0.1
        pace.note(20, 0.1)
    assert pace.rate_per_s == 200


async def test_a_pause_holds_within_a_batch_and_ends_by_itself_when_it_is_taken_back() -> None:
    async with running() as nexus:
        await furnish(nexus, 30)
        await flip(nexus.vault)
        limits = [Limits(max_rate=200)]
        walk = Reencryption(nexus.vault, ROTATION, 1, lambda: limits[0])
        task = asyncio.create_task(walk.run())
        while walk.progress.re_encrypted < 10:  # noqa: ASYNC110  a walk tells nobody of each batch
            await asyncio.sleep(0)
        limits[0] = Limits(paused=True)
        seen = walk.progress.scanned
        await asyncio.sleep(3 * POLL_S)
        # One batch was being written and one was ready: each of a tenth of a second at 200 a second.
        assert walk.progress.scanned <= seen + 2 * 20
        held = walk.progress.scanned
        assert not task.done()
        await asyncio.sleep(POLL_S)
        assert walk.progress.scanned == held
        limits[0] = Limits()
        assert (await task).ended
        assert set(await under(nexus.store)) == {2}
