"""Run every proof at its full size and write docs/reference/proof.md: what ran, how often, the result, when, on what.

The page is written only if everything passed; a failed run leaves the old page as it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "proof.md"
_HEAD = """# Proofs

Written by `make proof`, never by hand: each proof at its full size, with its seed where chance was involved.
To play one again: `SPIKE_PROOF=1 SPIKE_SEED=<seed> .venv/bin/pytest <test>`.

"""


def run(marker: str, file: Path) -> int:
    """Run the tests of a marker at full size; return pytest's exit code."""
    environment = {**os.environ, "SPIKE_PROOF": "1", "SPIKE_PROOF_FILE": str(file)}
    command = [sys.executable, "-m", "pytest", "-m", marker, *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def page(lines: list[str]) -> str:
    """Return the page for the records, one line of JSON each."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    today = datetime.now(UTC).date().isoformat()
    rows = ["| Proof | Count | Result | Seed | Date | Commit |", "|---|---:|---|---|---|---|"]
    for line in sorted(lines):
        entry = json.loads(line)
        seed = "" if entry["seed"] is None else entry["seed"]
        rows.append(
            f"| {entry['name']} | {entry['count']:,} | {entry['result']} | {seed} | {today} | {commit} |"
        )
    return _HEAD + "\n".join(rows) + "\n"


def main() -> int:
    """Run all proofs; return 0 when all passed and the page was written."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "proof.jsonl"
        code = run("not root", file)
        if code == 0 and os.geteuid() == 0:
            code = run("root", file)
        if code:
            return code
        PAGE.write_text(page(file.read_text(encoding="utf-8").splitlines()), encoding="utf-8")
        print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
