"""The loop that never gives up on a Keeper, nor on getting the root key back from them.

While the vault is locked it tries to recover, with growing pauses; while it is open it looks at every Keeper each few
seconds, and at once when keys or rights have changed. What other work waits for a moment to be done again is done
here, too: a keyring whose answer was lost, events that are not in the history yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable
from typing import Final

from spike.error import SpikeError
from spike.lifecycle.refresh import set_in_force
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.keeper_recovery import fetch_anew, recover
from spike.nexus.keeper_refresh import drop, refresh
from spike.nexus.keeper_reshape import take_leave
from spike.nexus.opened import Stop

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
        # A refresh that fails is tried again with growing pauses: each try writes to the store.
        self._refresh_pause_s = FIRST_PAUSE_S
        self._no_refresh_before_s = 0.0
        self._leave_pause_s = FIRST_PAUSE_S
        self._no_leave_before_s = 0.0

    async def run(self) -> None:
        """Go on until cancelled."""
        changed = self._desk.vault.changed
        while True:
            changed.clear()
            await self._turn()
            # Not wait_for(): in Python 3.11 it loses a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await changed.wait()
                await asyncio.sleep(_LEAST_PAUSE_S)

    def _pause(self) -> float:
        if self._desk.vault.is_open:
            self._pause_s = FIRST_PAUSE_S
            return self._desk.roster.setting.interval_s
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, 2 * self._pause_s)
        return pause_s

    async def _turn(self) -> None:
        """Do once what is due; what fails keeps nothing else from being done."""
        if not self._desk.vault.is_open:
            await self._try(recover(self._desk))
        if not self._desk.vault.is_open:
            return
        await self._try(self._desk.vault.settle())
        await self._try(self._mend())
        await self._try(self._end_refresh())
        await self._try(self._desk.vault.drain())
        if self._desk.links:
            await self._try(self._ensure_set())
        await self._try(self._desk.look())
        await self._try(self._take_leave())

    async def _try(self, work: Awaitable[object]) -> None:
        try:
            await work
        except SpikeError as error:
            _log.error("tried again later: %s", error.message)
        except Exception:  # noqa: BLE001  a loop that ends would be missed by nobody
            _log.exception("the loop over the Keepers met a fault; it goes on")

    async def _mend(self) -> None:
        """Fetch the keys again if one in memory is not what it was."""
        if self._desk.links and Stop.WRONG_KEY in self._desk.vault.stops:
            await fetch_anew(self._desk)

    async def _end_refresh(self) -> None:
        """End a refresh that was killed, or whose store failed, also where the Keepers are no longer configured."""
        async with self._desk.vault.lock:
            await drop(self._desk)

    async def _take_leave(self) -> None:
        """Let Keepers that are no members any more erase their shares, with growing pauses: one may never come back."""
        if not self._desk.vault.opened.document.leaving:
            self._leave_pause_s, self._no_leave_before_s = FIRST_PAUSE_S, 0.0
        elif time.monotonic() >= self._no_leave_before_s:
            self._no_leave_before_s = time.monotonic() + self._leave_pause_s
            self._leave_pause_s = min(LONGEST_PAUSE_S, 2 * self._leave_pause_s)
            await take_leave(self._desk)

    async def _ensure_set(self) -> None:
        """See that Nexus knows the set in force: after a restore it does not, and deals a new one."""
        desk = self._desk
        in_force = set_in_force(desk.vault.opened.document)
        known = desk.held is not None and in_force is not None and desk.held.set_id == in_force.id
        if known or time.monotonic() < self._no_refresh_before_s:
            return
        pause_s = self._refresh_pause_s
        self._no_refresh_before_s = time.monotonic() + pause_s
        self._refresh_pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        opened = await refresh(desk, _ACTOR, least=desk.threshold)
        self._refresh_pause_s, self._no_refresh_before_s = FIRST_PAUSE_S, 0.0
        _log.warning("the Keepers have new shares since epoch %d", opened.document.epoch)
