"""Run the proofs at their full size and write docs/reference/proof.md: what ran, how often, the result, when, on what.

    python tool/proof.py [PYTEST ARGUMENT …]

Without arguments everything runs and the page is written anew; with arguments only what they name, and only its rows
are replaced. The page is written only if everything passed; a failed run leaves it as it was.
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
NO_TEST_RAN = 5
_HEAD = """# Proofs

Written by `make proof`, never by hand: each proof at its full size, with its seed where chance was involved.
To play one again: `SPIKE_PROOF=1 SPIKE_SEED=<seed> .venv/bin/pytest <test>`.

| Proof | Count | Result | Seed | Date | Commit |
|---|---:|---|---|---|---|
"""


def run(marker: str, file: Path, arguments: list[str]) -> int:
    """Run the tests of a marker at full size; return pytest's exit code, 0 when there were none to run."""
    environment = {**os.environ, "SPIKE_PROOF": "1", "SPIKE_PROOF_FILE": str(file)}
    command = [sys.executable, "-m", "pytest", "-m", marker, "-o", "faulthandler_timeout=0"]
    command += arguments
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    return 0 if code == NO_TEST_RAN else code


def rows_of(lines: list[str], commit: str, today: str) -> dict[str, str]:
    """Return a row of the table for each record (one line of JSON), by the proof's name."""
    rows = {}
    for line in lines:
        entry = json.loads(line)
        seed = "" if entry["seed"] is None else entry["seed"]
        cells = (entry["name"], f"{entry['count']:,}", entry["result"], seed, today, commit)
        rows[entry["name"]] = f"| {' | '.join(map(str, cells))} |"
    return rows


def rows_of_page() -> dict[str, str]:
    """Return the rows the page has now, by the proof's name."""
    if not PAGE.exists():
        return {}
    table = PAGE.read_text(encoding="utf-8").removeprefix(_HEAD).splitlines()
    return {row.split("|")[1].strip(): row for row in table if row.startswith("| ")}


def present_commit() -> str:
    """Return the commit the work tree stands on."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    """Run, and return 0 when all passed and the page was written."""
    arguments, commit = sys.argv[1:], present_commit()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "proof.jsonl"
        code = run("not root", file, arguments)
        if code == 0 and os.geteuid() == 0:
            code = run("root", file, arguments)
        if code:
            return code
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    rows = rows_of_page() if arguments else {}
    rows |= rows_of(lines, commit, datetime.now(UTC).date().isoformat())
    PAGE.write_text(_HEAD + "\n".join(rows[name] for name in sorted(rows)) + "\n", encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(rows)} proofs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
