"""Keepers around a Nexus, all real and on loopback; any of them may be made to lie.

async with surroundings(tmp_path, 3, 2) as around:
    async with around.nexus(born=True) as nexus: ...
    around.lies[2] = another_proof
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nexus_kit import SUPERUSER, RunningNexus, running
from spiffe_kit import Ca, material
from spike.keeper.access import accepting
from spike.keeper.dispatch import Dispatcher
from spike.keeper.safe import Safe
from spike.keeper.service import LIMITS
from spike.lifecycle.supply import KeeperState
from spike.nexus.keeper_setting import KeeperSetting, parse_peers
from spike.policy.role import RoleMap
from spike.server.query import action_untrusted
from spike.server.request import Request
from spike.server.response import Response
from spike.server.server import Server
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import server_context

PASSWORD = b"the password of a test, no secret"
SECRETS = "/v1/store/secrets"

Told = dict[str, Any]
Lie = Callable[[str, Told], Told | Awaitable[Told]]
"""Given the action and the true answer, returns what is answered instead."""


def keeper_id(index: int) -> str:
    return f"spiffe://spike.ist/spike/keeper/{index}"


@dataclass
class KeeperHere:
    """One Keeper: what it holds and where it listens."""

    safe: Safe
    server: Server

    @property
    def committed_set(self) -> str | None:
        committed = self.safe.holding.committed
        return None if committed is None else committed.label.set_id

    @property
    def staged_set(self) -> str | None:
        staged = self.safe.holding.staged
        return None if staged is None else staged.label.set_id


@dataclass
class Around:
    """An authority, Keepers, and where a store lies; a Nexus on it comes and goes."""

    ca: Ca
    directory: Path
    threshold: int
    keepers: dict[int, KeeperHere] = field(default_factory=dict)
    lies: dict[int, Lie] = field(default_factory=dict)
    calls: list[tuple[int, str]] = field(default_factory=list)
    """Every call that came to a Keeper: its index and the action."""
    before: Callable[[int, str], Awaitable[None]] | None = None
    """Awaited before each call is answered."""

    @property
    def setting(self) -> KeeperSetting:
        return self.setting_of(*sorted(self.keepers))

    async def start(self, index: int, port: int = 0, identity: str = "") -> None:
        """Start a Keeper that holds nothing; as anybody else if an identity is given."""
        safe, roles = Safe(), RoleMap.from_settings({})
        source = HeldSource(material(self.ca.svid(identity or keeper_id(index)), self.ca))
        dispatcher = Dispatcher(safe, roles)

        async def handle(request: Request) -> Response:
            action = action_untrusted(request.query)
            self.calls.append((index, action))
            if self.before is not None:
                await self.before(index, action)
            answer = await dispatcher.handle(request)
            lie = self.lies.get(index)
            return answer if lie is None else await _told(lie, action, answer)

        server = Server(
            handle,
            server_context(source, accepting(roles)),
            "127.0.0.1",
            port,
            trust=source.still_trusts,
            limits=LIMITS,
        )
        await server.start()
        self.keepers[index] = KeeperHere(safe, server)

    async def stop(self, index: int) -> None:
        """End a Keeper; what it held is gone. Its address stays known."""
        keeper = self.keepers[index]
        await keeper.server.drain(0.0)
        keeper.safe.wipe()

    async def restart(self, index: int) -> None:
        await self.stop(index)
        await self.start(index, self.keepers[index].server.port)

    def setting_of(self, *indexes: int, threshold: int = 0) -> KeeperSetting:
        """Return an environment that names these Keepers, in this order, with the threshold or another one."""
        peers = ",".join(
            f"https://127.0.0.1:{self.keepers[index].server.port}#{keeper_id(index)}"
            for index in indexes
        )
        return KeeperSetting(parse_peers(peers), len(indexes), threshold or self.threshold, 0.05)

    def nexus(
        self,
        *,
        born: bool = False,
        unattended: bool = False,
        place: bool = True,
        setting: KeeperSetting | None = None,
    ) -> contextlib.AbstractAsyncContextManager[RunningNexus]:
        """Run a Nexus with these Keepers, or as a setting names them, on the store in `data`."""
        return running(
            self.directory / "data",
            place=self.directory / "place" if place else None,
            ca=self.ca,
            born=born,
            password=PASSWORD if born else None,
            keepers=self.setting if setting is None else setting,
            unattended=unattended,
        )


async def _told(lie: Lie, action: str, answer: Response) -> Response:
    told = lie(action, json.loads(answer.body))
    if isinstance(told, Awaitable):
        told = await told
    return answer._replace(body=json.dumps(told).encode())


@contextlib.asynccontextmanager
async def surroundings(directory: Path, count: int, threshold: int) -> AsyncIterator[Around]:
    """Run Keepers until the end of the block."""
    around = Around(Ca("spike.ist"), directory, threshold)
    try:
        for index in range(1, count + 1):
            await around.start(index)
        yield around
    finally:
        for index in around.keepers:
            await around.stop(index)


def states(nexus: RunningNexus) -> list[KeeperState]:
    """Return how each Keeper was found to be."""
    return [view.state for view in nexus.keepers.views]


async def put(nexus: RunningNexus, path: str) -> None:
    """Write a secret whose value is its path."""
    status, told = await nexus.call(SUPERUSER, SECRETS, {"path": path, "values": {"k": path}})
    assert status == 200, told


async def value(nexus: RunningNexus, path: str) -> str:
    """Read it."""
    status, told = await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": path})
    assert status == 200, told
    return str(told["data"]["k"])


async def eventually(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until something holds; fail when it never does."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0.01)
