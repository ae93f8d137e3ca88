"""Re-encryption: everything goes over, whatever is wrong is named and left, and whatever happens it ends whole."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

import lifecycle_kit
from nexus_kit import RunningNexus, running
from proxy_store import Faulty, Proxy
from reencryption_kit import (
    EARLIER,
    ROTATION,
    Between,
    added_up,
    checked,
    everything,
    flip,
    furnish,
    one,
    plant,
    policy,
    spoiled,
    under,
    walk_of,
)
from spike.crypto.record import generation_of_untrusted
from spike.error import RefusedError
from spike.lifecycle.progress import Outcome, Reason
from spike.nexus.opened import Stop
from spike.nexus.record_check import SEALED_KINDS
from spike.nexus.reencryption import Reencryption
from spike.nexus.reencryption_batch import WALKED
from spike.nexus.reencryption_pace import Limits
from spike.nexus.reencryption_sweep import sweep
from spike.storage import protocol
from spike.storage.memory import MemoryStore
from spike.storage.protocol import (
    ACCESS_LIST,
    KEYRING,
    POLICY,
    PROGRESS,
    SECRET,
    SECRET_META,
    SET_ASIDE,
    Delete,
    Page,
    Put,
    Record,
    RecordId,
)


@pytest.mark.parametrize("child_from", [0, 1 << 40], ids=["child", "local"])
async def test_every_kind_goes_over_and_is_what_it_was(
    nexus: RunningNexus, child_from: int
) -> None:
    written = await furnish(nexus, 20)
    await flip(nexus.vault)
    before = {
        record.id: nexus.vault.opened.sealed.open(record)
        for record in await everything(nexus.store)
    }
    old = await under(nexus.store)
    walk = walk_of(nexus.vault, child_from=child_from)
    progress = await walk.run()
    await checked(nexus, written)
    added_up(progress, len(before) + 1)
    assert progress.re_encrypted == old[1]
    assert (progress.failed, progress.skipped, progress.vanished) == (0, {}, 0)
    for record in await everything(nexus.store):
        assert (
            record.id.key == ROTATION or nexus.vault.opened.sealed.open(record) == before[record.id]
        )
    assert {record.id.kind for record in await everything(nexus.store)} == SEALED_KINDS
    assert (walk.trouble, progress.left_s, progress.expected) == ("", 0.0, len(before))


def test_every_kind_there_is_is_walked_or_named_as_not_sealed() -> None:
    kinds = {
        value for name, value in vars(protocol).items() if name.isupper() and type(value) is str
    }
    assert kinds - set(WALKED) == {KEYRING, SET_ASIDE}
    assert set(WALKED) == SEALED_KINDS


async def test_a_walk_that_has_ended_does_nothing_more(nexus: RunningNexus) -> None:
    await furnish(nexus, 5)
    await flip(nexus.vault)
    progress = await walk_of(nexus.vault).run()
    before = {record.id: record.revision for record in await everything(nexus.store)}
    assert await walk_of(nexus.vault).run() == progress
    assert {record.id: record.revision for record in await everything(nexus.store)} == before


async def test_an_earlier_rotation_keeps_its_progress(nexus: RunningNexus) -> None:
    await furnish(nexus, 1)
    await flip(nexus.vault)
    await walk_of(nexus.vault).run()
    kept = await nexus.store.get(RecordId(PROGRESS, EARLIER, "9"))
    assert kept is not None
    assert generation_of_untrusted(kept.blob) == 2


@pytest.mark.parametrize("child_from", [0, 1 << 40], ids=["child", "local"])
async def test_one_wrong_ciphertext_is_named_and_left_and_the_others_go_over(
    nexus: RunningNexus, child_from: int
) -> None:
    written = await furnish(nexus, 40)
    bad = await one(nexus.store, SECRET, 17)
    await plant(nexus.store, bad, spoiled(bad))
    await flip(nexus.vault)
    progress = await walk_of(nexus.vault, child_from=child_from).run()
    added_up(progress, len(await everything(nexus.store)))
    (named,) = progress.named
    assert (named.outcome, named.reason) == (Outcome.FAILED, Reason.UNOPENABLE)
    assert (named.kind, named.key, named.version) == bad_name(bad)
    assert (progress.failed, (await under(nexus.store))[1]) == (1, 1)
    left = await nexus.store.get(bad.id)
    assert left is not None
    assert left.blob == spoiled(bad)
    for path in written.keys() - {bad.id.key}:
        assert await nexus.vault.opened.secrets.get(path, 0) == written[path]
    swept = await sweep(nexus.vault, progress)
    assert (swept.set_aside, swept.left, swept.left_named) == (0, 1, [bad.id])
    assert await nexus.store.get(bad.id) == left


def bad_name(record: Record) -> tuple[str, str, str]:
    return (record.id.kind, record.id.key, record.id.version)


async def test_a_record_moved_to_another_name_does_not_go_over(nexus: RunningNexus) -> None:
    await furnish(nexus, 5)
    one_meta, other = await one(nexus.store, SECRET_META, 1), await one(nexus.store, SECRET_META, 2)
    await plant(nexus.store, one_meta, other.blob)
    await flip(nexus.vault)
    progress = await walk_of(nexus.vault).run()
    assert [each.key for each in progress.named] == [one_meta.id.key]
    assert progress.failed == 1


async def test_what_is_not_under_the_old_key_is_told_apart_by_its_header_alone(
    nexus: RunningNexus,
) -> None:
    await furnish(nexus, 6)
    first, second, third = [await one(nexus.store, SECRET, n) for n in range(3)]
    await plant(nexus.store, first, first.blob[:10])
    await plant(nexus.store, second, second.blob[:2] + (77).to_bytes(4, "big") + second.blob[6:])
    # A row that lies: its column says that it is under the new key already.
    lying = await nexus.store.get(third.id)
    assert lying is not None
    await nexus.store.put(Put(third.id, third.blob, 2, lying.revision), fence=None)
    await flip(nexus.vault)
    progress = await walk_of(nexus.vault).run()
    found = {(each.key, each.reason) for each in progress.named}
    assert found == {(first.id.key, Reason.MALFORMED), (second.id.key, Reason.NO_KEY)}
    assert (progress.failed, progress.skipped) == (1, {Reason.NO_KEY: 1})
    gone_over = await nexus.store.get(third.id)
    assert gone_over is not None
    assert generation_of_untrusted(gone_over.blob) == 2
    added_up(progress, len(await everything(nexus.store)))


async def test_a_record_under_a_third_key_is_skipped_by_name(nexus: RunningNexus) -> None:
    await furnish(nexus, 4)
    await flip(nexus.vault)
    await nexus.vault.opened.secrets.put("second", {"k": "v"})
    await flip(nexus.vault)
    progress = await walk_of(nexus.vault).run()
    assert progress.skipped[Reason.OTHER_GENERATION] == progress.skipped_total > 0
    assert "second" in {each.key for each in progress.named}
    assert set(await under(nexus.store)) == {2, 3}


async def test_a_rotation_that_leaves_two_keys_keeps_the_progress_of_each(
    nexus: RunningNexus,
) -> None:
    written = await furnish(nexus, 4)
    await flip(nexus.vault)
    await nexus.vault.opened.secrets.put("second", {"k": "v"})
    await flip(nexus.vault)
    first = await walk_of(nexus.vault).run()
    second = await Reencryption(nexus.vault, ROTATION, 2, Limits).run()
    assert (second.failed, second.skipped, second.before) == (0, {}, 2)
    assert await walk_of(nexus.vault).run() == first
    assert set(await under(nexus.store)) == {3}
    for path, values in written.items():
        assert await nexus.vault.opened.secrets.get(path, 0) == values


@pytest.fixture
async def between() -> AsyncIterator[tuple[RunningNexus, Between]]:
    store = Between(MemoryStore())
    async with running(store=store) as nexus:
        yield nexus, store


async def test_a_writer_wins_against_the_walk(between: tuple[RunningNexus, Between]) -> None:
    nexus, store = between
    written = await furnish(nexus, 10)
    await flip(nexus.vault)

    async def write(page: Page[Record]) -> None:
        for record in page.items[:2]:
            written[record.id.key] = {"k": "written meanwhile"}
            await nexus.vault.opened.secrets.put(record.id.key, written[record.id.key])

    store.act = write
    progress = await walk_of(nexus.vault).run()
    assert store.act is None
    await checked(nexus, written)
    assert progress.adds_up
    assert progress.re_encrypted < progress.scanned


async def test_what_is_deleted_meanwhile_has_vanished(
    between: tuple[RunningNexus, Between],
) -> None:
    nexus, store = between
    await furnish(nexus, 10)
    await flip(nexus.vault)
    gone: list[RecordId] = []

    async def delete(page: Page[Record]) -> None:
        for record in page.items[1:3]:
            gone.append(record.id)
            await nexus.store.delete(Delete(record.id, record.revision), fence=None)

    store.act = delete
    progress = await walk_of(nexus.vault).run()
    assert [(each.outcome, each.key) for each in progress.named] == [
        (Outcome.VANISHED, each_gone.key) for each_gone in gone
    ]
    assert progress.adds_up
    assert set(await under(nexus.store)) == {2}


async def test_a_row_put_back_while_it_is_looked_at_is_named_and_not_made_honest(
    between: tuple[RunningNexus, Between],
) -> None:
    nexus, store = between
    await furnish(nexus, 10)
    await flip(nexus.vault)
    planted: list[Record] = []

    async def put_back(page: Page[Record]) -> None:
        planted.append(page.items[0])
        await plant(store.real, page.items[0], page.items[0].blob)

    store.act = put_back
    progress = await walk_of(nexus.vault).run()
    assert progress.skipped == {Reason.CHANGED_UNDER_OLD_KEY: 1}
    assert progress.named[0].key == planted[0].id.key
    assert (await under(nexus.store))[1] == 1
    swept = await sweep(nexus.vault, progress)
    assert swept.aside_named == [planted[0].id]


async def test_what_appears_behind_the_cursor_is_set_aside_by_name_and_kept(
    nexus: RunningNexus,
) -> None:
    written = await furnish(nexus, 10)
    old_version, old_meta = (
        await one(nexus.store, SECRET, 4),
        await one(nexus.store, SECRET_META, 6),
    )
    await flip(nexus.vault)
    progress = await walk_of(nexus.vault).run()
    await plant(nexus.store, old_version, old_version.blob)
    await plant(nexus.store, old_meta, old_meta.blob)
    swept = await sweep(nexus.vault, progress)
    assert (swept.set_aside, swept.left) == (2, 0)
    assert set(swept.aside_named) == {old_version.id, old_meta.id}
    assert set(await under(nexus.store)) == {2}
    assert await nexus.store.get(old_version.id) is None
    kept = (await nexus.store.scan(SET_ASIDE, "", None, 10)).items
    assert {record.blob for record in kept} == {old_version.blob, old_meta.blob}
    for path in written.keys() - {old_version.id.key, old_meta.id.key}:
        assert await nexus.vault.opened.secrets.get(path, 0) == written[path]
    again = await sweep(nexus.vault, progress)
    assert (again.set_aside, again.left) == (0, 0)


async def test_rights_in_force_are_written_again_where_old_rows_were_put_in_their_place(
    nexus: RunningNexus,
) -> None:
    written = await furnish(nexus, 3)
    old_list, old_policy = await one(nexus.store, ACCESS_LIST, 0), await one(nexus.store, POLICY, 1)
    await flip(nexus.vault)
    progress = await walk_of(nexus.vault).run()
    await nexus.vault.opened.policies.put(policy("p9", "^newer"))
    await plant(nexus.store, old_list, old_list.blob)
    await plant(nexus.store, old_policy, old_policy.blob)
    swept = await sweep(nexus.vault, progress)
    assert set(swept.aside_named) == {old_list.id, old_policy.id}
    await checked(nexus, written)
    await nexus.vault.opened.policies.put(policy("p10"))
    await checked(nexus, written)


async def test_nothing_is_swept_before_the_walk_has_ended(nexus: RunningNexus) -> None:
    await furnish(nexus, 3)
    await flip(nexus.vault)
    before = await under(nexus.store)
    with pytest.raises(RefusedError):
        await sweep(nexus.vault, walk_of(nexus.vault).progress)
    assert await under(nexus.store) == before


class Skipping(Between):
    """A store that keeps one record from whoever scans: stands for a walk that forgets one."""

    def __init__(self, store: protocol.Store) -> None:
        super().__init__(store)
        self.hidden: RecordId | None = None

    async def scan(
        self, kind: protocol.Kind, prefix: str, after: protocol.Cursor | None, limit: int
    ) -> Page[Record]:
        page = await self.real.scan(kind, prefix, after, limit)
        return Page(tuple(it for it in page.items if it.id != self.hidden), page.after)


async def test_a_record_that_was_left_out_is_found_by_the_verification() -> None:
    store = Skipping(MemoryStore())
    async with running(store=store) as nexus:
        await furnish(nexus, 10)
        forgotten = await one(nexus.store, SECRET, 5)
        await flip(nexus.vault)
        store.hidden = forgotten.id
        progress = await walk_of(nexus.vault).run()
        store.hidden = None
        assert progress.failed == 0
        run, _ = nexus.verifier.start("a test")
        await nexus.verifier.ended()
        old = {kind: n for (kind, generation), n in run.tally.census.items() if generation == 1}
        assert {kind: n for kind, n in old.items() if kind in SEALED_KINDS} == {SECRET: 1}


class Weighing(Proxy):
    """A store that notes how many bytes each page had."""

    def __init__(self, store: protocol.Store) -> None:
        super().__init__(store)
        self.pages: list[int] = []

    async def scan(
        self, kind: protocol.Kind, prefix: str, after: protocol.Cursor | None, limit: int
    ) -> Page[Record]:
        page = await self.real.scan(kind, prefix, after, limit)
        self.pages.append(sum(len(record.blob) for record in page.items))
        return page


async def test_large_records_are_read_and_written_few_at_a_time() -> None:
    store = Weighing(MemoryStore())
    async with running(store=store) as nexus:
        large = {f"large/{n:02d}": {"k": "x" * 200_000} for n in range(30)}
        for path, values in large.items():
            await nexus.vault.opened.secrets.put(path, values)
        await flip(nexus.vault)
        store.pages.clear()
        progress = await walk_of(nexus.vault, bite=512).run()
        assert progress.failed == 0
        assert 200_000 < max(store.pages) < 201_000
        await checked(nexus, large)


@pytest.mark.parametrize("is_done", [False, True], ids=["not done", "answer lost"])
async def test_a_store_that_fails_at_any_call_loses_nothing(is_done: bool) -> None:
    fail_at, calls = 0, 1
    while fail_at <= calls:
        fail_at += 1
        store = Faulty(MemoryStore(), "apply", "scan", "get")
        async with running(store=store) as nexus:
            written = await furnish(nexus, 6)
            await flip(nexus.vault)
            old = await under(nexus.store)
            store.arm(fail_at, is_done=is_done)
            progress = await walk_of(nexus.vault).run()
            calls = store.calls
            store.arm(0, is_done=False)
            await checked(nexus, written)
            added_up(progress, len(await everything(nexus.store)))
            assert progress.re_encrypted == old[1], (
                "each is counted once, also when an answer was lost"
            )
    assert fail_at > 20


async def test_cancelled_at_any_await_it_goes_on_where_it_was() -> None:
    steps, ended = 0, False
    while not ended:
        steps += 1
        async with running() as nexus:
            written = await furnish(nexus, 6)
            await flip(nexus.vault)
            old = await under(nexus.store)
            task = asyncio.create_task(walk_of(nexus.vault).run())
            for _ in range(steps):
                await asyncio.sleep(0)
            ended = task.done()
            task.cancel()
            # The next one does not wait for what the first has under way.
            progress = await walk_of(nexus.vault, bite=4).run()
            await asyncio.gather(task, return_exceptions=True)
            await checked(nexus, written)
            added_up(progress, len(await everything(nexus.store)))
            assert progress.re_encrypted == old[1]
    assert steps > 30


async def test_a_change_of_other_keys_does_not_stop_it(
    between: tuple[RunningNexus, Between],
) -> None:
    nexus, store = between
    written = await furnish(nexus, 10)
    await flip(nexus.vault)

    async def change(_page: Page[Record]) -> None:
        async with nexus.vault.lock:
            await nexus.vault.advance(lifecycle_kit.with_next_cipher(nexus.vault.opened.ring))

    store.act = change
    added_up(await walk_of(nexus.vault).run(), len(await everything(nexus.store)))
    await checked(nexus, written)


async def test_it_goes_on_towards_a_key_that_has_become_active_meanwhile(
    between: tuple[RunningNexus, Between],
) -> None:
    nexus, store = between
    written = await furnish(nexus, 10)
    await flip(nexus.vault)

    async def change(_page: Page[Record]) -> None:
        await flip(nexus.vault)

    store.act = change
    progress = await walk_of(nexus.vault).run()
    assert progress.ended
    assert progress.failed == 0
    found = await under(nexus.store)
    assert found[1] == 0
    assert found[3] > 0
    for path, values in written.items():
        assert await nexus.vault.opened.secrets.get(path, 0) == values


async def test_nothing_leaves_the_active_key(nexus: RunningNexus) -> None:
    await furnish(nexus, 2)
    with pytest.raises(RefusedError, match="active"):
        await walk_of(nexus.vault).run()


async def test_it_ends_at_once_where_there_is_no_key_to_leave(nexus: RunningNexus) -> None:
    await furnish(nexus, 2)
    before = await under(nexus.store)
    progress = await Reencryption(nexus.vault, ROTATION, 7, Limits).run()
    assert (progress.ended, progress.scanned, progress.re_encrypted) == (True, 0, 0)
    assert (await under(nexus.store))[1] == before[1] + 1, "nothing was written but the progress"


async def test_it_waits_while_writes_are_stopped_and_says_why(nexus: RunningNexus) -> None:
    written = await furnish(nexus, 4)
    await flip(nexus.vault)
    nexus.vault.stop_writes(Stop.NO_ANCHOR)
    before = await under(nexus.store)
    walk = walk_of(nexus.vault)
    task = asyncio.create_task(walk.run())
    while not walk.trouble:  # noqa: ASYNC110  what waits tells nobody
        await asyncio.sleep(0)
    assert Stop.NO_ANCHOR in walk.trouble
    assert await under(nexus.store) == before
    await nexus.vault.renew_places()
    nexus.vault._stops.clear()
    assert (await task).ended
    await checked(nexus, written)


@pytest.mark.parametrize("child_from", [0, 1 << 40], ids=["child", "local"])
async def test_nothing_is_sealed_under_a_key_that_memory_has_damaged(
    nexus: RunningNexus, child_from: int
) -> None:
    written = await furnish(nexus, 4)
    await flip(nexus.vault)
    before = await under(nexus.store)
    key = nexus.vault.opened.ring.active_record.key
    with key.view() as view:
        view[7] ^= 1
    walk = walk_of(nexus.vault, child_from=child_from)
    task = asyncio.create_task(walk.run())
    while Stop.WRONG_KEY not in nexus.vault.stops:  # noqa: ASYNC110  what stops tells nobody
        await asyncio.sleep(0.001)
    assert await under(nexus.store) == before
    with key.view() as view:
        view[7] ^= 1
    nexus.vault._stops.clear()
    assert (await task).failed == 0
    await checked(nexus, written)


async def test_a_child_that_is_killed_again_and_again_is_done_without(
    nexus: RunningNexus,
) -> None:
    written = await furnish(nexus, 40)
    await flip(nexus.vault)
    walk = walk_of(nexus.vault, bite=1, child_from=0)
    task = asyncio.create_task(walk.run())
    killed = set()
    while not task.done():
        child = getattr(walk._resealer, "_child", None)
        if child is not None and child.pid not in killed:
            os.kill(child.pid, signal.SIGKILL)
            killed.add(child.pid)
        await asyncio.sleep(0.001)
    assert len(killed) == 3
    assert task.result().failed == 0
    await checked(nexus, written)


async def test_progress_put_back_or_deleted_makes_it_look_again_and_lose_nothing(
    between: tuple[RunningNexus, Between],
) -> None:
    nexus, store = between
    written = await furnish(nexus, 10)
    await flip(nexus.vault)
    own = RecordId(PROGRESS, ROTATION, "1")

    async def delete(_page: Page[Record]) -> None:
        found = await store.real.get(own)
        assert found is not None
        await store.real.delete(Delete(own, found.revision), fence=None)

    store.act = delete
    added_up(await walk_of(nexus.vault).run(), len(await everything(nexus.store)))
    await checked(nexus, written)


async def test_made_up_progress_is_not_believed(nexus: RunningNexus) -> None:
    written = await furnish(nexus, 5)
    await flip(nexus.vault)
    other = await one(nexus.store, SECRET, 0)
    await nexus.store.put(
        Put(RecordId(PROGRESS, ROTATION, "1"), other.blob, 1, protocol.MUST_NOT_EXIST), fence=None
    )
    added_up(await walk_of(nexus.vault).run(), len(await everything(nexus.store)))
    await checked(nexus, written)


async def test_a_policy_put_meets_the_walk_and_neither_loses(
    between: tuple[RunningNexus, Between],
) -> None:
    nexus, _ = between
    written = await furnish(nexus, 3)
    await flip(nexus.vault)
    policies = nexus.vault.opened.policies
    task = asyncio.create_task(walk_of(nexus.vault, bite=1).run())
    number = 0
    while not task.done():
        await policies.put(policy(f"p{number % 5}", f"^path{number}"))
        await policies.delete(f"p{number % 5}")
        await policies.put(policy(f"q{number % 5}", f"^path{number}"))
        number += 1
    assert task.result().failed == 0
    assert number > 1
    await checked(nexus, written)
    assert nexus.vault.opened.policies.get("q0").path_pattern.startswith("^path")


async def test_an_access_list_of_somebody_else_still_stops_a_policy(nexus: RunningNexus) -> None:
    await furnish(nexus, 1)
    old = await one(nexus.store, ACCESS_LIST, 0)
    await nexus.vault.opened.policies.put(policy("p7"))
    await plant(nexus.store, old, old.blob)
    with pytest.raises(Exception, match="somebody else wrote it"):
        await nexus.vault.opened.policies.put(policy("p8"))
