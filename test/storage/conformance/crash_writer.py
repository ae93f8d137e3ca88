"""Writes to a store and prints what was acknowledged, until it is killed. Run: crash_writer.py
ENGINE DIRECTORY.

Each of several tasks keeps a counter record. One step is one apply: two new records with the step's
number, and the counter moved to it. After the acknowledgement the line "TASK STEP" goes out in one
write.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from spike.storage.protocol import MUST_NOT_EXIST, SECRET, SECRET_META, Put, RecordId, Store
from spike.storage.registry import open_store

TASKS = 6


async def write(store: Store, task: int) -> None:
    counter = RecordId(SECRET_META, f"{task}")
    found = await store.get(counter)
    step = 0 if found is None else int(found.blob)
    revision = MUST_NOT_EXIST if found is None else found.revision
    while True:
        step += 1
        blob = b"%d " % step * 200
        changes = [
            Put(RecordId(SECRET, f"{task}/{step}/a"), blob, 1, MUST_NOT_EXIST),
            Put(RecordId(SECRET, f"{task}/{step}/b"), blob, 1, MUST_NOT_EXIST),
            Put(counter, b"%d" % step, 1, revision),
        ]
        *_, revision = await store.apply(changes, fence=None)
        os.write(1, b"%d %d\n" % (task, step))


async def purge(store: Store) -> None:
    """Let the end also come while the engine tidies up."""
    while True:
        await store.purge(100_000)
        await asyncio.sleep(0.005)


async def main(engine: str, directory: Path) -> None:
    store = await open_store(engine, directory)
    os.write(1, b"open\n")
    await asyncio.gather(purge(store), *(write(store, task) for task in range(TASKS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
