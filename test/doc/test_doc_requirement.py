"""What docs/reference/requirement.md and compliance.md call proven is proven, by tests that exist and passed."""

from __future__ import annotations

import re

import pytest

from doc_kit import DOCS
from run_record import PAGES, Line, RunRecord, functions, lines, unproven

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
LINES = [line for name in PAGES for line in lines(name)]


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


def test_what_a_page_names_and_a_run_did_not_pass_is_found() -> None:
    named = {test for line in LINES for test in line.tests}
    rootless = [
        test for test in named if not functions(test.partition("::")[0])[test.partition("::")[2]]
    ]
    one = min(rootless)
    others = named - {one}
    assert unproven(RunRecord(complete=True, as_root=False, ran=others, passed=others)) == {one}
    assert not unproven(RunRecord(complete=True, as_root=False, ran=named, passed=named))
    assert not unproven(RunRecord(complete=False, as_root=False))
    assert unproven(RunRecord(complete=False, as_root=False, ran={one}, failed={one})) == {one}
    assert unproven(RunRecord(complete=True, as_root=True)) <= named
