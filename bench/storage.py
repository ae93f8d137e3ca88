"""What the storage engine costs over bare SQLite, as ratios within one run.

    .venv/bin/python bench/storage.py [--format human|json] [--directory DIRECTORY]

Each line measures the store and, right beside it, the same work done with `sqlite3` alone: same
file system, same settings, same sizes. Rounds alternate between the two, and the median round
counts, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from spike.storage.protocol import MUST_NOT_EXIST, SECRET, Put, RecordId, Store
from spike.storage.sqlite import open_store

BLOB = b"\xa5" * 1024
RECORDS = 10_000
BATCH = 1_000
READS = 20_000
COMMITS = 200
ROUNDS = 5


@dataclass(frozen=True)
class Line:
    """One comparison: microseconds of the store and of bare SQLite for one operation."""

    name: str
    unit: str
    store_us: float
    bare_us: float
    ratio: float


class Bare:
    """The same table without a store around it."""

    def __init__(self, file: Path) -> None:
        self.connection = sqlite3.connect(file, isolation_level=None)
        self.connection.executescript(
            "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;"
            "PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY;"
            "CREATE TABLE record (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL,"
            " version TEXT NOT NULL, generation INTEGER NOT NULL, revision INTEGER NOT NULL,"
            " blob BLOB NOT NULL) STRICT;"
            "CREATE UNIQUE INDEX a ON record (kind, key, version);"
            "CREATE INDEX b ON record (kind, generation, key, version);"
        )
        self.revision = 0

    def insert(self, keys: list[str]) -> None:
        self.revision += 1
        rows = [("secret", key, "", 1, self.revision, BLOB) for key in keys]
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            "INSERT INTO record (kind, key, version, generation, revision, blob)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            rows,
        )
        self.connection.execute("COMMIT")

    def update(self, keys: list[str], generation: int) -> None:
        rows = [(generation, self.revision, BLOB, "secret", key, "") for key in keys]
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.executemany(
            "UPDATE record SET generation = ?, revision = ?, blob = ?"
            " WHERE kind = ? AND key = ? AND version = ?",
            rows,
        )
        self.connection.execute("COMMIT")

    def select(self, key: str) -> None:
        self.connection.execute(
            "SELECT blob, generation, revision FROM record"
            " WHERE kind = ? AND key = ? AND version = ?",
            ("secret", key, ""),
        ).fetchone()


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    begin = time.perf_counter()
    await work()
    return time.perf_counter() - begin


async def compare(
    name: str,
    unit: str,
    count: int,
    store: Callable[[], Awaitable[object]],
    bare: Callable[[], Awaitable[object]],
) -> Line:
    stores, bares = [], []
    for _ in range(ROUNDS):
        stores.append(await timed(store) / count * 1e6)
        bares.append(await timed(bare) / count * 1e6)
    return Line(
        name,
        unit,
        round(median(stores), 2),
        round(median(bares), 2),
        round(median(s / b for s, b in zip(stores, bares, strict=True)), 2),
    )


def key_of(n: int) -> str:
    return f"tenant/{n % 7}/secret/{n:06}"


class Bench:
    """Holds one store and its bare twin while the lines are measured."""

    def __init__(self, store: Store, bare: Bare) -> None:
        self.store = store
        self.bare = bare
        self.generation = 1
        self.fresh = RECORDS

    def take(self, count: int) -> list[str]:
        """Return keys that no record has yet."""
        self.fresh += count
        return [key_of(n) for n in range(self.fresh - count, self.fresh)]

    async def fill(self) -> None:
        for start in range(0, RECORDS, BATCH):
            keys = [key_of(n) for n in range(start, start + BATCH)]
            await self.store.apply([self.put(key) for key in keys], fence=None)
            self.bare.insert(keys)

    def put(self, key: str) -> Put:
        return Put(RecordId(SECRET, key), BLOB, 1, MUST_NOT_EXIST)

    async def read(self) -> Line:
        keys = [key_of(n * 7919 % RECORDS) for n in range(READS)]
        ids = [RecordId(SECRET, key) for key in keys]

        async def store() -> None:
            for id in ids:  # noqa: A001 - the field's own name
                await self.store.get(id)

        async def bare() -> None:
            for key in keys:
                self.bare.select(key)

        return await compare("get", "one record of 1 KiB", READS, store, bare)

    async def rewrite(self) -> Line:
        """A batch of a re-encryption: every record of it replaced under a new generation."""
        page = await self.store.scan_key(SECRET, "", None, BATCH)
        names = [it.id for it in page.items]
        keys = [it.key for it in names]
        present = tuple(it.revision for it in page.items)

        async def store() -> None:
            nonlocal present
            self.generation += 1
            pairs = zip(names, present, strict=True)
            changes = [Put(name, BLOB, self.generation, revision) for name, revision in pairs]
            present = await self.store.apply(changes, fence=0)

        async def bare() -> None:
            self.bare.update(keys, self.generation)

        return await compare(
            f"apply of {BATCH} replacements", "one record of 1 KiB", BATCH, store, bare
        )

    async def insert(self) -> Line:
        async def store() -> None:
            await self.store.apply([self.put(key) for key in self.take(BATCH)], fence=None)

        async def bare() -> None:
            self.bare.insert(self.take(BATCH))

        return await compare(
            f"apply of {BATCH} new records", "one record of 1 KiB", BATCH, store, bare
        )

    async def commit(self, writers: int) -> Line:
        """Acknowledged puts: each waits for its own answer, `writers` tasks at once."""

        async def write(keys: list[str]) -> None:
            for key in keys:
                await self.store.put(self.put(key), fence=None)

        async def store() -> None:
            keys = self.take(COMMITS)
            await asyncio.gather(*(write(keys[n::writers]) for n in range(writers)))

        async def bare() -> None:
            for key in self.take(COMMITS):
                self.bare.insert([key])

        return await compare(
            f"put, {writers} writing at once", "one durable put of 1 KiB", COMMITS, store, bare
        )


async def run(directory: Path) -> list[Line]:
    store = await open_store(directory / "store")
    bench = Bench(store, Bare(directory / "bare.sqlite"))
    await bench.fill()
    lines = [
        await bench.read(),
        await bench.insert(),
        await bench.rewrite(),
        await bench.commit(1),
        await bench.commit(32),
        await bench.commit(256),
    ]
    bench.bare.connection.close()
    await store.close()
    return lines


def table(lines: list[Line]) -> str:
    rows = [("", "store µs", "bare SQLite µs", "ratio", "per")]
    rows += [
        (it.name, f"{it.store_us:.2f}", f"{it.bare_us:.2f}", f"{it.ratio:.2f}", it.unit)
        for it in lines
    ]
    widths = [max(len(row[at]) for row in rows) for at in range(5)]
    return "\n".join(
        f"{name:<{widths[0]}}  {a:>{widths[1]}}  {b:>{widths[2]}}  {c:>{widths[3]}}  {unit}"
        for name, a, b, c, unit in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument(
        "--directory", type=Path, help="where to put the files; the disk that is measured"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as place:
        lines = asyncio.run(run(Path(place)))
    if options.format == "json":
        result = {
            "python": sys.version.split()[0],
            "sqlite": sqlite3.sqlite_version,
            "lines": [asdict(it) for it in lines],
        }
        print(json.dumps(result, indent=2))
    else:
        print(table(lines))


if __name__ == "__main__":
    main()
