"""How long a killed Keeper is without its share, and what a Keeper takes of memory.

    PYTHONPATH=test:. .venv/bin/python -m bench.supply [--format human|json] [--rounds N]

Real processes on loopback, with the settings a user has who sets none: an open Nexus looks at its Keepers every 5 s. A
Keeper is killed at a moment that is spread evenly over that time and started again at once; it is itself asked, under
the identity of Nexus, until it says that it holds its share. Its memory is beside that of a bare interpreter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from process_kit import NEXUS, Installation
from spike.client.launch import Command, Launcher
from spike.pilot.demo.keeper.ask import ask_all
from spike.spiffe.id import SpiffeId

ROUNDS = 10
LOOK_S = 5.0
VICTIM = 2
_WATCH = "--watch"


@dataclass(frozen=True)
class Line:
    """A figure: the median of the rounds; `least` and `most` are the extremes."""

    name: str
    unit: str
    value: float
    least: float
    most: float


def watch(port: int) -> None:
    """Return once the Keeper at a port says that it holds a share."""
    while not asyncio.run(ask_all([port]))[0].get("set_id"):
        time.sleep(0.02)


def start_watch(spike: Installation, launcher: Launcher) -> subprocess.Popen[bytes]:
    """Start `watch` under the identity of Nexus."""
    port = str(spike.keeper_port[VICTIM])
    arguments = [sys.executable, "-m", "bench.supply", _WATCH, port]
    return launcher.start(
        SpiffeId.parse_untrusted(NEXUS),
        Command(arguments, {**spike.environment, "PYTHONPATH": ":".join(sys.path)}),
    )


def time_to_supply(spike: Installation, launcher: Launcher) -> tuple[float, float]:
    """Kill a Keeper and start it again; return the seconds until it listens and until it has its share."""
    spike.kill_keeper(VICTIM)
    began_s = time.perf_counter()
    spike.start_keeper(VICTIM)
    listens_s = time.perf_counter() - began_s
    assert start_watch(spike, launcher).wait() == 0
    return listens_s, time.perf_counter() - began_s


def resident_mib(pid: int, field: str = "Rss") -> float:
    """Return the resident memory of a process; `Pss` counts a page that n share as 1/n."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return (
        int(next(row for row in text.splitlines() if row.startswith(f"{field}:")).split()[1]) / 1024
    )


def bare_mib() -> float:
    """Return the resident memory of an interpreter that does nothing."""
    command = [sys.executable, "-c", "print(flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        resident = resident_mib(process.pid)
        process.communicate(b"\n")
    return resident


def line(name: str, unit: str, found: list[float]) -> Line:
    """Return the line of some rounds."""
    return Line(name, unit, median(found), min(found), max(found))


def measure(directory: Path, rounds: int) -> list[Line]:
    """Measure memory at rest, then kill and wait."""
    with Installation(directory, keepers=3) as spike:
        spike.init()
        spike.wait_for_keepers()
        launcher = Launcher(spike.control)
        pids = [process.pid for process in spike.keeper.values()]
        memory = line("Keeper, resident", "MiB", [resident_mib(pid) for pid in pids])
        shared = line("Keeper, its part of it", "MiB", [resident_mib(pid, "Pss") for pid in pids])
        listens, supplied = [], []
        for number in range(rounds):
            time.sleep(LOOK_S * number / rounds)
            listening_s, held_s = time_to_supply(spike, launcher)
            listens.append(listening_s)
            supplied.append(held_s)
            spike.wait_for_keepers()
        launcher.close()
    return [
        line("start to listening", "s", listens),
        line("SIGKILL to its share again", "s", supplied),
        line("bare interpreter, resident", "MiB", [bare_mib()]),
        memory,
        shared,
    ]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(_WATCH, type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.watch is not None:
        watch(options.watch)
        return 0
    with tempfile.TemporaryDirectory() as name:
        lines = measure(Path(name), options.rounds)
    if options.format == "json":
        print(json.dumps([asdict(each) for each in lines]))
        return 0
    for each in lines:
        print(
            f"{each.name:28} {each.value:7.2f} {each.unit:3}  ({each.least:.2f} to {each.most:.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
