"""Every decoder of bytes from outside, fuzzed: 60 s each in `make test`, a million inputs each in `make proof`."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from size import PROOF, record, seed

HERE = Path(__file__).resolve().parent
AT_ONCE = 16
SECONDS = 60
RUNS = 1_000_000


def every_target() -> list[str]:
    """Return PACKAGE/NAME of each target, found by running the packages' own lists in a fresh interpreter."""
    code = (
        "import sys, importlib.util as u\n"
        "s = u.spec_from_file_location('t', sys.argv[1]); m = u.module_from_spec(s)\n"
        "s.loader.exec_module(m); print('\\n'.join(m.TARGETS))"
    )
    found = []
    # The slowest, of the wire, come last by name: begun first, they do not keep all others waiting.
    for path in sorted(HERE.parent.glob("*/target.py"), reverse=True):
        names = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            check=True,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(HERE.parent)},
        ).stdout.splitlines()
        assert names, f"{path} names no target"
        found += [f"{path.parent.name}/{name}" for name in names]
    return found


def fuzz(target: str, chosen: int) -> tuple[str, int, str]:
    """Return the target, how many inputs it was given, and what went wrong (empty if nothing)."""
    limit = ["--runs", str(RUNS)] if PROOF else ["--seconds", str(SECONDS)]
    done = subprocess.run(
        [sys.executable, str(HERE / "drive.py"), target, *limit, "--seed", str(chosen)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd=HERE,
    )
    count = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
    if done.returncode or count is None:
        return target, 0, (done.stdout + done.stderr)[-3000:]
    return target, int(count[1]), ""


@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris has no wheel for this Python"
)
def test_no_decoder_raises_anything_but_its_documented_error() -> None:
    targets, chosen = every_target(), seed() & 0x7FFFFFFF
    print("seed", chosen)
    assert len(targets) >= 15
    with ThreadPoolExecutor(AT_ONCE) as pool:
        results = list(pool.map(lambda target: fuzz(target, chosen), targets))
    for target, count, wrong in results:
        assert not wrong, f"{target}: {wrong}"
        assert count > 1000, f"{target} was given {count} inputs only"
        record(f"fuzz {target}", count, "only its documented error", seed=chosen)
