"""Verification beside writers: nothing good is ever called bad, nothing grows with the store, reads go on."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

import lifecycle_kit
from nexus_kit import RunningNexus, running
from size import record, seed, size
from spike.error import NotFoundError
from spike.lifecycle.keyring import Event
from spike.nexus.policy_book import ACCESS_LIST_ID
from spike.nexus.secret_book import SecretBook
from spike.nexus.vault import KEYRING_ID
from spike.nexus.verification import Outcome, Run
from spike.policy.rule import Permission, Policy, PolicyName
from spike.secret.encoding import encode_meta, encode_values
from spike.secret.version import SecretMeta, Version, VersionId, VersionNumber
from spike.storage.protocol import (
    MUST_NOT_EXIST,
    POLICY,
    SECRET,
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
from spike.wire.go_time import UnixNs

PATHS = 40


@pytest.fixture(params=["memory", "sqlite"])
async def nexus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunningNexus]:
    directory = None
    if request.param == "sqlite":
        directory = tmp_path / "store"
        directory.mkdir(mode=0o700)
    async with running(directory) as started:
        yield started


class Hurry:
    """Writers of everything that can be written, until they are stopped."""

    def __init__(self, nexus: RunningNexus, chosen: int) -> None:
        self.nexus = nexus
        self.random = random.Random(chosen)
        self.count = 0
        self.work = (self._put, self._put, self._delete, self._policy, self._event)

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._again(each)) for each in self.work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended

    async def _again(self, work: object) -> None:
        while True:
            await work()  # type: ignore[operator]
            self.count += 1
            await asyncio.sleep(0)

    @property
    def book(self) -> SecretBook:
        return self.nexus.vault.opened.secrets

    def _path(self) -> str:
        return f"tenant/{self.random.randrange(PATHS):03d}"

    async def _put(self) -> None:
        await self.book.put(self._path(), {"k": secrets.token_hex(20)})

    async def _delete(self) -> None:
        with contextlib.suppress(NotFoundError):
            await self.book.delete(self._path(), [self.random.randrange(5)])
            await self.book.undelete(self._path(), [])

    async def _policy(self) -> None:
        book = self.nexus.vault.opened.policies
        name = PolicyName(f"p{self.random.randrange(6)}")
        rights = frozenset({self.random.choice(list(Permission))})
        await book.put(Policy(name, "^spiffe://a/b$", "^x", rights, UnixNs(1), UnixNs(2)))
        if self.random.random() < 0.5:
            with contextlib.suppress(NotFoundError):
                await book.delete(f"p{self.random.randrange(6)}")

    async def _event(self) -> None:
        vault = self.nexus.vault
        async with vault.lock:
            document = vault.opened.document
            event = Event(
                sequence=document.next_event, at=vault.moment(), kind="test", actor="t", detail={}
            )
            later = msgspec.structs.replace(
                document,
                revision=document.revision + 1,
                next_event=document.next_event + 1,
                outbox=(*document.outbox, event),
            )
            await vault.advance(vault.opened.ring.replaced(later))


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


class SlowPages:
    """A store whose pages are old when they arrive: between reading one and giving it others write."""

    def __init__(self, store: Store, between: Hurry) -> None:
        self._store = store
        self._between = between

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def scan(self, kind: Kind, prefix: str, after: Cursor | None, limit: int) -> Page[Record]:
        page = await self._store.scan(kind, prefix, after, limit)
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
    nexus.vault.store = SlowPages(real, writers)  # type: ignore[assignment]
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
        found = await self._store.get(id)
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
    nexus.vault.store = slow  # type: ignore[assignment]
    try:
        for _ in range(size(test=2, proof=60)):
            run, _ = nexus.verifier.start("a test")
            await nexus.verifier.ended()
            await slow.settle()
            assert run.outcome is Outcome.GOOD, (run.detail, run.tally.named)
    finally:
        nexus.vault.store = real


class Interrupted:
    """A store at one place of which something else happens: `after_get` is told each record that was asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: list[RecordId] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - the field's own name
        found = await self._store.get(id)
        self.asked.append(id)
        await self.after_get(id, self.asked.count(id))
        return found

    async def scan(self, kind: Kind, prefix: str, after: Cursor | None, limit: int) -> Page[Record]:
        await self.before_scan(kind)
        return await self._store.scan(kind, prefix, after, limit)

    async def after_get(self, id: RecordId, count: int) -> None:  # noqa: A002 - as above
        """Do nothing."""

    async def before_scan(self, kind: Kind) -> None:
        """Do nothing."""


