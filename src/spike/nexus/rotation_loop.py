"""The loop that carries rotations out.

The keyring says how far a rotation is; the loop looks there, does the next step, and looks again. So it goes on after
a restart as if nothing had been. Who wants something else meanwhile halts it, changes the keyring, and lets it look.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Final

from spike.error import SpikeError
from spike.lifecycle import rotation as rules
from spike.lifecycle.exposure import exposure
from spike.lifecycle.keyring import Emergency, Phase, Rotation
from spike.lifecycle.preflight import Check, moment_of
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.rotation_plan import BEFORE_FLIP, Plan, plan_of
from spike.nexus import preflight
from spike.nexus.interruption import unless
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.opened import Stop
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.performer import Performer, Point
from spike.nexus.rotation_end import change_with
from spike.nexus.rotation_preparation import Preparation, remove_pending
from spike.nexus.rotation_told import view_of
from spike.nexus.rotation_view import RotationView
from spike.nexus.rotation_work import Work
from spike.storage.protocol import KEYRING

ATTEMPT_LIMIT: Final = 5
"""So often is a planned rotation begun again that was interrupted before its flip."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
_IDLE_S: Final = 60.0
_UNSURE_S: Final = 0.2
_WANTED_S: Final = 5.0
_log: Final = logging.getLogger("spike.nexus.rotation")


