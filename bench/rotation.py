"""How fast records go over to a new record key, and what that costs the requests beside it. Run it alone.

    .venv/bin/python -m bench.rotation [--format human|json] [--secrets N] [--seconds S]

A Nexus on SQLite holds N secrets of 1 KiB (each two records: version and metadata), 20,000 unless SPIKE_BENCH_SECRETS
or --secrets says otherwise; the size promised is 1,000,000. Beside it stands one with a hundredth of them, at least
10,000. In each, in one run: every row is rewritten as it is, page by page and durable, without any cryptography; then
a new record key becomes active and everything is re-encrypted, each record verified before it is written; then the
store's files are purged of what was replaced. The rate counts from the first batch on: before it a process is started.
Resident memory is this process's and the child's.

Then a load client of another process reads, and writes, one of ten thousand secrets after the other over eight kept
connections: as fast as it can, then at half of that rate, second by second in turn alone and beside a re-encryption,
which is begun again when it has ended. Latencies are medians of what the seconds gave, each beside its neighbour: a
machine that others use as well is never as quiet in one minute as in the next. The load client is on the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

import uvloop
from bench.load import CannotBuildError, Credential, Figures, built, run
from bench.read import READ_TARGET, fill

import lifecycle_kit
from nexus_kit import SUPERUSER, RunningNexus, running
from spike.lifecycle.progress import Progress
from spike.nexus.reencryption import Reencryption
from spike.nexus.reencryption_batch import WALKED
from spike.nexus.reencryption_pace import LARGE, Limits
from spike.secret.encoding import encode_meta, encode_values
from spike.secret.version import SecretMeta, Version, VersionId, VersionNumber
from spike.storage.protocol import MUST_NOT_EXIST, SECRET, SECRET_META, Change, Put, RecordId
from spike.wire.go_time import UnixNs

CONNECTIONS = 8
PURGE_BYTES = 4 << 20
WRITE_TARGET = "/v1/store/secrets"
PATHS = "tenants/t000####/database"
"""Of ten thousand secrets, each request the next: writes of one secret would wait for each other."""


async def filled(nexus: RunningNexus, count: int) -> None:
    """Put so many secrets of 1 KiB straight into the store."""
    sealed = nexus.vault.opened.sealed
    values, now = encode_values({"password": "x" * 1000}), UnixNs(1)
    changes: list[Change] = []
    for number in range(count):
        path, version_id = f"tenants/t{number:07d}/database", VersionId(secrets.token_hex(16))
        meta = SecretMeta((Version(VersionNumber(1), version_id, now, None),), 10, now, now)
        changes.append(sealed.put(RecordId(SECRET, path, version_id), values, MUST_NOT_EXIST))
        changes.append(sealed.put(RecordId(SECRET_META, path), encode_meta(meta), MUST_NOT_EXIST))
        if len(changes) >= 4_000 or number == count - 1:
            await sealed.apply(changes)
            changes.clear()


async def _rewritten(nexus: RunningNexus, generation: int) -> float:
    """Write every row again as it is, but for the generation in its column; return records a second."""
    began, count = time.perf_counter(), 0
    fence = nexus.vault.opened.document.epoch
    for kind in WALKED:
        after = None
        while True:
            page = await nexus.store.scan(kind, "", after, LARGE)
            puts = [Put(it.id, it.blob, generation, it.revision) for it in page.items]
            if puts:
                await nexus.store.apply(puts, fence=fence)
                count += len(puts)
            after = page.after
            if after is None:
                break
    return count / (time.perf_counter() - began)


async def _flip(nexus: RunningNexus) -> int:
    """Put one more record key into force; return the generation that was in force before."""
    vault = nexus.vault
    before = vault.opened.ring.active_record.generation
    async with vault.lock:
        await vault.advance(lifecycle_kit.with_next_record(vault.opened.ring))
    return before


def _walk(nexus: RunningNexus, before: int, limits: Callable[[], Limits] = Limits) -> Reencryption:
    return Reencryption(nexus.vault, secrets.token_hex(16), before, limits)


def _resident_mib(children: bool) -> float:
    """Return what this process holds in memory, and with `children` those it has started."""
    own = os.getpid()
    wanted = [own]
    if children:
        started = Path(f"/proc/{own}/task/{own}/children").read_text(encoding="ascii").split()
        wanted += [int(each) for each in started]
    total = 0
    for process in wanted:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
        total += int(pages) * os.sysconf("SC_PAGE_SIZE")
    return total / (1 << 20)


class Peak:
    """The largest resident memory seen, looked at a few times a second."""

    def __init__(self) -> None:
        self.mib = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            task.cancel()

    async def _look(self) -> None:
        while True:
            self.mib = max(self.mib, _resident_mib(children=True))
            await asyncio.sleep(0.2)


async def _purged(nexus: RunningNexus) -> tuple[float, float]:
    """Purge to the end; return how long it took, and its longest step, in milliseconds."""
    began, longest, left = time.perf_counter(), 0.0, 1
    while left:
        step = time.perf_counter()
        left = await nexus.store.purge(PURGE_BYTES)
        longest = max(longest, time.perf_counter() - step)
    return (time.perf_counter() - began) * 1e3, longest * 1e3


def _require_whole(progress: Progress) -> None:
    if not progress.ended or progress.failed or progress.skipped_total:
        raise AssertionError(progress)


async def _alone(count: int) -> dict[str, float]:
    """Measure one store of `count` secrets that nobody asks for anything."""
    with tempfile.TemporaryDirectory() as directory:
        async with running(Path(directory) / "data") as nexus:
            await filled(nexus, count)
            bare = [await _rewritten(nexus, generation) for generation in (9, 1)]
            before, idle_mib, peak = await _flip(nexus), _resident_mib(children=False), Peak()
            walk, began = _walk(nexus, before), time.perf_counter()
            async with peak.watched():
                task = asyncio.create_task(walk.run())
                while not walk.progress.scanned:  # noqa: ASYNC110  a walk tells nobody
                    await asyncio.sleep(0.001)
                start_ms = (time.perf_counter() - began) * 1e3
                progress = await task
            rate = progress.scanned / (time.perf_counter() - began - start_ms / 1e3)
            _require_whole(progress)
            purge_ms, step_ms = await _purged(nexus)
            return {
                "re-encrypted, records/s": rate,
                "rewritten without cryptography, records/s": sum(bare) / len(bare),
                "ratio": rate * len(bare) / sum(bare),
                "re-encrypted, us a record": 1e6 / rate,
                "until the first batch is written, ms": start_ms,
                "memory before, MiB": idle_mib,
                "memory while it runs with its child, MiB": peak.mib,
                "purge, ms": purge_ms,
                "purge, longest step, ms": step_ms,
            }


class Foreground:
    """Requests of one sort from another process."""

    def __init__(self, nexus: RunningNexus, program: Path, asked: bytes) -> None:
        self._who = Credential.empty()
        fill(self._who, nexus.ca, SUPERUSER)
        self._port, self._program, self._asked = nexus.server.port, program, asked

    async def run(self, seconds: float, rate: float = 0.0) -> Figures:
        found = await asyncio.to_thread(
            run,
            self._program,
            self._port,
            self._who,
            self._asked,
            connections=CONNECTIONS,
            seconds=seconds,
            rate=rate,
        )
        if found.errors:
            raise AssertionError(found)
        return found


class Walks:
    """Re-encryptions one after the other, that go on while `resting` is false."""

    def __init__(self, nexus: RunningNexus) -> None:
        self._nexus = nexus
        self._walk: Reencryption
        self._before = 0
        self.resting = False

    @property
    def scanned(self) -> int:
        """Return how many records have been looked at so far."""
        return self._before + self._walk.progress.scanned

    async def run(self) -> None:
        """Begin the first, and go on for ever."""
        while True:
            before = await _flip(self._nexus)
            self._walk = _walk(self._nexus, before, lambda: Limits(paused=self.resting))
            _require_whole(await self._walk.run())
            self._before += self._walk.progress.scanned

    async def begun(self) -> None:
        """Wait until the first has written its first batch."""
        while not (hasattr(self, "_walk") and self._walk.progress.scanned):  # noqa: ASYNC110  as above
            await asyncio.sleep(0.001)


async def _beside(
    nexus: RunningNexus, what: str, requests: Foreground, seconds: int
) -> dict[str, float]:
    await requests.run(1.0)  # warm
    most = (await requests.run(3.0)).rps
    walks = Walks(nexus)
    task = asyncio.create_task(walks.run())
    await walks.begun()
    alone, beside, rates = list[Figures](), list[Figures](), list[float]()
    for _ in range(seconds):
        walks.resting = True
        await asyncio.sleep(0.3)  # what it has in hand is written
        alone.append(await requests.run(1.0, most / 2))
        job = asyncio.create_task(requests.run(1.0, most / 2))
        await asyncio.sleep(0.1)  # while nobody asks it goes flat out
        walks.resting, scanned, began = False, walks.scanned, time.perf_counter()
        beside.append(await job)
        rates.append((walks.scanned - scanned) / (time.perf_counter() - began))
    task.cancel()
    await asyncio.wait({task})
    before_ms, beside_ms = (median(each.p99_ms for each in those) for those in (alone, beside))
    return {
        f"{what}, at most a second": most,
        f"{what} at half of it, p50 ms": median(each.p50_ms for each in alone),
        f"{what} at half of it, p99 ms": before_ms,
        f"{what} beside, p50 ms": median(each.p50_ms for each in beside),
        f"{what} beside, p99 ms": beside_ms,
        f"{what} beside, p99 against alone": beside_ms / before_ms,
        f"re-encrypted beside {what}, records/s": median(rates),
    }


def _request(target: str, **values: object) -> bytes:
    body = json.dumps({"path": PATHS, **values}).encode()
    head = f"POST {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json"
    return f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def _foreground(count: int, program: Path, seconds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        async with running(Path(directory) / "data") as nexus:
            await filled(nexus, count)
            reads = Foreground(nexus, program, _request(READ_TARGET))
            values = {"password": "y" * 1000}
            writes = Foreground(nexus, program, _request(WRITE_TARGET, values=values))
            found = await _beside(nexus, "reads", reads, seconds)
            return {**found, **await _beside(nexus, "writes", writes, seconds)}


async def _measure(count: int, seconds: int) -> dict[str, float]:
    small = max(10_000, count // 100)
    few, many = await _alone(small), await _alone(count)
    found = {f"{name} ({small} secrets)": value for name, value in few.items()}
    found |= {f"{name} ({count} secrets)": value for name, value in many.items()}
    try:
        with built() as program:
            found |= await _foreground(max(count, 50_000), program, seconds)
    except CannotBuildError as error:
        print(f"skipped: {error}", file=sys.stderr)
    return {name: round(value, 3 if value < 100 else 0) for name, value in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument(
        "--secrets", type=int, default=int(os.environ.get("SPIKE_BENCH_SECRETS", "20000"))
    )
    parser.add_argument("--seconds", type=int, default=9)
    options = parser.parse_args()
    found = uvloop.run(_measure(options.secrets, options.seconds))
    if options.format == "json":
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:62} {value:10}")


if __name__ == "__main__":
    main()
