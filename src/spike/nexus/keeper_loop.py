"""The loop that never gives up on a Keeper, nor on getting the root key back from them.

While the vault is locked it tries to recover, with growing pauses; while it is open it looks at every Keeper each few
seconds, and at once when keys or rights have changed. What other work waits for a moment to be done again is done
here, too: a keyring whose answer was lost, events that are not in the history yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from spike.error import SpikeError
from spike.lifecycle.refresh import is_in_progress, set_in_force
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_recovery import fetch_anew, recover
from spike.nexus.keeper_refresh import drop, refresh
from spike.nexus.vault import Stop

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
# Looks that a change calls for are not closer together than this.
_LEAST_PAUSE_S: Final = 0.1
_ACTOR: Final = "nexus"
_log = logging.getLogger("spike.nexus.keeper")


class KeeperLoop:
    """Runs the Keepers' desk of one vault."""

    def __init__(self, desk: KeeperDesk) -> None:
        self._desk = desk
        self._pause_s = FIRST_PAUSE_S

    async def run(self) -> None:
        """Go on until cancelled."""
        changed = self._desk.vault.changed
        while True:
            changed.clear()
            try:
                await self._turn()
            except SpikeError as error:
                _log.error("the Keepers are looked at again later: %s", error.message)
            except Exception:  # noqa: BLE001  a loop that ends would be missed by nobody
                _log.exception("the loop over the Keepers failed; it goes on")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), self._pause())
                await asyncio.sleep(_LEAST_PAUSE_S)

    def _pause(self) -> float:
        if self._desk.vault.is_open:
            self._pause_s = FIRST_PAUSE_S
            return self._desk.setting.interval_s
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, 2 * self._pause_s)
        return pause_s

    async def _turn(self) -> None:
        """Do once what is due."""
        desk, vault = self._desk, self._desk.vault
        if not vault.is_open and not await recover(desk):
            return
        await vault.settle()
        if vault.opened.document.outbox:
            await vault.drain()
        if not desk.links:
            return
        if Stop.WRONG_KEY in vault.stops:
            await fetch_anew(desk)
        async with vault.lock:
            await drop(desk)
        try:
            await self._ensure_set()
        except SpikeError as error:
            _log.error("the Keepers have no new shares yet: %s", error.message)
        await desk.look()

    async def _ensure_set(self) -> None:
        """See that Nexus knows the set in force: after a restore it does not, and deals a new one."""
        desk = self._desk
        in_force = set_in_force(desk.vault.opened.document)
        known = desk.held is not None and in_force is not None and desk.held.set_id == in_force.id
        if known or is_in_progress(desk.vault.opened.document):
            return
        opened = await refresh(desk, _ACTOR, least=desk.setting.threshold)
        _log.warning("the Keepers have new shares since epoch %d", opened.document.epoch)
