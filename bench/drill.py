"""How long a full drill takes: everything recovered from a key backup, and every record of the store opened.

    PYTHONPATH=test:. .venv/bin/python -m bench.drill [--secrets N]

A Nexus on SQLite holds N secrets of 1 KiB (each two records), 20,000 unless SPIKE_BENCH_SECRETS or --secrets says
otherwise, and a tenth of that first: what a record costs must be the same, and memory must not grow with the store.
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
from bench.rotation import Peak, filled

from nexus_kit import SUPERUSER, running
from spike.lifecycle.proof import Outcome


async def _drilled(count: int) -> dict[str, float]:
    """Make one full drill of a store of so many secrets."""
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        async with running(base / "data", place=base / "place") as nexus:
            await filled(nexus, count)
            idle, peak = Peak(), Peak()
            async with idle.watched():
                await asyncio.sleep(0.5)
            began = time.perf_counter()
            async with peak.watched():
                await nexus.drills.begin(SUPERUSER, full=True)
                await nexus.drills.wait()
            seconds, made = time.perf_counter() - began, nexus.drills.last
            if (
                made is None
                or made.outcome is not Outcome.SUCCEEDED
                or made.tally.opened < 2 * count
            ):
                raise AssertionError(made)
            return {
                "full drill, s": seconds,
                "records/s": made.tally.opened / seconds,
                "grew while it ran, MiB": peak.mib - idle.mib,
            }


async def _measure(count: int) -> dict[str, float]:
    few, many = await _drilled(count // 10), await _drilled(count)
    found = {f"{what} ({count // 10} secrets)": value for what, value in few.items()}
    found |= {f"{what} ({count} secrets)": value for what, value in many.items()}
    found["a record of the larger store against one of the smaller"] = (
        few["records/s"] / many["records/s"]
    )
    return {what: round(value, 3 if value < 100 else 0) for what, value in found.items()}


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
        print(f"{what:62} {value:10}")


if __name__ == "__main__":
    main()
