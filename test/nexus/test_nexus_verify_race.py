"""Verification beside writers: nothing good is ever called bad, nothing grows with the store, reads go on."""

from __future__ import annotations

import asyncio
import tracemalloc
from pathlib import Path

import lifecycle_kit
from nexus_kit import RunningNexus, running
from proxy_store import Proxy
from size import record, seed, size
from spike.nexus.verification import Outcome, Run
from spike.storage.protocol import (
    SECRET_META,
    Change,
    Cursor,
    Kind,
    Page,
    Put,
    Record,
    RecordId,
    Store,
)
from verify_kit import PATHS, Hurry, fill


async def test_writers_make_no_good_record_look_bad(nexus: RunningNexus) -> None:
    chosen, rounds = seed(), size(test=15, proof=600)
    print(f"SPIKE_SEED={chosen}")
    for number in range(PATHS):
        await nexus.vault.opened.secrets.put(f"tenant/{number:03d}", {"k": "v"})
    writers, scanned = Hurry(nexus, chosen), 0
    async with writers.going_on():
        for _ in range(rounds):
            run, _ = nexus.verifier.start("a test")
            await nexus.verifier.ended()
            assert run.outcome is Outcome.GOOD, (run.detail, run.tally.named)
            assert run.tally.scanned == run.tally.good + run.tally.vanished
            scanned += run.tally.scanned
    assert writers.count > rounds
    told = f"{writers.count} writes meanwhile, none called bad"
    record("verification beside writers, records looked at", scanned, told, seed=chosen)


class SlowPages(Proxy):
    """A store whose pages are old when they arrive: between reading one and giving it others write."""

    def __init__(self, store: Store, between: Hurry) -> None:
        super().__init__(store)
        self._between = between

    async def scan(self, kind: Kind, prefix: str, after: Cursor | None, limit: int) -> Page[Record]:
        page = await self.real.scan(kind, prefix, after, limit)
        for _ in range(3):
            await self._between._put()
            await self._between._delete()
            await self._between._policy()
            await self._between._event()
        return page


async def test_pages_that_are_old_when_they_arrive_make_nothing_look_bad(
    nexus: RunningNexus,
) -> None:
    chosen = seed()
    print(f"SPIKE_SEED={chosen}")
    writers = Hurry(nexus, chosen)
    for number in range(PATHS):
        await nexus.vault.opened.secrets.put(f"tenant/{number:03d}", {"k": "v"})
    real, vanished = nexus.vault.store, 0
    nexus.vault.store = SlowPages(real, writers)
    try:
        for _ in range(size(test=4, proof=100)):
            run, _ = nexus.verifier.start("a test")
            await nexus.verifier.ended()
            assert run.outcome is Outcome.GOOD, (run.detail, run.tally.named)
            vanished += run.tally.vanished
    finally:
        nexus.vault.store = real
    assert vanished > 0, "nothing was pruned between a page and its turn: this shows nothing"


