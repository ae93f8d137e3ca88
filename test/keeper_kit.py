"""A real Keeper in one process with the test: real TLS on loopback, real rules, identities from a test's authority.

async with running_keeper(ca) as keeper:
    status, body = await keeper.call(NEXUS, "/v1/store/shard", {})
    answer = await keeper.client().ask(STATUS, KeeperStatusRequest(bytes(32)))
"""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from server_kit import Client, connect, hang_up
from spiffe_kit import Ca, material
from spike.client.keeper import KeeperClient
from spike.client.setting import Address
from spike.keeper.holding import Holding
from spike.keeper.safe import Safe
from spike.keeper.service import server_of
from spike.memory.key_memory import KeyMemory
from spike.policy.role import RoleMap
from spike.server.server import Server
from spike.spiffe.id import SpiffeId
from spike.spiffe.peer import any_peer
from spike.spiffe.source import HeldSource
from spike.spiffe.tls import client_context

KEEPER = "spiffe://spike.ist/spike/keeper/one"
NEXUS = "spiffe://spike.ist/spike/nexus"
BOOTSTRAP = "spiffe://spike.ist/spike/bootstrap"
DEADLINE_S = 10.0

Accept = Callable[[SpiffeId], bool]


@dataclass
class RunningKeeper:
    """One Keeper on loopback. `state` is what it holds now."""

    ca: Ca
    spiffe_id: str
    server: Server
    safe: Safe
    _contexts: dict[str, ssl.SSLContext] = field(default_factory=dict)

    @property
    def port(self) -> int:
        return self.server.port

    @property
    def address(self) -> Address:
        return Address("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return str(self.address)

    @property
    def state(self) -> Holding[KeyMemory]:
        return self.safe.holding

    def source_of(self, spiffe_id: str) -> HeldSource:
        """Return a source with an SVID of this ID, from the Keeper's authority."""
        return HeldSource(material(self.ca.svid(spiffe_id), self.ca))

    def context_of(self, spiffe_id: str) -> ssl.SSLContext:
        """Return a client context with an SVID of this ID, which speaks to anybody."""
        if spiffe_id not in self._contexts:
            self._contexts[spiffe_id] = client_context(self.source_of(spiffe_id), any_peer)
        return self._contexts[spiffe_id]

    def client(
        self, spiffe_id: str = NEXUS, accept: Accept | None = None, deadline_s: float = DEADLINE_S
    ) -> KeeperClient:
        """Return SPIKE's own client of this Keeper; it accepts the Keeper's ID and no other."""
        wanted = accept or (lambda peer: str(peer) == self.spiffe_id)
        return KeeperClient(self.address, self.source_of(spiffe_id), wanted, deadline_s)

    async def call(
        self, spiffe_id: str, target: str, message: object = None, *, raw: bytes | None = None
    ) -> tuple[int, Any]:
        """POST a message (or raw bytes) over a connection of its own; return status and parsed body."""
        body = raw if raw is not None else json.dumps({} if message is None else message).encode()
        async with self.connection(spiffe_id) as client:
            answer = await client.ask(target, body)
        return answer.status, json.loads(answer.body)

    @contextlib.asynccontextmanager
    async def connection(self, spiffe_id: str) -> AsyncIterator[Client]:
        """Connect as this identity, to send whatever bytes a test wants."""
        client = await connect(self.port, self.context_of(spiffe_id))
        try:
            yield client
        finally:
            await hang_up(client)


@contextlib.asynccontextmanager
async def running_keeper(
    ca: Ca, spiffe_id: str = KEEPER, *, port: int = 0
) -> AsyncIterator[RunningKeeper]:
    """Run a Keeper until the end of the block; what it held is wiped then. `port` 0 takes a free one."""
    safe = Safe()
    source = HeldSource(material(ca.svid(spiffe_id), ca))
    server = server_of(safe, source, RoleMap.from_settings({}), "127.0.0.1", port)
    await server.start()
    try:
        yield RunningKeeper(ca, spiffe_id, server, safe)
    finally:
        await server.drain(DEADLINE_S)
        safe.wipe()
