"""docs/reference/kill-point.md: written from the run that killed, when that run is a proof."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from size import PROOF

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "kill-point.md"
_HEAD = """# Kill points

Written by `make proof`, never by hand. Every durable effect of a rotation, a rollback, an abort and an emergency has a
name in `nexus/performer.py`. A real Nexus was killed with SIGKILL before or behind each, then perhaps once more at a
random one, and then went on as it is shipped. "Found" is the phase of the rotation that the second Nexus saw; "none"
where it never began, or was over.

Afterwards, each time: every secret and cipher blob reads as it was acknowledged, one generation of each key is active,
no record is under a destroyed one, and every Keeper holds its share.

"""


class Row(NamedTuple):
    """One kill."""

    deed: str
    point: str
    side: str
    found: str
    outcome: str


def write(rows: Sequence[Row], seed: int) -> None:
    """Write the page, if this run is one of `make proof`."""
    if not (PROOF and os.environ.get("SPIKE_PROOF_FILE")):
        return
    day = datetime.now(UTC).date().isoformat()
    lines = [
        f"{len(rows)} kills, {day}, seed {seed}.\n",
        "| Of a | Effect | Killed | Found | Outcome |",
    ]
    lines.append("|---|---|---|---|---|")
    lines += [f"| {' | '.join(map(str, row))} |" for row in sorted(rows)]
    PAGE.write_text(_HEAD + "\n".join(lines) + "\n", encoding="utf-8")
