"""The scheduler: begins a rotation when a key is due, and lets its re-encryption rest between windows.

It decides nothing itself (spike.lifecycle.due and spike.lifecycle.schedule do) and holds nothing that a restart would
lose. It sleeps a minute at most, so that a clock that was changed is noticed. A rotation that a person began is left
alone, and so is an emergency. What a person paused is not resumed, and what a person resumed is not paused again
before the next window has opened.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from spike.error import SpikeError
from spike.lifecycle import schedule as windows
from spike.lifecycle.keyring import Phase, Rotation, Scope
from spike.nexus.recent_event import recent_events
from spike.nexus.schedule_look import Look, look
from spike.nexus.usage_book import UsageBook
from spike.nexus.vault import Vault

ACTOR: Final = "nexus"
"""Who begins, pauses and resumes a rotation on behalf of the schedule."""
REASON_PREFIX: Final = "schedule: "
"""What the reason of a rotation begins with that the schedule began."""
LONGEST_SLEEP_S: Final = 60.0
_RETRY: Final = timedelta(minutes=15)
_log = logging.getLogger("spike.nexus.scheduler")

Begin = Callable[[Scope, str], Awaitable[str]]
"""Begins a rotation as ACTOR, for a reason, and returns its id; raises SpikeError where it cannot begin."""
Hold = Callable[[bool], Awaitable[None]]
"""Pauses (True) or resumes (False) the re-encryption in progress as ACTOR."""
Sleep = Callable[[float], Awaitable[None]]


class Scheduler:
    """Keeps one vault's keys to their schedule."""

    def __init__(
        self,
        vault: Vault,
        usage: UsageBook,
        begin: Begin,
        hold: Hold,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._vault = vault
        self._usage = usage
        self._begin = begin
        self._hold = hold
        self._sleep = sleep
        self._told: frozenset[str] = frozenset()
        # The rotation and whether it is to rest, as last acted on: so that a person has the last word in between.
        self._acted: tuple[str, bool] | None = None
        self._not_before: datetime | None = None
        self.fault = ""
        """Why the last rotation that was due could not begin; empty when it could."""

    async def run(self) -> None:
        """Go on until cancelled."""
        while True:
            sleep_s = LONGEST_SLEEP_S
            try:
                sleep_s = await self.tick()
            except SpikeError as error:
                _log.error("the schedule is looked at again later: %s", error.message)
            except Exception:  # noqa: BLE001  a loop that ends would be missed by nobody
                _log.exception("the scheduler met a fault; it goes on")
            await self._sleep(sleep_s)

    async def tick(self) -> float:
        """Do what is due; return after how many seconds to look again, 1 to 60.

        Raises:
            SpikeError: the store failed, or re-encryption could not be paused or resumed.
        """
        if not self._vault.is_open:
            return LONGEST_SLEEP_S
        seen = await look(self._vault, self._usage)
        self._tell(seen.alerts)
        if seen.zone is None or seen.belief.fault:
            return LONGEST_SLEEP_S
        if seen.document.rotation is not None:
            await self._hold_to_windows(seen.document.rotation, seen)
        elif seen.document.operation is None:
            await self._begin_due(seen)
        return _until_next(seen)

    def _tell(self, alerts: tuple[str, ...]) -> None:
        for alert in alerts:
            if alert.split(":")[0] not in self._told:
                _log.warning("schedule: %s", alert)
        # Without what changes from day to day in it.
        self._told = frozenset(alert.split(":")[0] for alert in alerts)

    async def _begin_due(self, seen: Look) -> None:
        planned = seen.planned
        if planned is None or planned.begins_at > seen.now:
            self.fault = ""
            return
        if self._not_before is not None and seen.now < self._not_before:
            return
        try:
            rotation_id = await self._begin(planned.scope, f"{REASON_PREFIX}{planned.why}")
        except SpikeError as error:
            self._not_before = seen.now + _RETRY
            self.fault = f"the {planned.scope} rotation that is due cannot begin: {error.message}"
            _log.error("%s; tried again in %s", self.fault, _RETRY)
        else:
            self._not_before, self.fault = None, ""
            _log.warning("rotation %s (%s) has begun: %s", rotation_id, planned.scope, planned.why)

    async def _hold_to_windows(self, rotation: Rotation, seen: Look) -> None:
        """Let re-encryption rest from the end of a window to the next one. What comes before it is finished."""
        if (
            rotation.phase is not Phase.RE_ENCRYPTING
            or rotation.emergency is not None
            or not rotation.reason.startswith(REASON_PREFIX)
            or seen.zone is None
        ):
            return
        rest = not windows.is_open(seen.schedule, seen.zone, seen.now)
        if self._acted == (rotation.id, rest):
            return
        if rest and not rotation.paused:
            await self._hold(True)
            _log.warning("the window has ended: rotation %s rests until the next one", rotation.id)
        elif not rest and rotation.paused and await self._has_paused(rotation.id):
            await self._hold(False)
            _log.warning("a window has opened: rotation %s goes on", rotation.id)
        self._acted = (rotation.id, rest)

    async def _has_paused(self, rotation_id: str) -> bool:
        """Tell whether the schedule and no person paused a rotation last."""
        async for event in recent_events(self._vault.opened):
            if event.kind == "rotation-paused" and event.detail.get("id") == rotation_id:
                return event.actor == ACTOR
        return False


def _until_next(seen: Look) -> float:
    moments = [] if seen.zone is None else [windows.next_edge(seen.schedule, seen.zone, seen.now)]
    if seen.planned is not None:
        moments.append(seen.planned.begins_at)
    waits = [(at - seen.now).total_seconds() for at in moments if at is not None and at > seen.now]
    return max(1.0, min([LONGEST_SLEEP_S, *waits]))
