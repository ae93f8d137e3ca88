"""What docs/reference/requirement.md and compliance.md call proven is proven, by tests that exist and passed."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import Any

import pytest

from doc_kit import DOCS, ROOT, codes, page, rows

PAGES = ("docs/reference/requirement.md", "docs/reference/compliance.md")
NUMBERS = (
    ("K", 4),
    ("P", 6),
    ("B", 4),
    ("R", 10),
    ("F", 3),
    ("E", 3),
    ("M", 4),
    ("G", 4),
    ("D", 10),
)
STATE = re.compile(r"(proven|met|not yet|in part): ?(.*)")


@dataclass(frozen=True)
class Line:
    """One row: its id, how far it is, what is missing, tests and page."""

    id: str
    state: str
    missing: str
    tests: tuple[str, ...]
    link: str


def lines(name: str) -> list[Line]:
    found = []
    for identity, asked, state, tests, link in rows(page(name)):
        assert asked
        match = STATE.fullmatch(state if ":" in state else f"{state}:")
        assert match is not None, f"{identity}: no such state: {state}"
        found.append(Line(identity, match[1], match[2], tuple(codes(tests)), link))
    return found


LINES = [line for name in PAGES for line in lines(name)]


def functions(file: str) -> dict[str, bool]:
    """Return the tests of a file by name; whether they need root."""
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    whole = any(
        "pytest.mark.root" in ast.unparse(n) for n in tree.body if isinstance(n, ast.Assign)
    )
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            marks = [ast.unparse(each) for each in node.decorator_list]
            found[node.name] = whole or "pytest.mark.root" in marks
    return found


def test_every_requirement_has_its_line_once_and_in_order() -> None:
    expected = [f"{letter}{n}" for letter, count in NUMBERS for n in range(1, count + 1)]
    assert [line.id for line in lines(PAGES[0])] == expected


def test_standards_have_lines_with_names_of_their_own() -> None:
    names = [line.id for line in lines(PAGES[1])]
    assert len(names) > 20
    by_section = [name for name in names if name[0].isdigit()]
    assert len(set(by_section)) == len(by_section)


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.id} {line.state}")
def test_a_line_says_what_its_state_needs(line: Line) -> None:
    if line.state == "not yet":
        assert not line.tests, "what is not built has no proof"
    else:
        assert line.tests, "a test is missing"
        assert line.link, "a page is missing"
    assert bool(line.missing) == (line.state == "in part")
    for target in re.findall(r"\]\(([^)#]+)", line.link):
        assert (DOCS / "reference" / target).resolve().is_file()


@pytest.mark.parametrize("test", sorted({test for line in LINES for test in line.tests}))
def test_a_test_named_is_there(test: str) -> None:
    file, _, name = test.partition("::")
    assert name in functions(file)


def test_what_pages_call_proven_passed_in_this_run(run_record: Any) -> None:
    """At the end of a whole run every test named has passed; in a part of one, those that belong to it."""
    named = {test for line in LINES for test in line.tests}
    needs_root = {
        test for test in named if functions(test.partition("::")[0])[test.partition("::")[2]]
    }
    assert not named & run_record.failed
    due = named - needs_root if run_record.complete else set()
    due |= named & run_record.selected
    assert due <= run_record.passed, f"not run: {sorted(due - run_record.passed)}"


@pytest.mark.root
def test_what_pages_call_proven_passed_in_this_run_as_root(run_record: Any) -> None:
    """The same for the tests that need root."""
    named = {test for line in LINES for test in line.tests}
    needs_root = {
        test for test in named if functions(test.partition("::")[0])[test.partition("::")[2]]
    }
    assert needs_root
    due = needs_root if run_record.complete else needs_root & run_record.selected
    assert due <= run_record.passed, f"not run: {sorted(due - run_record.passed)}"
