"""What many tests of Nexus begin with."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from nexus_kit import RunningNexus, running


@pytest.fixture(params=["memory", "sqlite"])
async def nexus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RunningNexus]:
    """A Nexus with a root key on each engine that is shipped, the one after the other."""
    directory = None
    if request.param == "sqlite":
        directory = tmp_path / "store"
        directory.mkdir(mode=0o700)
    async with running(directory) as started:
        yield started
