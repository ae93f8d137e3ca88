"""How soon a leaked root key is replaced, and from when on nothing is sealed or wrapped under the old keys.

    .venv/bin/python -m bench.emergency [--format human|json] [--secrets N]

A Nexus on SQLite with three Keepers and a backup place holds N secrets of 1 KiB, 20,000 unless SPIKE_BENCH_SECRETS or
--secrets says otherwise; the size promised is 1,000,000. Clients write over mutual TLS all the time. An emergency is
asked for; measured is when its flip was read back, and when the last write was acknowledged that lies under the old
record key. The same with one secret, in the same run: it must not depend on how many there are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

import uvloop
from bench.rotation import filled

from around_kit import PASSWORD, surroundings
from nexus_kit import SUPERUSER, RunningNexus, running
from rotating_kit import emergency, put
from spike.nexus.performer import Performer
from spike.nexus.record_check import header_generation
from spike.storage.protocol import SECRET

WRITERS = 8


class Writers:
    """Clients that write until told to stop; each path once, with when it was acknowledged."""

    def __init__(self, nexus: RunningNexus) -> None:
        self._nexus = nexus
        self._stop = False
        self.acknowledged: dict[str, float] = {}

    async def run(self, name: int) -> None:
        number = 0
        while not self._stop:
            path = f"bench/w{name}/{number}"
            await put(self._nexus, path, "value")
            self.acknowledged[path] = time.perf_counter()
            number += 1

    def stop(self) -> None:
        self._stop = True


async def _generations(nexus: RunningNexus) -> dict[str, int]:
    """Return under which record key each written secret lies, from its blob."""
    found: dict[str, int] = {}
    after = None
    while True:
        page = await nexus.store.scan(SECRET, "bench/", after, 1000)
        found |= {record.id.key: header_generation(record.blob) for record in page.items}
        after = page.after
        if after is None:
            return found


async def _measured(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with (
            surroundings(directory, 3, 2) as around,
            running(
                directory / "data",
                place=directory / "place",
                ca=around.ca,
                password=PASSWORD,
                keepers=around.setting,
                unattended=True,
                performer=Performer(),
            ) as nexus,
        ):
            await filled(nexus, count)
            writers = Writers(nexus)
            tasks = [asyncio.create_task(writers.run(number)) for number in range(WRITERS)]
            while len(writers.acknowledged) < 2 * WRITERS:  # noqa: ASYNC110  they tell nobody
                await asyncio.sleep(0.01)
            began = time.perf_counter()
            await nexus.rotations.start(emergency(), SUPERUSER)
            reserved = time.perf_counter()
            # Paused at once: which key each record was written under is then still to be seen.
            while not _is_flipped(nexus):  # noqa: ASYNC110  a keyring tells nobody
                await asyncio.sleep(0.001)
            flipped = time.perf_counter()
            await nexus.rotations.pause(SUPERUSER)
            await asyncio.sleep(0.5)
            writers.stop()
            await asyncio.gather(*tasks)
            under = await _generations(nexus)
            old = [at for path, at in writers.acknowledged.items() if under.get(path) == 1]
            return {
                "asked for until the keyring is marked, s": reserved - began,
                "asked for until the root key is replaced, s": flipped - began,
                "asked for until the last write under the old key, s": max([*old, began]) - began,
                "writes acknowledged meanwhile": float(
                    sum(began < at <= flipped for at in writers.acknowledged.values())
                ),
            }


def _is_flipped(nexus: RunningNexus) -> bool:
    rotation = nexus.vault.opened.document.rotation
    return rotation is not None and bool(rotation.flipped_at)


async def _measure(count: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for size in (1, count):
        found |= {
            f"{what} ({size} secrets)": value for what, value in (await _measured(size)).items()
        }
    return {what: round(value, 3) for what, value in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument(
        "--secrets", type=int, default=int(os.environ.get("SPIKE_BENCH_SECRETS", "20000"))
    )
    options = parser.parse_args()
    found = uvloop.run(_measure(options.secrets))
    if options.format == "json":
        print(json.dumps(found))
        return
    for what, value in found.items():
        print(f"{what:76} {value:10}")


if __name__ == "__main__":
    main()
