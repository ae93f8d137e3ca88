"""Strict mode: without every memory protection in force Nexus does not start."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from process_kit import BIN
from spike.error import SettingError
from spike.memory.process import Measure
from spike.server.program import require_measures

MISSING = Measure("key pages", False, "1 of 2 pages are not protected")
PRESENT = Measure("no core file", True, "RLIMIT_CORE is 0")


def test_strict_mode_names_each_protection_that_is_missing() -> None:
    with pytest.raises(SettingError, match="key pages") as caught:
        require_measures((PRESENT, MISSING), strict=True)
    assert "no core file" not in caught.value.message
    assert "SPIKE_MEMORY_STRICT" in caught.value.next_step


def test_without_strict_mode_or_with_all_protections_it_goes_on() -> None:
    require_measures((PRESENT, MISSING), strict=False)
    require_measures((PRESENT,), strict=True)


@pytest.mark.ordinary
def test_the_program_refuses_to_start_where_no_page_can_be_locked(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(BIN / "spike-nexus")],
        env={"HOME": str(tmp_path), "SPIKE_MEMORY_STRICT": "true"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "lock" in done.stderr
