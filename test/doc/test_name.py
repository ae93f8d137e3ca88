"""Names are singular, packages say what they are in a line, and nothing points out of the project."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from doc_kit import ROOT, SOURCE

LEFT_OUT = {".git", "build", "dist", "__pycache__"}
"""What tools make; and every hidden directory but .ci."""
SINGULAR = frozenset(
    {"access", "aes", "alias", "analysis", "basis", "bus", "canvas", "class", "consensus", "corpus"}
    | {"docs", "focus", "is", "loss", "nexus", "pass", "process", "progress", "radius", "status"}
    | {"census", "staleness", "witness"}
    | {"success", "this", "tls", "https", "was", "as", "us", "has", "does", "its"}
)
"""Words that end in s and are no plural; `docs` is where sites and readers look for it."""


def files() -> Iterator[Path]:
    """Yield every file of the project, below its root."""
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        made = {p for p in parts if p in LEFT_OUT or p.endswith(".egg-info")}
        hidden = {p for p in parts[:-1] if p.startswith(".") and p != ".ci"}
        if path.is_file() and not made and not hidden and parts[-1][0] != ".":
            yield path.relative_to(ROOT)


FILES = list(files())


def test_names_are_singular() -> None:
    assert len(FILES) > 200
    plural = set()
    for path in FILES:
        for part in path.parts:
            words = re.split(r"[-_.\d]+", part.lower())
            if any(w.endswith("s") and len(w) > 1 and w not in SINGULAR for w in words):
                plural.add(part)
    assert not plural, "a name is plural; choose the singular, or name the word in SINGULAR"


def test_every_exception_of_ours_is_used() -> None:
    used = {w for path in FILES for p in path.parts for w in re.split(r"[-_.\d]+", p.lower())}
    assert {"access", "docs", "nexus", "process", "status"} <= used


FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w/.~])/(?:work|home/(?!somebody)\w+|mnt/c|Users)/"),
    "a note of unfinished work": re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b"),
    "a package index": re.compile(
        r"(?:--(?:extra-)?index" + r"-url|\bpy" + r"pi\.|/sim" + r"ple/)"
    ),
    "a place out of the project": re.compile(r"\.\./sha" + r"red"),
    "a number of a tracker": re.compile(r"(?i)\biss" + r"ues? #?\d"),
}
HOSTS = re.compile(r"https?://([A-Za-z0-9.-]+)")
KNOWN_HOSTS = frozenset(
    {"localhost", "127.0.0.1", "spike.ist", "spiffe.io", "www.apache.org", "www.sqlite.org"}
    | {"example.org", "nexus.example", "other", "a", "h", "u", "HOST"}
)


def texts() -> Iterator[tuple[Path, str]]:
    """Yield every text of the project with its path; vectors are taken as they were published."""
    for path in FILES:
        if path.parts[:2] == ("test", "vector") or path.suffix in {".sqlite", ".key-backup"}:
            continue
        yield path, (ROOT / path).read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_holds(what: str) -> None:
    found = [
        f"{path}: {match[0]}" for path, text in texts() for match in FORBIDDEN[what].finditer(text)
    ]
    assert not found, f"{what}: {found}"


def test_addresses_lead_to_known_hosts() -> None:
    found = {(str(path), host) for path, text in texts() for host in HOSTS.findall(text)}
    assert found
    unknown = {
        (path, host)
        for path, host in found
        if host.rstrip(".") not in KNOWN_HOSTS and not host.endswith(".example.org")
    }
    assert not unknown


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("__init__.py")), ids=lambda p: p.parent.name)
def test_a_package_says_in_a_line_what_it_is(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, "a docstring is missing"
    first, *rest = text.splitlines()
    assert first.endswith(".")
    assert not rest or not rest[0], "the first line is the whole sentence"
