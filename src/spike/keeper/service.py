"""A Keeper as a whole: everything it is made of is made here, in order, and taken down in the reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from spike.keeper.access import accepting
from spike.keeper.call import running_version
from spike.keeper.dispatch import Dispatcher
from spike.keeper.safe import Safe
from spike.keeper.setting import KeeperSetting
from spike.memory.key_memory import KEY_BYTES, KeyMemory
from spike.memory.process import harden
from spike.policy.role import Role, RoleMap
from spike.server.limit import Limits
from spike.server.program import require_measures, require_role
from spike.server.server import Server
from spike.spiffe.source import MaterialSource
from spike.spiffe.tls import server_context
from spike.spiffe.workload_source import X509Source

_log = logging.getLogger("spike.keeper.service")

# Its callers are few Nexus, one connection a call, a call every few seconds. Who has no identity at all can only take
# up handshakes: these go fast under pressure, so that a Nexus gets in within its deadline.
LIMITS: Final = Limits(
    max_connections=64,
    max_connections_per_identity=32,
    max_handshakes=512,
    handshake_pressure_s=0.25,
)
_DRAIN_S: Final = 5.0


async def serve(setting: KeeperSetting, stop: asyncio.Event) -> None:
    """Hold a share until `stop` is set; then what is held is wiped.

    Raises:
        SettingError, WorkloadApiError: it cannot start.
    """
    # Whether a page can be locked at all is seen now, not when the first share comes.
    with KeyMemory.allocate(KEY_BYTES):
        measures = harden()
    require_measures(measures, strict=setting.strict_memory)
    for measure in measures:
        if not measure.applied:
            _log.warning("not in force: %s (%s)", measure.name, measure.detail)
    async with contextlib.AsyncExitStack() as stack:
        safe = Safe()
        stack.callback(safe.wipe)
        source = await X509Source.open(setting.endpoint or None, setting.source_timeout_s)
        stack.push_async_callback(source.close)
        require_role(source.material.svid.id, setting.roles, Role.KEEPER)
        server = server_of(safe, source, setting.roles, setting.host, setting.port)
        await server.start()
        stack.push_async_callback(server.drain, _DRAIN_S)
        _log.warning(
            "listening on port %d as %s, version %s, holding nothing",
            server.port,
            source.material.svid.id,
            running_version(),
        )
        await stop.wait()


def server_of(safe: Safe, source: MaterialSource, roles: RoleMap, host: str, port: int) -> Server:
    """Return the server of a Keeper: its handshake lets in only who may make a call."""
    return Server(
        Dispatcher(safe, roles).handle,
        server_context(source, accepting(roles)),
        host,
        port,
        trust=source.still_trusts,
        limits=LIMITS,
    )
