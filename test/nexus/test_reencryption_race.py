"""Re-encryption beside everybody: nothing acknowledged is lost, nothing deleted comes back, no request fails."""

from __future__ import annotations

import asyncio
import random
import secrets
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from nexus_kit import SUPERUSER, RunningNexus, running
from owner_kit import Owner, at_work
from proxy_store import Proxy
from reencryption_kit import (
    Bites,
    checked,
    everything,
    flip,
    furnish,
    plant,
    under,
    walk_of,
)
from size import record, seed, size
from spike.nexus.reencryption import Reencryption
from spike.nexus.reencryption_pace import Limits
from spike.storage.memory import MemoryStore
from spike.storage.protocol import SECRET, SECRET_META, Kind, Record, RecordId
from verify_kit import fill


async def test_writers_deleters_and_policy_editors_lose_nothing_against_the_walk(
    nexus: RunningNexus,
) -> None:
    chosen = seed()
    print(f"SPIKE_SEED={chosen}")
    rng = random.Random(chosen)
    written = await furnish(nexus, 60)
    owners = [Owner(nexus, f"owner{n}", random.Random(rng.random())) for n in range(4)]
    walks = 0
    least_acts = size(test=150, proof=20_000)
    async with at_work(owners):
        while sum(owner.count for owner in owners) < least_acts:
            before = nexus.vault.opened.ring.active_record.generation
            await flip(nexus.vault)
            walk = Reencryption(
                nexus.vault,
                secrets.token_hex(16),
                before,
                Limits,
                pace=Bites(rng.choice([1, 3, 10])),
                child_from=rng.choice([0, 1 << 40]) if walks % 4 == 0 else 1 << 40,
            )
            progress = await walk.run()
            walks += 1
            assert progress.adds_up
            assert (progress.failed, progress.skipped) == (0, {}), progress
            census = await under(nexus.store)
            assert census[before] == 0, "something is left under the old key"
    for owner in owners:
        await owner.look_at_all()
    acts = sum(owner.count for owner in owners)
    for path, values in written.items():
        assert await nexus.vault.opened.secrets.get(path, 0) == values
    run, _ = nexus.verifier.start("a test")
    await nexus.verifier.ended()
    assert (run.outcome, run.tally.named) == ("good", [])
    record(
        "re-encryption beside writers, requests", acts, f"{walks} walks, nothing lost", seed=chosen
    )


class Held(Proxy):
    """A store whose next read of one record waits until something has happened."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.kind: Kind | None = None
        self.act: Callable[[], Awaitable[None]] | None = None

    async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - the field's own name
        if id.kind == self.kind and self.act is not None:
            act, self.act = self.act, None
            await act()
        return await self.real.get(id)


REQUESTS = {
    "read": ("/v1/store/secrets?action=get", {"path": "tenant/001"}),
    "write": ("/v1/store/secrets", {"path": "tenant/001", "values": {"k": "new"}}),
    "delete": ("/v1/store/secrets?action=delete", {"path": "tenant/001", "versions": [1]}),
}


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize("kind", [SECRET, SECRET_META])
async def test_a_request_that_began_before_the_flip_and_reads_after_the_walk_is_answered(
    what: str, kind: Kind
) -> None:
    store = Held(MemoryStore())
    async with running(store=store) as nexus:
        await furnish(nexus, 3)

        async def flip_and_walk() -> None:
            await flip(nexus.vault)
            await walk_of(nexus.vault).run()

        store.kind, store.act = kind, flip_and_walk
        target, message = REQUESTS[what]
        status, body = await nexus.call(SUPERUSER, target, message)
        assert status == 200, body
        # A write and a delete read no version, unless one is to be pruned.
        assert (store.act is None) == (kind == SECRET_META or what == "read")
        assert set(await under(nexus.store)) == ({2} if store.act is None else {1})


async def test_what_cannot_be_opened_with_the_keys_in_force_is_still_an_error() -> None:
    async with running() as nexus:
        await furnish(nexus, 2)
        found = (await nexus.store.scan(SECRET, "", None, 1)).items[0]
        other = (await nexus.store.scan(SECRET, "", None, 2)).items[1]
        await plant(nexus.store, found, other.blob)
        status, _ = await nexus.call(
            SUPERUSER, "/v1/store/secrets?action=get", {"path": found.id.key}
        )
        assert status == 500


async def test_old_ciphertext_is_in_no_file_of_the_store_after_a_purge(tmp_path: Path) -> None:
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    async with running(directory) as nexus:
        written = await furnish(nexus, 30)
        await fill(nexus, 300)
        blobs = [held.blob for held in await everything(nexus.store)]
        await flip(nexus.vault)
        await walk_of(nexus.vault, bite=50).run()
        steps = 1
        while await nexus.store.purge(64 << 10):
            steps += 1
            path = f"meanwhile/{steps}"
            await nexus.vault.opened.secrets.put(path, {"k": "v"})
            assert await nexus.vault.opened.secrets.get(path, 0) == {"k": "v"}
            assert steps < 100
        files = {each.name: each.read_bytes() for each in directory.iterdir() if each.is_file()}
        assert sum(map(len, files.values())) > sum(map(len, blobs))
        for name, content in files.items():
            for blob in blobs:
                # A part of it from the middle: salt and commitment alone would already be a trace.
                assert blob[6:38] not in content, name
                assert blob[-24:] not in content, name
        await checked(nexus, written)


async def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path) -> None:
    count = size(test=2_000, proof=50_000)
    directory = tmp_path / "store"
    directory.mkdir(mode=0o700)
    async with running(directory) as nexus:
        peaks = []
        for more in (count // 10, count - count // 10):
            await fill(nexus, more)
            before = nexus.vault.opened.ring.active_record.generation
            await flip(nexus.vault)
            walk = Reencryption(
                nexus.vault, secrets.token_hex(16), before, Limits, pace=Bites(100), child_from=0
            )
            tracemalloc.start()
            try:
                progress = await walk.run()
                peaks.append(tracemalloc.get_traced_memory()[1])
            finally:
                tracemalloc.stop()
            assert (progress.failed, progress.ended) == (0, True)
        assert progress.scanned > 2 * count
        assert peaks[1] < peaks[0] + (256 << 10), "ten times the records, no more memory"
    told = f"peak {peaks[1] >> 10} KiB, a tenth of the records {peaks[0] >> 10} KiB"
    record("re-encryption in flat memory, records", progress.scanned, told)


async def test_a_slow_walk_gives_way_to_nobody_s_request_for_long(nexus: RunningNexus) -> None:
    await fill(nexus, 400)
    await nexus.vault.opened.secrets.put("a", {"k": "v"})
    await flip(nexus.vault)
    task = asyncio.create_task(walk_of(nexus.vault, bite=64).run())
    turns = 0
    while not task.done():
        await asyncio.sleep(0)
        turns += 1
    assert task.result().failed == 0
    # 800 records cost at least 25 ms: others had a turn at least at each millisecond of it.
    assert turns > 25
