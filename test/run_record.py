"""What docs/reference/requirement.md and compliance.md call proven has to pass in the very run that finds them so.

A plugin notes what passed; with several workers it stands in the process that hands out the tests. At the end of a run
`unproven` says what a page claims and this run did not show.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field

import pytest

from doc_kit import ROOT, codes, page, rows

PAGES = ("docs/reference/requirement.md", "docs/reference/compliance.md")
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


@dataclass(eq=False)  # pytest keeps plugins in sets
class RunRecord:
    """How this run went. Names are without parameters."""

    complete: bool
    """Everything was to run, but for what a marker leaves out."""
    as_root: bool
    """Only the tests that need root were to run."""
    ran: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note one report."""
        self.ran.add(bare(report.nodeid))
        if report.when == "call" and report.passed:
            self.passed.add(bare(report.nodeid))
        if report.failed:
            self.failed.add(bare(report.nodeid))


def record_of(config: pytest.Config) -> RunRecord:
    """Return the empty record of a run."""
    complete = config.args_source is config.ArgsSource.TESTPATHS and not (
        config.option.keyword or config.option.deselect or config.option.lf
    )
    # A run that only lists its tests shows nothing, and claims nothing.
    complete = complete and not config.option.collectonly
    return RunRecord(complete, config.option.markexpr == "root")


def bare(node_id: str) -> str:
    """Return the name of a test without its parameters."""
    return node_id.partition("[")[0]


def unproven(record: RunRecord) -> set[str]:
    """Return the tests that a page names and this run did not pass: of a whole run every one, else those that ran."""
    named = {test for name in PAGES for line in lines(name) for test in line.tests}
    needs_root = {
        test for test in named if functions(test.partition("::")[0])[test.partition("::")[2]]
    }
    due = needs_root if record.as_root else named - needs_root
    if not record.complete:
        due = named & record.ran
    return (due - record.passed) | (named & record.failed)
