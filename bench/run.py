"""Run every benchmark, one after the other: `make bench`, or `python -m bench.run [--format json] [NAME …]`.

Figures of different benchmarks do not compare, nor do those of different runs: look at the ratios within one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMES = (
    "record",
    "policy",
    "storage",
    "read",
    "cipher",
    "share",
    "recovery",
    "supply",
    "verify",
    "rotation",
    "emergency",
    "system_backup",
    "drill",
)


def main() -> int:
    """Run the benchmarks named, or all; return 0 when every one ran."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--format", choices=("human", "json"), default="human")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(NAMES)}")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'test'}:{ROOT}"}
    for name in options.names or NAMES:
        if options.format == "human":
            print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"bench.{name}", "--format", options.format]
        if code := subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
