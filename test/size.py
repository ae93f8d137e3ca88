"""Two sizes of proof, one code: `make test` runs a size that fits, `make proof` the size that was promised.

`SPIKE_PROOF=1` chooses the large one. Each proof records what it did; `make proof` writes the records
to docs/reference/proof.md.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

PROOF = os.environ.get("SPIKE_PROOF") == "1"


def size(*, test: int, proof: int) -> int:
    """Return how many rounds to run: `test` in `make test`, `proof` in `make proof`."""
    return proof if PROOF else test


def seed() -> int:
    """Return the seed of this run: SPIKE_SEED if set, else a fresh one. Print it, to play a failure again."""
    return int(os.environ.get("SPIKE_SEED") or secrets.randbits(32))


def record(name: str, count: int, result: str, *, seed: int | None = None) -> None:
    """Append one line to the file named by SPIKE_PROOF_FILE, if set: what ran, how often, with which result."""
    target = os.environ.get("SPIKE_PROOF_FILE")
    if target:
        test = os.environ["PYTEST_CURRENT_TEST"].rpartition(" (")[0]
        entry = {"name": name, "count": count, "result": result, "seed": seed, "test": test}
        line = json.dumps(entry)
        with Path(target).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
