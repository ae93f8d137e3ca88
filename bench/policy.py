"""How long one decision takes: `python bench/policy.py [--format human|json]`.

Decides for a caller whose policy is one of N, over N = 10 and N = 10,000 policies, in one run: on a path
asked before, on a path never asked before, and for a denial. The last columns are the cost of building
the set, paid at start, and of adding one policy to it. Figures compare within a line; `ratio` is large over small.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from itertools import count

from spike.policy.compiled import CompiledPolicies
from spike.policy.rule import Permission, Policy, PolicyName
from spike.spiffe.id import SpiffeId
from spike.wire.go_time import UnixNs

SMALL, LARGE = 10, 10_000
ROUNDS = 20_000
REPEATS = 5


def policies(number: int) -> Iterator[Policy]:
    """Yield one policy for each of `number` workloads, on a subtree of its own."""
    for n in range(number):
        yield Policy(
            PolicyName(f"workload {n}"),
            rf"^spiffe://spike\.ist/workload/w{n}$",
            f"^tenants/t{n}/.*$",
            frozenset({Permission.READ}),
            UnixNs(0),
            UnixNs(0),
        )


def best_us(act: Callable[[], object], rounds: int) -> float:
    """Return the microseconds of one `act`, the best of some repeats."""
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        for _ in range(rounds):
            act()
        times.append(time.perf_counter() - started)
    return min(times) / rounds * 1e6


def measure(number: int) -> dict[str, float]:
    """Return the figures over `number` policies, each in the unit its name ends with."""
    standing = tuple(policies(number + 1))
    started = time.perf_counter()
    decider = CompiledPolicies(standing[:-1])
    build_ms = (time.perf_counter() - started) * 1e3
    started = time.perf_counter()
    CompiledPolicies(standing, decider)
    change_ms = (time.perf_counter() - started) * 1e3
    middle = number // 2
    peer = SpiffeId.parse_untrusted(f"spiffe://spike.ist/workload/w{middle}")
    stranger = SpiffeId.parse_untrusted("spiffe://spike.ist/workload/nobody")
    path = f"tenants/t{middle}/db/creds"
    fresh = count()

    def decide_fresh() -> bool:
        return decider.decide(peer, f"{path}/{next(fresh)}", Permission.READ)

    if not decider.decide(peer, path, Permission.READ) or not decide_fresh():
        raise SystemExit("the policy does not allow what it should: the figures would mean nothing")
    if decider.decide(stranger, path, Permission.READ):
        raise SystemExit("a stranger is allowed: the figures would mean nothing")
    return {
        "allow_us": best_us(lambda: decider.decide(peer, path, Permission.READ), ROUNDS),
        "allow_new_path_us": best_us(decide_fresh, ROUNDS),
        "deny_us": best_us(lambda: decider.decide(stranger, path, Permission.READ), ROUNDS),
        "build_ms": build_ms,
        "change_ms": change_ms,
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How long one decision over many policies takes.")
    parser.add_argument("--format", choices=["human", "json"], default="human")
    chosen = parser.parse_args()
    small, large = measure(SMALL), measure(LARGE)
    ratio = {name: large[name] / small[name] for name in small}
    result = {f"{SMALL}": small, f"{LARGE}": large, "ratio": ratio}
    if chosen.format == "json":
        sys.stdout.write(json.dumps({"name": "policy", "result": result}, indent=2) + "\n")
        return 0
    names = list(small)
    sys.stdout.write(f"{'policies':>10}" + "".join(f"{name:>20}" for name in names) + "\n")
    for label, figures in result.items():
        sys.stdout.write(
            f"{label:>10}" + "".join(f"{figures[name]:>20.2f}" for name in names) + "\n"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
