"""Loads the published vectors in test/vector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def load(name: str) -> list[dict[str, Any]]:
    """Return every test of one file, of all its groups; never an empty list."""
    document = json.loads((Path(__file__).parent / "vector" / name).read_text(encoding="utf-8"))
    tests: list[dict[str, Any]] = [
        test for group in document["testGroups"] for test in group["tests"]
    ]
    if not tests or len(tests) != document["numberOfTests"]:
        raise AssertionError(f"{name} gave {len(tests)} vectors")
    return tests
