"""How long a killed Nexus is away: from its start to its first answer with the root key, from Keepers or by password.

    PYTHONPATH=test:. .venv/bin/python -m bench.recovery [--format human|json] [--records N]

Real processes on loopback: three Keepers, and then with none of them `spike restore` with the password, whose two
derivations are in the time. The same with a small store and with a large one, and beside both the time the same program
takes for `--version`, which is the interpreter and the imports alone. Nothing here may grow with the store.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from process_kit import BIN, Installation
from spike.error import SpikeError

RECORDS = 1_000_000
ROUNDS = 7
BLOB = b"\xa5" * 1024
_FILL = """
WITH RECURSIVE row(number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM row WHERE number < ?)
INSERT INTO record (kind, key, version, generation, revision, blob)
SELECT ?, 'z/' || number, ?, 1, 1, ? FROM row
"""


@dataclass(frozen=True)
class Line:
    """Seconds, the median of the rounds; `least` and `most` are the extremes."""

    name: str
    records: int
    seconds: float
    least: float
    most: float


def fill(store: Path, count: int) -> None:
    """Put rows beside the true ones, as many as there would be for `count` secrets of 1 KiB."""
    with contextlib.closing(sqlite3.connect(store / "store.sqlite")) as connection:
        for kind, version in (("secret", "0" * 32), ("secret-meta", "")):
            blob = BLOB if kind == "secret" else BLOB[:300]
            connection.execute(_FILL, (count, kind, version, blob))
        connection.commit()


def time_to_serve(spike: Installation) -> float:
    """Kill Nexus, start it, and return the seconds from its start to its first answer with the root key."""
    spike.kill_nexus()
    began_s = time.perf_counter()
    spike.start_nexus()
    return _until_served(spike, began_s)


def time_by_password(spike: Installation) -> float:
    """The same without any Keeper: a person who is there at once gives the password."""
    spike.kill_nexus()
    began_s = time.perf_counter()
    spike.start_nexus()
    spike.restore()
    return _until_served(spike, began_s)


def _until_served(spike: Installation, began_s: float) -> float:
    while True:
        try:
            if spike.client.get_secret("a") == {"k": "v"}:
                return time.perf_counter() - began_s
        except SpikeError:
            time.sleep(0.005)


def line(name: str, records: int, seconds: list[float]) -> Line:
    """Return the line of some rounds."""
    return Line(name, records, median(seconds), min(seconds), max(seconds))


def time_of_version() -> float:
    """Return the seconds `spike-nexus --version` takes."""
    began_s = time.perf_counter()
    subprocess.run([str(BIN / "spike-nexus"), "--version"], check=True, capture_output=True)
    return time.perf_counter() - began_s


def measure(directory: Path, records: int) -> list[Line]:
    """Measure with an almost empty store, then with a full one."""
    with Installation(directory, keepers=3) as spike:
        spike.init()
        spike.client.put_secret("a", {"k": "v"})
        lines = _both(spike, 1)
        spike.kill_nexus()
        fill(spike.store, records)
        for index in spike.keeper:
            spike.start_keeper(index)
        spike.start_nexus()
        spike.restore()
        spike.wait_for_keepers()
        lines += _both(spike, records)
    bare = line("spike-nexus --version", 0, [time_of_version() for _ in range(ROUNDS)])
    return [bare, *lines]


def _both(spike: Installation, records: int) -> list[Line]:
    """Measure from Keepers, then kill them and measure by password."""
    keepers = line("from Keepers", records, [time_to_serve(spike) for _ in range(ROUNDS)])
    for index in spike.keeper:
        spike.kill_keeper(index)
    password = line("by password", records, [time_by_password(spike) for _ in range(ROUNDS)])
    return [keepers, password]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument("--records", type=int, default=RECORDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        lines = measure(Path(name), options.records)
    if options.format == "json":
        print(json.dumps([asdict(each) for each in lines]))
        return 0
    for each in lines:
        print(
            f"{each.name:24} {each.records:>9,} records  {each.seconds:6.3f} s  "
            f"({each.least:.3f} to {each.most:.3f})"
        )
    _, keepers, password, full_keepers, full_password = (each.seconds for each in lines)
    print(f"large store over small one, from Keepers: {full_keepers / keepers:.2f}")
    print(f"large store over small one, by password: {full_password / password:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