async def is_good_on(nexus: RunningNexus, store: Interrupted) -> None:
    real, nexus.vault.store = nexus.vault.store, store  # type: ignore[assignment]
    try:
        run, _ = nexus.verifier.start("a test")
        await nexus.verifier.ended()
    finally:
        nexus.vault.store = real
    assert run.outcome is Outcome.GOOD, (run.detail, run.tally.named)


async def test_a_version_pruned_between_its_metadata_and_its_own_turn_is_not_missing(
    nexus: RunningNexus,
) -> None:
    book = nexus.vault.opened.secrets
    await book.put("a", {"k": "v"})

    class Pruning(Interrupted):
        async def before_scan(self, kind: Kind) -> None:
            if kind == SECRET_META:
                # The first page of versions was read: now metadata come to name one that stands before it.
                (seen,) = (await self._store.scan(SECRET, "", None, 1)).items
                while min(each.id for each in (await book.meta("a")).versions) >= seen.id.version:
                    await book.put("a", {"k": "v"})

        async def after_get(self, id: RecordId, count: int) -> None:  # noqa: A002 - as above
            if id == RecordId(SECRET_META, "a") and count == 2:
                for _ in range(10):
                    await book.put("a", {"k": "v"})

    store = Pruning(nexus.store)
    await is_good_on(nexus, store)
    assert store.asked.count(RecordId(SECRET_META, "a")) > 2


async def test_a_policy_deleted_between_the_list_and_its_own_turn_is_not_missing(
    nexus: RunningNexus,
) -> None:
    book = nexus.vault.opened.policies
    rights = frozenset({Permission.READ})

    async def put(path: str) -> None:
        await book.put(
            Policy(PolicyName("p"), "^spiffe://a/b$", path, rights, UnixNs(1), UnixNs(1))
        )

    class Deleting(Interrupted):
        async def before_scan(self, kind: Kind) -> None:
            if kind == POLICY:
                await put("^y")

        async def after_get(self, id: RecordId, count: int) -> None:  # noqa: A002 - as above
            if id == ACCESS_LIST_ID and count == 3:
                await book.delete("p")

    await put("^x")
    store = Deleting(nexus.store)
    await is_good_on(nexus, store)
    assert store.asked.count(ACCESS_LIST_ID) > 3


async def test_a_keyring_that_is_just_taking_the_place_of_another_is_in_force(
    nexus: RunningNexus,
) -> None:
    vault, writers = nexus.vault, Hurry(nexus, 1)

    class Replacing(Interrupted):
        replaced: asyncio.Task[None] | None = None
        written = asyncio.Event()

        async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - as above
            if id == KEYRING_ID and self.replaced is None:
                self.replaced = asyncio.create_task(writers.work[-1]())
                await self.written.wait()
            elif id == KEYRING_ID and not self.written.is_set():
                # The new one is stored and is read back; in memory the old one still counts.
                self.written.set()
                for _ in range(20):
                    await asyncio.sleep(0)
            return await self._store.get(id)

    before = vault.opened.document
    store = Replacing(nexus.store)
    await is_good_on(nexus, store)
    assert store.replaced is not None
    await store.replaced
    assert vault.opened.document != before


async def fill(nexus: RunningNexus, count: int) -> None:
    """Write secrets behind those that are there."""
    sealed, now, salt = nexus.vault.opened.sealed, UnixNs(1), secrets.token_hex(4)
    values = encode_values({"k": "v" * 100})
    changes: list[Change] = []
    for number in range(count):
        path, version_id = f"many/{salt}/{number:08d}", VersionId(f"{number:032x}")
        meta = SecretMeta((Version(VersionNumber(1), version_id, now, None),), 10, now, now)
        changes.append(sealed.put(RecordId(SECRET, path, version_id), values, MUST_NOT_EXIST))
        changes.append(sealed.put(RecordId(SECRET_META, path), encode_meta(meta), MUST_NOT_EXIST))
        if len(changes) >= 4000 or number == count - 1:
            await sealed.apply(changes)
            changes.clear()


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