async def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path) -> None:
    count = size(test=4_000, proof=50_000)
    (tmp_path / "store").mkdir(mode=0o700)
    async with running(tmp_path / "store") as nexus:
        peaks = []
        for more in (count // 10, count - count // 10):
            await fill(nexus, more)
            tracemalloc.start()
            try:
                run, _ = nexus.verifier.start("a test")
                await nexus.verifier.ended()
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            assert run.outcome is Outcome.GOOD
        assert run.tally.scanned > 2 * count
        assert peaks[1] < peaks[0] + (256 << 10), "ten times the records, no more memory"
    told = f"peak {peaks[1] >> 10} KiB, a tenth of the records {peaks[0] >> 10} KiB"
    record("verification in flat memory, records", run.tally.scanned, told)


class SlowAnswers(SlowPages):
    """A store whose single records are old, too: others write after they were read."""

    def __init__(self, store: Store, between: Hurry) -> None:
        super().__init__(store, between)
        self._begun: set[asyncio.Task[None]] = set()

    async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - the field's own name
        found = await self.real.get(id)
        if not self._begun and self._between.random.random() < 0.5:
            # Not waited for: who asked may hold what a writer waits for.
            self._begun = {asyncio.create_task(each()) for each in self._between.work}
        for _ in range(self._between.random.randrange(8)):
            await asyncio.sleep(0)
        self._begun = {task for task in self._begun if not task.done()}
        return found

    async def settle(self) -> None:
        """Wait for the writers that were begun."""
        await asyncio.gather(*self._begun)


async def test_answers_that_are_old_when_they_arrive_make_nothing_look_bad(
    nexus: RunningNexus,
) -> None:
    chosen = seed()
    print(f"SPIKE_SEED={chosen}")
    writers = Hurry(nexus, chosen)
    for number in range(PATHS):
        await nexus.vault.opened.secrets.put(f"tenant/{number:03d}", {"k": "v"})
    real = nexus.vault.store
    slow = SlowAnswers(real, writers)
    nexus.vault.store = slow
    try:
        for _ in range(size(test=2, proof=60)):
            run, _ = nexus.verifier.start("a test")
            await nexus.verifier.ended()
            await slow.settle()
            assert run.outcome is Outcome.GOOD, (run.detail, run.tally.named)
    finally:
        nexus.vault.store = real


async def test_thousands_of_bad_records_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    async with running() as nexus:
        await fill(nexus, 1_500)
        good = (await nexus.store.scan(SECRET_META, "", None, 1000)).items
        rest = (await nexus.store.scan(SECRET_META, "", None, 1000)).after
        more = (await nexus.store.scan(SECRET_META, "", rest, 1000)).items
        for each in (*good, *more):
            await nexus.store.apply([_spoiled(each)], fence=None)
        run, _ = nexus.verifier.start("a test")
        await nexus.verifier.ended()
        tally = run.tally
        assert (run.outcome, tally.bad_total) == (Outcome.BAD, 1_500)
        assert (len(tally.named), tally.unnamed) == (1_000, 500)


async def under_way(run: Run) -> None:
    """Wait until some of it is done."""
    while run.tally.scanned < 100:  # noqa: ASYNC110  a tally is counted up and tells nobody
        await asyncio.sleep(0)


def _spoiled(each: Record) -> Change:
    return Put(each.id, each.blob[:-1] + bytes([each.blob[-1] ^ 1]), 1, each.revision)


async def test_reads_go_on_while_it_runs(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0o700)
    async with running(tmp_path / "store") as nexus:
        await fill(nexus, 1_000)
        await nexus.vault.opened.secrets.put("a", {"k": "v"})
        run, _ = nexus.verifier.start("a test")
        reads = 0
        while run.is_running:
            assert await nexus.vault.opened.secrets.get("a", 0) == {"k": "v"}
            await asyncio.sleep(0)
            reads += 1
        assert run.outcome is Outcome.GOOD
        # It gives way at least once for each millisecond it works: so many turns others had.
        assert reads > 10


async def test_nexus_that_ends_ends_the_verification_first() -> None:
    async with running() as nexus:
        await fill(nexus, 1_000)
        run, _ = nexus.verifier.start("a test")
        await under_way(run)
    assert (run.outcome, run.detail) == (Outcome.STOPPED, "Nexus was stopped")


async def test_keys_that_change_under_it_make_it_begin_anew() -> None:
    async with running() as nexus:
        await fill(nexus, 500)
        run, _ = nexus.verifier.start("a test")
        await under_way(run)
        vault = nexus.vault
        async with vault.lock:
            await vault.advance(lifecycle_kit.with_next_cipher(vault.opened.ring))
        await nexus.verifier.ended()
        assert (run.outcome, run.round) == (Outcome.GOOD, 2)
        assert run.tally.scanned == run.expected
