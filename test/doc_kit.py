"""Pages as tests read them: Markdown split into what can be compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "spike"

_FENCE = re.compile(r"^```(\S*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_ITEM = re.compile(r"^(?:\d+\.|\*|-) ", re.MULTILINE)


def page(name: str) -> str:
    """Return a page, by its path from the root of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def pages() -> list[Path]:
    """Return every page of the project."""
    found = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "test").rglob("*.md")]
    assert len(found) > 10
    return sorted(found)


def fences(text: str) -> list[tuple[str, str]]:
    """Return the fenced blocks: their language and their content."""
    return _FENCE.findall(text)


def without_fences(text: str) -> str:
    """Return the prose alone."""
    return _FENCE.sub("", text)


def codes(text: str) -> list[str]:
    """Return what stands between single backticks, in order."""
    return _CODE.findall(text)


def sections(text: str, level: int = 2) -> dict[str, str]:
    """Return the sections of one level by their headings."""
    parts = re.split(rf"^{'#' * level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def tables(text: str) -> list[list[list[str]]]:
    """Return the tables: rows of cells, without their heads."""
    found: list[list[list[str]]] = []
    for block in re.findall(r"(?:^\|.*\n)+", without_fences(text) + "\n", re.MULTILINE):
        rows = [_cells(line) for line in block.splitlines()]
        found.append(rows[2:])
    return found


def rows(text: str) -> list[list[str]]:
    """Return the rows of all tables."""
    return [row for table in tables(text) for row in table]


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def items(text: str) -> list[str]:
    """Return list items, table rows and paragraphs, each on its own."""
    found: list[str] = []
    for paragraph in re.split(r"\n\s*\n", without_fences(text)):
        if paragraph.startswith("|"):
            found += paragraph.splitlines()
        elif _ITEM.match(paragraph):
            found += re.split(r"\n(?=\d+\. |\* |- )", paragraph)
        else:
            found.append(paragraph)
    return found


def anchors(text: str) -> set[str]:
    """Return the names that a link can point to within a page."""
    names = set()
    for heading in _HEADING.findall(without_fences(text)):
        plain = re.sub(r"[`*]", "", heading).strip().lower()
        names.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain)))
    return names
