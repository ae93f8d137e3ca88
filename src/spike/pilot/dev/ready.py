"""How `spike dev` knows that a part does its work: by its answer, and by who it is."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from spike.client.control import ControlClient, Status, StatusRequest
from spike.error import SpikeError
from spike.pilot.dev.keeper import KeeperSite
from spike.pilot.dev.machine import HOST
from spike.pilot.dev.place import DevPlace
from spike.spiffe.tls import client_context
from spike.spiffe.workload_source import X509Source

_LOOK_AGAIN_S: Final = 0.05
_SOURCE_LIMIT_S: Final = 5.0
# Whoever else has taken the port may keep silent.
_HANDSHAKE_LIMIT_S: Final = 2.0


async def authority_answers(place: DevPlace) -> None:
    """Return once Authority answers on its control socket."""

    def ask() -> None:
        with ControlClient.connect(place.control_socket) as control:
            control.call(StatusRequest(), Status)

    while True:
        try:
            await asyncio.to_thread(ask)
        except SpikeError:
            await asyncio.sleep(_LOOK_AGAIN_S)
        else:
            return


async def keeper_answers(place: DevPlace, site: KeeperSite) -> None:
    """Return once this very Keeper takes connections; somebody else at its port does not count."""
    while True:
        try:
            await _connect(site)
            await _shake_hands(place, site)
        except (OSError, SpikeError):
            await asyncio.sleep(_LOOK_AGAIN_S)
        else:
            return


async def _connect(site: KeeperSite) -> None:
    _, writer = await asyncio.open_connection(HOST, site.port)
    await _hang_up(writer)


async def _shake_hands(place: DevPlace, site: KeeperSite) -> None:
    """See who it is. It turns us away afterwards, because we are not Nexus."""
    source = await X509Source.open(f"unix://{place.workload_socket}", _SOURCE_LIMIT_S)
    try:
        context = client_context(source, lambda found: str(found) == site.spiffe_id)
        async with asyncio.timeout(_HANDSHAKE_LIMIT_S):
            _, writer = await asyncio.open_connection(
                HOST, site.port, ssl=context, server_hostname=""
            )
        await _hang_up(writer)
    finally:
        await source.close()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
