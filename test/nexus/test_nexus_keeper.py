"""A Nexus and its Keepers: real ones on loopback, each step taken by the test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from keeper_kit import RunningKeeper, running_keeper
from nexus_kit import SUPERUSER, RunningNexus, running
from spiffe_kit import Ca
from spike.lifecycle.supply import KeeperState
from spike.nexus.keeper_recovery import recover
from spike.nexus.keeper_setting import KeeperSetting, parse_peers

PASSWORD = b"the password of a test, no secret"
SECRETS = "/v1/store/secrets"


def keeper_id(index: int) -> str:
    return f"spiffe://spike.ist/spike/keeper/{index}"


@dataclass
class Around:
    """An authority, Keepers, and where a store lies; a Nexus on it comes and goes."""

    ca: Ca
    directory: Path
    keepers: dict[int, RunningKeeper]
    stacks: dict[int, contextlib.AsyncExitStack]
    threshold: int

    @property
    def setting(self) -> KeeperSetting:
        peers = ",".join(
            f"{self.keepers[index].url}#{keeper_id(index)}" for index in sorted(self.keepers)
        )
        return KeeperSetting(parse_peers(peers), len(self.keepers), self.threshold, 0.05)

    async def start(self, index: int, port: int = 0) -> None:
        stack = contextlib.AsyncExitStack()
        keeper = running_keeper(self.ca, keeper_id(index), port=port)
        self.keepers[index] = await stack.enter_async_context(keeper)
        self.stacks[index] = stack

    async def stop(self, index: int) -> None:
        await self.stacks.pop(index).aclose()

    async def restart(self, index: int) -> None:
        await self.stop(index)
        await self.start(index, self.keepers[index].port)

    def nexus(
        self, *, born: bool = False, unattended: bool = False
    ) -> contextlib.AbstractAsyncContextManager[RunningNexus]:
        return running(
            self.directory / "data",
            place=self.directory / "place",
            ca=self.ca,
            born=born,
            password=PASSWORD if born else None,
            keepers=self.setting,
            unattended=unattended,
        )


@contextlib.asynccontextmanager
async def surroundings(directory: Path, count: int, threshold: int) -> AsyncIterator[Around]:
    around = Around(Ca("spike.ist"), directory, {}, {}, threshold)
    try:
        for index in range(1, count + 1):
            await around.start(index)
        yield around
    finally:
        for index in tuple(around.stacks):
            await around.stop(index)


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    async with surroundings(tmp_path, 3, 2) as made:
        yield made


def states(nexus: RunningNexus) -> list[KeeperState]:
    return [view.state for view in nexus.keepers.views]


async def put(nexus: RunningNexus, path: str) -> None:
    status, told = await nexus.call(SUPERUSER, SECRETS, {"path": path, "values": {"k": path}})
    assert status == 200, told


async def value(nexus: RunningNexus, path: str) -> str:
    status, told = await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": path})
    assert status == 200, told
    return str(told["data"]["k"])


async def test_a_nexus_that_lost_its_memory_gets_the_root_key_back(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        assert states(nexus) == [KeeperState.CURRENT] * 3
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "a") == "a"
        await put(nexus, "b")
        await nexus.keepers.look()
        assert states(nexus) == [KeeperState.CURRENT] * 3


async def test_an_empty_keeper_is_given_its_share_again(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        before = around.keepers[2].state.committed
        await around.restart(2)
        assert around.keepers[2].state.committed is None
        await nexus.keepers.look()
        after = around.keepers[2].state.committed
        assert states(nexus) == [KeeperState.CURRENT] * 3
        assert before is not None
        assert after is not None
        assert before.label == after.label
