"""What holds for every test: who may run it, and that nothing is left out unseen where nothing may be."""

from __future__ import annotations

import os
import signal

import pytest

from run_record import RunRecord, record_of, unproven

RECORD = pytest.StashKey[RunRecord]()
LONG_FILES = (
    "test_process_runbook.py",
    "test_demo.py",
    "test_fuzz.py",
    "test_process_slot.py",
    "test_process_recovery_kill.py",
    "test_dev_process.py",
    "test_dev_keeper.py",
    "test_readme.py",
    "test_rotation_model.py",
    "test_keeper_model.py",
)
"""Files that take a minute or more. They begin first, so that no worker is left with one when the others are done."""


def pytest_configure(config: pytest.Config) -> None:
    """Take signals as a terminal's shell would hand them on, also where the suite was started in the background.

    A shell without job control has its background commands ignore SIGINT, and what ignores it hands that on.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    if not hasattr(config, "workerinput"):
        # Not in a worker: there only a part of what ran is known.
        config.stash[RECORD] = record_of(config)
        config.pluginmanager.register(config.stash[RECORD])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let what takes long begin first; leave out what shows the limits of an ordinary user when root runs the suite."""
    rank = {name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))
    if os.geteuid() != 0:
        return
    kept = [item for item in items if item.get_closest_marker("ordinary") is None]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run when a page claims what it did not show, or when SPIKE_NO_SKIP=1 allows no skip and one was."""
    record = session.config.stash.get(RECORD, None)
    if record is None or session.exitstatus != pytest.ExitCode.OK:
        return
    missing = unproven(record)
    if missing:
        print(f"\npages call proven what did not pass in this run: {sorted(missing)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    if os.environ.get("SPIKE_NO_SKIP") != "1":
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", ())) if reporter is not None else 0
    if skipped:
        print(f"\n{skipped} tests were skipped, and SPIKE_NO_SKIP=1 allows none")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
