"""What is asked of rotations: written into the keyring here, and carried out by the loop beside it."""

from __future__ import annotations

import secrets
from typing import Final

from spike.error import NotFoundError, SpikeError
from spike.lifecycle import preflight as rules_of_checks
from spike.lifecycle import rotation as rules
from spike.lifecycle.keyring import Emergency, Phase, Rotation, RotationKind, Scope
from spike.lifecycle.preflight import Check
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.rotation_plan import BEFORE_FLIP, Plan
from spike.nexus import preflight
from spike.nexus.performer import Point
from spike.nexus.rotation_end import change_with
from spike.nexus.rotation_loop import RotationLoop
from spike.nexus.rotation_view import Asked, RotationView, Started

WINDOW_S: Final = 24 * 60 * 60
ACTOR: Final = "nexus"
"""Who begins what nobody asked for by name."""


class RotationDesk:
    """All that is asked of the rotations of one vault."""

    def __init__(self, loop: RotationLoop, *, window_s: int = WINDOW_S) -> None:
        self._loop = loop
        self._keepers = loop.keepers
        self._vault = loop.keepers.vault
        self._window_s = window_s

    async def check(self, asked: Asked, actor: str) -> tuple[Check, ...]:
        """Run the checks before a rotation, and change nothing."""
        plan = self._plan(asked, actor)
        return await preflight.before(self._keepers, plan)

    async def start(self, asked: Asked, actor: str) -> Started:
        """Begin a rotation, or join the same one that runs.

        Raises:
            RefusalError: PREFLIGHT, ROTATION or BUSY; nothing was changed.
            StoreError: the store failed.
        """
        plan = self._plan(asked, actor)
        async with self._vault.lock:
            running = self._vault.opened.document.rotation
            if running is not None and _is_same(running, plan):
                return Started(running.id, started=False, checks=())
            async with self._loop.halted():
                if plan.emergency is not None:
                    await self._loop.drop("an emergency took its place")
                checks = await preflight.before(self._keepers, plan)
                rules_of_checks.require(checks)
                await self._loop.reserve(plan, checks)
        return Started(plan.id, started=True, checks=checks)

    async def begin(self, reason: str) -> str:
        """Begin a full rotation on behalf of Nexus, or join the one that runs; return its id.

        Raises:
            RefusalError, StoreError: as `start`. It is tried again by itself until it begins, or Nexus ends: behind a
                restore the Keepers get their shares only a moment later.
        """
        try:
            return await self.begin_due(Scope.FULL, reason)
        except SpikeError:
            self._loop.wanted = lambda: self.begin_due(Scope.FULL, reason)
            self._loop.wake()
            raise

    async def begin_due(self, scope: Scope, reason: str) -> str:
        """Begin a rotation that is due, on behalf of Nexus; return its id.

        Raises:
            RefusalError, StoreError: as `start`.
        """
        return (await self.start(Asked(scope, reason), ACTOR)).id

    async def hold(self, rest: bool) -> None:
        """Let re-encryption rest between windows, or go on, on behalf of Nexus."""
        await self._hold(ACTOR, paused=rest)

    async def rollback(self, reason: str, actor: str) -> Started:
        """Begin to go back to the keys before the rotation in its window, or join the rollback that runs.

        Raises:
            RefusalError: PREFLIGHT, ROTATION or BUSY; nothing was changed.
            StoreError: the store failed.
        """
        async with self._vault.lock:
            running = self._vault.opened.document.rotation
            if running is None:
                raise RefusalError(
                    Reason.ROTATION, "there is no rotation to roll back", "see spike key history"
                )
            if running.kind is RotationKind.ROLLBACK and running.phase is not Phase.FINALIZING:
                return Started(running.id, started=False, checks=())
            plan = Plan(
                id=secrets.token_hex(16),
                scope=running.scope,
                actor=actor,
                reason=reason,
                window_s=0,
                max_rate=running.max_rate,
                kind=RotationKind.ROLLBACK,
            )
            async with self._loop.halted():
                checks = await preflight.before(self._keepers, plan)
                rules_of_checks.require(checks)
                await self._loop.reserve(plan, checks)
        return Started(plan.id, started=True, checks=checks)

    async def abort(self, actor: str, reason: str) -> None:
        """End a rotation that has not come into force.

        Raises:
            RefusalError: ROTATION, there is none, or its keys are in force.
        """
        async with self._vault.lock, self._loop.halted():
            rotation = self._require()
            if rotation.phase not in BEFORE_FLIP:
                raise RefusalError(
                    Reason.ROTATION,
                    f"the keys of {rotation.kind} {rotation.id} are in force",
                    "roll it back (spike key rollback), or pause it (spike key pause)",
                )
            await self._loop.drop(f"aborted by {actor}{f': {reason}' if reason else ''}")

    async def pause(self, actor: str) -> None:
        """Let re-encryption rest, also over a restart, until it is resumed."""
        await self._hold(actor, paused=True)

    async def resume(self, actor: str) -> None:
        """Let re-encryption go on. Also tries at once what failed."""
        await self._hold(actor, paused=False)

    async def _hold(self, actor: str, *, paused: bool) -> None:
        async with self._vault.lock:
            self._require()
            at = self._vault.moment()
            await change_with(
                self._vault,
                self._loop.performer,
                Point.HELD,
                lambda document: rules.held(document, at, actor, paused=paused),
            )
        self._loop.wake()

    async def set_max_rate(self, rate: int, actor: str) -> None:
        """Let re-encryption go at most at so many records a second, 0: as its pace allows."""
        async with self._vault.lock:
            self._require()
            at = self._vault.moment()
            await change_with(
                self._vault,
                self._loop.performer,
                Point.PACED,
                lambda document: rules.paced(document, at, rate, actor),
            )

    async def finalize(self, actor: str) -> str:
        """End the rollback window now; return the rotation's id. What was replaced is then destroyed.

        Raises:
            RefusalError: ROTATION, nothing is verified, or it is being finalized already and this changes nothing.
        """
        async with self._vault.lock:
            rotation = self._require()
            if rotation.phase is not Phase.FINALIZING:
                await self._loop.begin_end(actor)
        self._loop.wake()
        return rotation.id

    async def exposure(self, asked: Asked) -> tuple[str, ...]:
        """Return what the key that leaked protected, since when, and what an emergency ends."""
        known = None if asked.emergency is None else self._leaks(asked.emergency)
        return await self._loop.exposure(known)

    def view(self) -> RotationView | None:
        """Return how the rotation in progress is, else the last one that ended since Nexus has started."""
        return self._loop.view()

    @property
    def is_busy(self) -> bool:
        """Whether a step of a rotation, or what follows one, is under way."""
        return self._loop.is_busy

    def _plan(self, asked: Asked, actor: str) -> Plan:
        is_urgent = asked.emergency is not None
        window_s = self._window_s if asked.window_s is None else asked.window_s
        return Plan(
            id=secrets.token_hex(16),
            scope=asked.scope,
            actor=actor,
            reason=asked.reason,
            window_s=0 if is_urgent else window_s,
            max_rate=asked.max_rate,
            emergency=None if asked.emergency is None else self._leaks(asked.emergency),
            left_out=self._indexes(asked.without),
            without_keepers=asked.without_keepers,
            forced=asked.force,
        )

    def _leaks(self, told: Emergency) -> Emergency:
        """Return what leaked, each Keeper by its index.

        Raises:
            NotFoundError: there is no such slot or Keeper.
        """
        document = self._vault.opened.document
        known = []
        for each in told.leaked:
            kind, _, name = each.partition(":")
            if kind == "slot" and document.slot_named(name) is None:
                raise NotFoundError(f"there is no slot {name!r}", "see spike status")
            if each == "shards" and document.shard_slot is None:
                raise NotFoundError("there are no recovery shards", "see spike status")
            known.append(f"keeper:{self._indexes((name,))[0]}" if kind == "keeper" else each)
        return Emergency(leaked=tuple(dict.fromkeys(known)))

    def _indexes(self, names: tuple[str, ...]) -> tuple[int, ...]:
        """Return the indexes of Keepers that are named by index, `Keeper N` or identity.

        Raises:
            NotFoundError: there is no such Keeper.
        """
        found = []
        for name in names:
            links = [
                link
                for link in self._keepers.links
                if name in (str(link.index), link.name, str(link.peer.identity or ""))
            ]
            if not links:
                raise NotFoundError(f"there is no Keeper {name!r}", "see spike keeper status")
            found.append(links[0].index)
        return tuple(sorted(set(found)))

    def _require(self) -> Rotation:
        rotation = self._vault.opened.document.rotation
        if rotation is None:
            raise RefusalError(
                Reason.ROTATION, "no rotation is in progress", "see spike key history"
            )
        return rotation


def _is_same(running: Rotation, plan: Plan) -> bool:
    """Tell whether a rotation that is asked for is the one that runs."""
    return (
        running.is_blocking
        and running.kind is plan.kind
        and running.scope is plan.scope
        and running.emergency == plan.emergency
    )