class RotationLoop:
    """Carries out the rotations of one vault, one step at a time."""

    def __init__(
        self, keepers: KeeperDesk, passwords: PasswordDesk, performer: Performer | None = None
    ) -> None:
        self.keepers = keepers
        self.performer = performer or Performer()
        self._vault = keepers.vault
        self._passwords = passwords
        self._preparation: Preparation | None = None
        self._work = Work(self._vault, self.performer, self._wipe_later)
        self._formers: list[KeyRing] = []
        self._wake = asyncio.Event()
        self._interrupt, self._halting = asyncio.Event(), 0
        self._step_lock = asyncio.Lock()
        self._pause_s = FIRST_PAUSE_S
        self._fault = ""
        self._over: RotationView | None = None
        self._ending: Rotation | None = None
        self._is_tidy = False
        self.wanted: Callable[[], Awaitable[object]] | None = None
        """Begins a rotation that is due and could not begin yet."""
        self._vault.on_new_state.append(self._look_anew)

    def _look_anew(self) -> None:
        """The vault was opened, or closed, perhaps for another store: nothing seen of the one before is true of it."""
        self._ending, self._is_tidy = None, False
        self._wake.set()

    def wake(self) -> None:
        """Let the loop look at the keyring now, and try at once what failed."""
        self._pause_s = FIRST_PAUSE_S
        self._wake.set()

    @property
    def is_busy(self) -> bool:
        """Whether a step is under way."""
        return self._step_lock.locked()

    @contextlib.asynccontextmanager
    async def halted(self) -> AsyncIterator[None]:
        """Interrupt the step under way, and let none begin meanwhile."""
        self._halting += 1
        self._interrupt.set()
        try:
            async with self._step_lock:
                yield
        finally:
            # Also where it was cancelled before it had its turn; and not for another who still waits.
            self._halting -= 1
            if not self._halting:
                self._interrupt.clear()
            self.wake()

    async def reserve(self, plan: Plan, checks: tuple[Check, ...]) -> None:
        """Begin a rotation; the loop goes on with it. Call it while halted.

        Raises:
            RefusalError: it cannot begin on the keyring in force.
            StoreError: the store failed.
        """
        self._let_go()
        preparation = self._new_preparation(plan)
        try:
            await preparation.reserve(await self._noted(plan, checks))
        except BaseException:
            if not self._is_unsure:
                preparation.close()
                raise
            self._preparation = preparation
            raise
        self._preparation, self._fault, self._ending = preparation, "", None
        self._work.forget()

    async def _noted(self, plan: Plan, checks: tuple[Check, ...]) -> dict[str, dict[str, str]]:
        """Return what the history keeps of a beginning: the checks, and of an emergency what it exposes."""
        noted = {"rotation-checked": {"when": "before", **preflight.told(checks)}}
        if plan.emergency is not None:
            told = await self.exposure(plan.emergency)
            noted["rotation-exposed"] = {str(n): each[:500] for n, each in enumerate(told, start=1)}
        return noted

    async def drop(self, why: str) -> None:
        """End a rotation that has not come into force, if there is one. Call it while halted."""
        rotation = self._vault.opened.document.rotation
        if rotation is None or rotation.phase not in BEFORE_FLIP:
            return
        preparation = self._preparation or self._new_preparation(plan_of(rotation))
        await preparation.drop(why)
        self._end(rotation, "dropped", why)
        self._let_go()

    async def begin_end(self, actor: str) -> None:
        """Write that the rollback window has ended."""
        at = self._vault.moment()
        await change_with(
            self._vault,
            self.performer,
            Point.FINALIZING,
            lambda document: rules.finalizing(document, at, actor),
        )

    async def exposure(self, emergency: Emergency | None) -> tuple[str, ...]:
        """Return what the key that leaked protected, since when, and what an emergency ends."""
        census = await self._vault.store.census()
        records = sum(count for (kind, _), count in census.items() if kind != KEYRING)
        return exposure(self._vault.opened.document, emergency, records)

    def view(self) -> RotationView | None:
        """Return how the rotation in progress is, else the last one that ended since Nexus has started."""
        if not self._vault.is_open:
            return self._over
        document = self._vault.opened.document
        rotation = document.rotation
        if rotation is None:
            return self._over
        verified, to_verify = self._work.verified
        return view_of(
            rotation,
            document,
            fault=self._fault or self._work.trouble,
            progress=self._work.progress_of(rotation),
            verified=verified,
            to_verify=to_verify,
        )

    async def run(self) -> None:
        """Go on until cancelled."""
        try:
            while True:
                self._wake.clear()
                pause_s = min(await self._turn(), await self._begin_wanted())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._wake.wait()
        finally:
            self._let_go()

    async def _begin_wanted(self) -> float:
        """Begin what could not begin when it was wanted; return after how many seconds to try again."""
        wanted, is_open = self.wanted, self._vault.is_open
        if wanted is None or not is_open or self._vault.opened.document.rotation is not None:
            return _IDLE_S
        try:
            await wanted()
        except SpikeError as error:
            _log.warning("a rotation that is due does not begin yet: %s", error.message)
            return _WANTED_S
        except Exception:  # noqa: BLE001  a loop that ends would be missed by nobody
            _log.exception("a rotation that is due met a fault of Nexus; it is begun again later")
            return _WANTED_S
        self.wanted = None
        return 0.0

    async def _turn(self) -> float:
        """Do what is due; return after how many seconds to look again."""
        if not self._vault.is_open:
            async with self._step_lock:
                self._let_go()
                await self._wipe_formers()
            return _IDLE_S
        if self._is_unsure:
            return _UNSURE_S
        async with self._step_lock:
            try:
                await self._wipe_formers()
                pause_s = await self._next()
            # What a failure ends and clears away is of the same step: nobody begins anything meanwhile.
            except SpikeError as error:
                return await self._failed(error.message)
            except Exception:  # noqa: BLE001  a loop that ends would be missed by nobody
                _log.exception("a rotation met a fault of Nexus; it goes on")
                return await self._failed("a fault of Nexus; see its log")
        self._pause_s = FIRST_PAUSE_S
        if not self._rests:
            self._fault = ""
        return pause_s

    @property
    def _rests(self) -> bool:
        """Whether a person has to resume it; why stays told until then."""
        rotation = self._vault.opened.document.rotation if self._vault.is_open else None
        return rotation is not None and rotation.paused

    async def _next(self) -> float:
        """Do the next step of what the keyring says; return after how many seconds to look again."""
        rotation = self._vault.opened.document.rotation
        preparation = self._preparation
        if preparation is not None and preparation.is_in_force():
            await self._behind_flip()
            return 0.0
        if rotation is None and self._ending is not None:
            # Written, though the answer did not arrive then; or what follows it has failed.
            await self._behind_end(self._ending)
        if rotation is None:
            await self._tidy()
            return _IDLE_S
        self._is_tidy = False
        if rotation.phase in BEFORE_FLIP:
            await self._carry(rotation)
            return 0.0
        if rotation.phase is Phase.RE_ENCRYPTING and self._rests:
            return _IDLE_S
        if rotation.phase is Phase.RE_ENCRYPTING:
            await unless(self._interrupt, self._work.re_encrypt(rotation))
            return 0.0
        if rotation.phase is Phase.VERIFIED:
            return await self._wait_for_window(rotation)
        return await self._finish(rotation)

    async def _carry(self, rotation: Rotation) -> None:
        """Bring a rotation to its flip; one that was interrupted before is prepared again."""
        if self._preparation is None:
            if rotation.attempt >= ATTEMPT_LIMIT and rotation.emergency is None:
                await self.drop(f"interrupted {rotation.attempt} times before its flip")
                return
            _log.warning("%s %s was interrupted; it is prepared again", rotation.kind, rotation.id)
            again = self._new_preparation(plan_of(rotation))
            self._preparation = again
            await remove_pending(self.keepers, self.performer)
            await again.reserve({})
        await unless(self._interrupt, self._preparation.carry_to_flip())

    async def _behind_flip(self) -> None:
        """Tell the Keepers, clear away what was pending, and let the former keys go."""
        self._let_go()
        self._vault.changed.set()
        await self._commit()
        await remove_pending(self.keepers, self.performer)

    async def _commit(self) -> None:
        await self.performer.do(Point.COMMIT, self.keepers.look)

    async def _wait_for_window(self, rotation: Rotation) -> float:
        document = self._vault.opened.document
        end = moment_of(rotation.verified_at) + timedelta(seconds=rotation.window_s)
        left = (end - moment_of(self._vault.moment())).total_seconds()
        # Without a window nothing is waited for, also when the clock was set back since.
        if rotation.window_s and left > 0:
            return min(left, _IDLE_S)
        # A clock that may be wrong ends nobody's way back. Who wants it ended says so: finalize.
        if rotation.window_s and not self._vault.life.belief(document).may_expire:
            return _IDLE_S
        await self.begin_end("nexus")
        return 0.0

    async def _finish(self, rotation: Rotation) -> float:
        # Once the keyring does not name it any more this is all there is to tell of it, until it is over.
        self._over, self._ending = self.view(), rotation
        await unless(self._interrupt, self._work.finish())
        # Interrupted or not, the keyring says whether it has ended: before whoever interrupted begins something else.
        if self._vault.opened.document.rotation is None:
            await self._behind_end(rotation)
        return 0.0

    async def _behind_end(self, rotation: Rotation) -> None:
        """Purge what its end has left, say so, and do step 8. A purge that is interrupted is left to `_tidy`."""
        await self._wipe_formers()
        await unless(self._interrupt, self._work.purge())
        self._end(rotation, "finalized", "")
        self._ending = None
        checks = await preflight.after(self.keepers, plan_of(rotation))
        await self._work.note_checks(rotation, preflight.told(checks))

    async def _tidy(self) -> None:
        """Once after a start, or behind a rotation: clear away what a kill or an interruption may have left.

        What is interrupted here goes on at the next look, or behind the rotation that was begun instead.
        """
        if self._is_tidy:
            return
        faults = await remove_pending(self.keepers, self.performer)
        is_purged = await unless(self._interrupt, self._work.purge())
        self._is_tidy = not faults and is_purged is not None

    async def _failed(self, why: str) -> float:
        """Take note of a failure. Before its flip a planned rotation is dropped; everything else is tried again."""
        _log.error("rotation: %s", why)
        self._fault = why
        pause_s, self._pause_s = self._pause_s, min(LONGEST_PAUSE_S, 2 * self._pause_s)
        if self._is_unsure or not self._vault.is_open:
            return _UNSURE_S
        rotation, preparation = self._vault.opened.document.rotation, self._preparation
        if preparation is None or preparation.is_in_force():
            return pause_s
        try:
            if rotation is not None and rotation.emergency is not None:
                await preparation.clear()
            elif rotation is not None and rotation.phase in BEFORE_FLIP:
                await preparation.drop(why)
                self._end(rotation, "failed", why)
        except Exception as error:  # noqa: BLE001  as above
            # It is still in the keyring: the next look drops it, or prepares it again.
            _log.error("rotation: %s", getattr(error, "message", type(error).__name__))
        self._let_go()
        return pause_s

    def _new_preparation(self, plan: Plan) -> Preparation:
        return Preparation(
            self.keepers,
            self._passwords,
            self.performer,
            plan,
            former=self._wipe_later,
        )

    @property
    def _is_unsure(self) -> bool:
        return Stop.UNSURE in self._vault.stops

    def _let_go(self) -> None:
        if self._preparation is not None:
            self._preparation.close()
            self._preparation = None

    def _wipe_later(self, ring: KeyRing) -> None:
        self._formers.append(ring)

    async def _wipe_formers(self) -> None:
        """Wipe the keys that fell away, once nothing that began before can want them.

        Who is among those waited for may himself be waiting for this step, to begin something else: then it is done
        behind him.
        """
        if not self._formers:
            return
        formers = list(self._formers)
        if await unless(self._interrupt, self._requests_over()) is None:
            return
        del self._formers[: len(formers)]
        for ring in formers:
            if self._vault.is_open:
                ring.wipe_except(self._vault.opened.ring)
            else:
                ring.wipe()

    async def _requests_over(self) -> bool:
        await self._vault.in_use.over()
        return True

    def _end(self, rotation: Rotation, state: str, why: str) -> None:
        verified, to_verify = self._work.verified
        self._over = view_of(
            rotation,
            self._vault.opened.document,
            ended=state,
            fault=why,
            progress=self._work.progress_of(rotation),
            verified=verified,
            to_verify=to_verify,
        )
        self._work.forget()
