"""Notes which tests passed in this run, so that pages can only claim what was just proven.

The test that compares them with the pages is moved to the end of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

LAST = "test_what_pages_call_proven_passed_in_this_run"


@dataclass(eq=False)  # pytest keeps plugins in sets
class RunRecord:
    """What this run was to run, and how it went. Names are without parameters."""

    complete: bool
    """Everything was to run, but for what a marker leaves out."""
    selected: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.selected = {bare(item.nodeid) for item in session.items}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(bare(report.nodeid))
        if report.failed:
            self.failed.add(bare(report.nodeid))


RECORD = pytest.StashKey[RunRecord]()


def bare(node_id: str) -> str:
    """Return the name of a test without its parameters."""
    return node_id.partition("[")[0]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin the record, and put the test that reads it at the end."""
    complete = config.args_source is config.ArgsSource.TESTPATHS and not (
        config.option.keyword or config.option.deselect or config.option.lf
    )
    record = RunRecord(complete)
    config.stash[RECORD] = record
    config.pluginmanager.register(record)
    items.sort(key=lambda item: item.name.startswith(LAST))


@pytest.fixture
def run_record(request: pytest.FixtureRequest) -> RunRecord:
    """Return what has happened in this run so far."""
    return request.config.stash[RECORD]
