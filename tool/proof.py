"""Run the proofs at their full size and write docs/reference/proof.md: what ran, how often, the result, when, on what.

    python tool/proof.py [PYTEST ARGUMENT …]

Without arguments everything runs and the page is written anew. With arguments only what they name runs: the rows of a
test that ran are replaced, all of them, and rows of tests that do not exist any more are taken out. The page is
written only if everything passed; a failed run leaves it as it was.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "proof.md"
NO_TEST_RAN = 5
_HEAD = """# Proofs

Written by `make proof`, never by hand: each proof at its full size, with its seed where chance was involved.
To play one again: `SPIKE_PROOF=1 SPIKE_SEED=<seed> .venv/bin/pytest '<test>'`.

| Proof | Count | Result | Seed | Date | Commit | Test |
|---|---:|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """One proof that ran, as the cells of the table; `test` is the id of the test it is of, with parameters."""

    name: str
    count: str
    result: str
    seed: str
    date: str
    commit: str
    test: str

    def text(self) -> str:
        """Return the line of the table."""
        cells = (self.name, self.count, self.result, self.seed, self.date, self.commit)
        return f"| {' | '.join(map(_cell, cells))} | `{_cell(self.test)}` |"

    @classmethod
    def of_text(cls, line: str) -> Self:
        """Read a line of the table back."""
        cells = [each.strip().replace("\\|", "|") for each in re.split(r"(?<!\\)\|", line)]
        return cls(*(cell.strip("`") for cell in cells[1:8]))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def run(marker: str, file: Path, arguments: list[str]) -> int:
    """Run the tests of a marker at full size; return pytest's exit code, 0 when there were none to run."""
    environment = {**_environment(), "SPIKE_PROOF_FILE": str(file)}
    command = [sys.executable, "-m", "pytest", "-m", marker, "-o", "faulthandler_timeout=0"]
    command += arguments
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    return 0 if code == NO_TEST_RAN else code


def existing_tests() -> set[str]:
    """Return the ids of all tests there are at full size."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet"]
    done = subprocess.run(
        command, cwd=ROOT, env=_environment(), check=True, capture_output=True, text=True
    )
    return {line for line in done.stdout.splitlines() if "::" in line}


def _environment() -> dict[str, str]:
    return {**os.environ, "SPIKE_PROOF": "1"}


def rows_of(records: Iterable[dict[str, Any]], commit: str, today: str) -> list[Row]:
    """Return a row of the table for each record of a run."""
    return [
        Row(
            name=each["name"],
            count=f"{each['count']:,}",
            result=each["result"],
            seed="" if each["seed"] is None else str(each["seed"]),
            date=today,
            commit=commit,
            test=each["test"],
        )
        for each in records
    ]


def rows_of_page(text: str) -> list[Row]:
    """Return the rows a page has."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [Row.of_text(line) for line in lines[1:]]


def merged(old: Iterable[Row], new: Collection[Row], existing: Collection[str]) -> list[Row]:
    """Return what the page is to hold after a part of the proofs ran: by name, each test's newest rows alone.

    A test that ran again has given every row it now has, so that no row of it from before is left under another name.
    """
    ran = {row.test for row in new}
    kept = [row for row in old if row.test in existing and row.test not in ran]
    return sorted([*kept, *new], key=lambda row: (row.name, row.test))


def page_of(rows: Iterable[Row]) -> str:
    """Return the text of the page."""
    return _HEAD + "".join(f"{row.text()}\n" for row in rows)


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
    new = rows_of(map(json.loads, lines), commit, datetime.now(UTC).date().isoformat())
    old = rows_of_page(PAGE.read_text(encoding="utf-8")) if arguments else []
    rows = merged(old, new, existing_tests() if arguments else ())
    PAGE.write_text(page_of(rows), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: {len(new)} proofs ran, {len(rows)} stand there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
