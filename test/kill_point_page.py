"""docs/reference/kill-point.md: written from the run that killed, when that run is a proof."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from size import PROOF

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "kill-point.md"
_HEAD = """# Kill points

Written by `make proof`, never by hand. Every durable effect of a rotation, a rollback, an abort, a finalization and an
emergency has a name in `nexus/performer.py`; this page has a row for each, before it and behind it. A real Nexus was
killed there with SIGKILL. "Found" is what the stored keyring said then. The next Nexus was to be killed at a random
effect as well ("and then": the effect, if it came so far); the one after that went on as it is shipped.

Afterwards, each time: every secret and cipher blob reads as it was acknowledged, each key has one generation in force,
no record is under a destroyed one by its own bytes, no place has a pending backup, and every Keeper holds its share.

"""
_COLUMNS = ("Of a", "Effect", "Killed", "Found", "And then", "Outcome")


class Row(NamedTuple):
    """One kill."""

    deed: str
    point: str
    side: str
    found: str
    again: str
    outcome: str


def write(rows: Sequence[Row], seed: int) -> None:
    """Write the page, if this run is one of `make proof`."""
    if not (PROOF and os.environ.get("SPIKE_PROOF_FILE")):
        return
    day = datetime.now(UTC).date().isoformat()
    table = [_COLUMNS, ("---",) * len(_COLUMNS), *sorted(rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    told = f"{len(rows)} kills, {day}, seed {seed}.\n\n"
    PAGE.write_text(_HEAD + told + "\n".join(lines) + "\n", encoding="utf-8")


def points() -> Iterator[str]:
    """Yield the effect of each row of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for line in [line for line in lines if line.startswith("| ")][2:]:
        yield line.split(" | ")[1]
