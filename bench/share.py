"""How long splitting a root key and rebuilding it takes. Run it alone.

    PYTHONPATH=test:. .venv/bin/python -m bench.share [--format human|json]

Prints milliseconds, the best of several rounds, and how many check values of a root key fit into that time.
"""

from __future__ import annotations

import argparse
import json
import timeit
from collections.abc import Callable

from share_kit import Dealt, deal, wrong_value
from spike.crypto.purpose import check_value
from spike.lifecycle.keyring import ShareSet
from spike.lifecycle.share import Share, ShareError

ROUNDS = 7
BASELINE = "check value"


def measure() -> dict[str, float]:
    """Return milliseconds by name, each the best of its rounds."""
    small, large = deal(3, 5), deal(10, 20)
    two_wrong = [*map(wrong_value, small.shares((1, 2))), *small.shares((3, 4, 5))]
    half_wrong = [*map(wrong_value, large.shares(range(1, 11))), *large.shares(range(11, 21))]
    changed = large.with_digests(dict.fromkeys(range(1, 21), "0" * 64))
    cases: dict[str, tuple[Callable[[], object], int]] = {
        BASELINE: (lambda: check_value(small.root, bytes(16), 1), 500),
        "split, 3 of 5": (lambda: split(small), 50),
        "rebuild, 3 of 5": (lambda: rebuild(small, small.shares()), 50),
        "the same, two wrong": (lambda: rebuild(small, two_wrong), 50),
        "split, 10 of 20": (lambda: split(large), 5),
        "rebuild, 10 of 20": (lambda: rebuild(large, large.shares()), 5),
        "the same, ten wrong": (lambda: rebuild(large, half_wrong), 5),
        "1,000 subsets in vain": (lambda: rebuild(large, half_wrong, changed), 1),
    }
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(ROUNDS):
        for name, (call, calls) in cases.items():
            best[name] = min(best[name], timeit.timeit(call, number=calls) / calls * 1e3)
    small.wipe()
    large.wipe()
    return {name: round(value, 3) for name, value in best.items()}


def split(made: Dealt) -> None:
    """Split the same root key again, and wipe the shares."""
    deal(made.share_set.threshold, len(made.held.indexes), made.root).held.wipe()


def rebuild(made: Dealt, shares: list[Share], share_set: ShareSet | None = None) -> None:
    """Rebuild, and wipe what comes back, if anything does."""
    try:
        found = made.rebuild(shares, share_set)
    except ShareError:
        return
    found.root.wipe()
    found.held.wipe()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    options = parser.parse_args()
    best_ms = measure()
    if options.format == "json":
        print(json.dumps(best_ms))
        return
    print(f"                             ms   in units of one {BASELINE}")
    for name, cost_ms in best_ms.items():
        print(f"{name:25} {cost_ms:7.3f}{cost_ms / best_ms[BASELINE]:12.0f}")


if __name__ == "__main__":
    main()
