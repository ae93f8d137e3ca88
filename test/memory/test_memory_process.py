"""Each measure is tried in a process of its own: most of them cannot be taken back."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PRELUDE = """
import ctypes, json, os, resource, sys
from spike.memory import KeyMemory, page
from spike.memory.process import check_key_pages, check_measures, harden
def report(measures):
    print(json.dumps({measure.name: [measure.applied, measure.detail] for measure in measures}))
"""


def run(code: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_hardening_turns_on_what_the_kernel_reports_off() -> None:
    before, after, later = run(
        "key = KeyMemory.generate()\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))\n"
        "report(check_measures()); report(harden()); report(check_measures())"
    )
    assert before["not dumpable"][0] is False
    assert after["not dumpable"] == [True, "PR_SET_DUMPABLE is 0"]
    assert after["no core file"] == [True, "RLIMIT_CORE is 0"]
    assert after["key pages"][0] is True
    assert later == after


def test_a_measure_that_is_undone_is_noticed() -> None:
    (report,) = run(
        "harden()\npage.libc().prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE 1\nreport(check_measures())"
    )
    assert report["not dumpable"] == [False, "PR_GET_DUMPABLE gives 1"]


def test_a_core_file_limit_above_zero_is_noticed() -> None:
    limits = Path("/proc/self/limits").read_text(encoding="utf-8")
    hard_limit = next(line for line in limits.splitlines() if "core file" in line).split()[5]
    (report,) = run("report(check_measures())")
    assert report["no core file"][0] is (hard_limit == "0")


def test_an_unlocked_page_is_noticed() -> None:
    good, bad = run(
        "page._MEMFD_SECRET = 100_000  # no such call: the mlock kind, which can be unlocked\n"
        "key = KeyMemory.generate()\n"
        "report([check_key_pages()])\n"
        "held = key._place.page\n"
        "page.libc().munlock(ctypes.c_void_p(held.address), ctypes.c_size_t(held.size_bytes))\n"
        "report([check_key_pages()])"
    )
    assert good["key pages"] == [True, "1 pages locked: mlock"]
    assert bad["key pages"] == [False, "1 of 1 pages are not protected"]


def test_a_page_that_a_core_file_would_hold_is_noticed() -> None:
    (bad,) = run(
        "page._MEMFD_SECRET = 100_000\n"
        "key = KeyMemory.generate()\n"
        "key._place.page._map.madvise(17)  # MADV_DODUMP\n"
        "report([check_key_pages()])"
    )
    assert bad["key pages"][0] is False


def test_with_a_limit_the_key_pages_alone_are_locked() -> None:
    (report,) = run(
        "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))\n"
        "key = KeyMemory.generate()\n"
        "report(harden())"
    )
    assert report["memory locked"] == [
        True,
        "the key pages alone: RLIMIT_MEMLOCK is 65536 bytes",
    ]


UNLIMITED = """
from spike.memory.process import Measure, _ordinary_memory_is_locked
def tell(): report([Measure("whole", _ordinary_memory_is_locked(), "")])
tell()
try:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
except ValueError:  # the limit stays: lock by hand, which root may do and others may not
    if page.libc().mlockall(7) == 0:
        tell()
else:
    report(harden())
    tell()
probe = [bytearray(1 << 20) for _ in range(3)]
assert KeyMemory.generate(5000).size_bytes == 5000
"""


def test_locking_of_the_whole_process_is_read_back_from_the_kernel() -> None:
    before, *after = run(UNLIMITED)
    assert before["whole"][0] is False
    if not after:
        pytest.skip("this user may not lock a whole process")
    assert after[-1]["whole"][0] is True
    if len(after) == 2:
        assert after[0]["memory locked"] == [True, "the whole process"]
