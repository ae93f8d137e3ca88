"""The engines the suite runs on: those SPIKE ships, or the one named by SPIKE_STORE.

The suite knows an engine only by its name, so whoever ships one runs it with
`SPIKE_STORE=name pytest test/storage/conformance`, their package being installed beside SPIKE.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from spike.storage.protocol import Store
from spike.storage.registry import open_store
from storage.conformance.engine import ENGINES


@dataclass(frozen=True, slots=True)
class Place:
    """One engine and one empty directory; each `open` opens the same store."""

    engine: str
    directory: Path

    async def open(self) -> Store:
        return await open_store(self.engine, self.directory)


@pytest.fixture(params=ENGINES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(request.param, tmp_path / "store")


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    opened = await place.open()
    yield opened
    await opened.close()
