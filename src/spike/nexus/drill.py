"""Drills: begun when asked for or when due, one at a time, timed, and noted in the keyring and its history.

What a drill does is in `drill_recovery`. One that was interrupted, by the end of Nexus or by keys that never rested,
is not noted: it is due as before.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from typing import Final

from spike.error import SpikeError
from spike.lifecycle import proof
from spike.lifecycle.proof import DrillKind, Noted, Outcome
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.drill_recovery import ACTOR, ChangedError, Drill, Password, Recovery
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.restore_flow import RestoreDesk
from spike.nexus.vault import Vault
from spike.storage.ability import CanSnapshot

SAMPLED_S: Final = 15 * 60.0
FULL_S: Final = 6 * 3600.0
"""How long a drill may take; then it has timed out."""
DRILL_LOOK_S: Final = 600.0
"""How often it is looked whether a drill is due; so the first one is made that long after the start of Nexus."""
_ATTEMPTS: Final = 5
_TEXT_LIMIT: Final = 500
_AGAIN_S: Final = 0.2
_log: Final = logging.getLogger("spike.nexus.drill")


class DrillDesk:
    """Drills of one vault; one at a time."""

    def __init__(self, vault: Vault, desk: PasswordDesk, attempts: RestoreDesk) -> None:
        self._vault = vault
        self._recovery = Recovery(vault, desk, attempts)
        self._task: asyncio.Task[None] | None = None
        self.last: Drill | None = None
        """The drill that runs, or the last one since Nexus was started."""

    @property
    def is_running(self) -> bool:
        """Whether a drill runs."""
        return self._task is not None and not self._task.done()

    async def begin(self, actor: str, *, full: bool, password: Password | None = None) -> Drill:
        """Begin a drill. With a password it is a person's, and the password is tried before this returns.

        Raises:
            RefusalError: BUSY; UNSUPPORTED, the engine takes no snapshots; KEEPER… as a restore, for a wrong password.
        """
        self._require_possible()
        kind = DrillKind.AUTOMATIC if password is None else DrillKind.PERSON
        drill = Drill(kind, actor, full, self._vault.moment(), time.monotonic())
        before, self.last = self.last, drill
        ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(drill, password, ready))
        try:
            if password is not None:
                await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
                if ready.done():
                    ready.result()
        except BaseException:
            self.last = before
            raise
        return drill

    async def wait(self) -> None:
        """Return when the drill that runs has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def run_if_due(self) -> None:
        """Make a drill if it is time for one, and wait for its end."""
        vault = self._vault
        if not vault.is_open or self.is_running or not vault.places:
            return
        document = vault.opened.document
        if document.operation is not None or not proof.is_wanted(document, vault.moment()):
            return
        if isinstance(vault.store, CanSnapshot):
            await self.begin(ACTOR, full=False)
            await self.wait()

    async def record(self, name: str, outcome: Outcome, note: str, actor: str) -> None:
        """Note that people practised a runbook.

        Raises:
            StoreError: it could not be noted.
        """
        detail = {"name": name, **({"note": note} if note else {})}
        noted = Noted(outcome, self._vault.moment(), actor, detail)
        await self._note(DrillKind.PRACTISED, noted, "")

    async def close(self) -> None:
        """End a drill that runs; it is not noted."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _require_possible(self) -> None:
        if self.is_running:
            raise RefusalError(
                Reason.BUSY, "a drill runs already", "look at it: spike drill report"
            )
        if not self._vault.places:
            raise RefusalError(
                Reason.UNSUPPORTED,
                "this Nexus has no backup place: nothing would survive the loss of its store",
                "name one in SPIKE_NEXUS_BACKUP_DIR",
            )
        if not isinstance(self._vault.store, CanSnapshot):
            raise RefusalError(
                Reason.UNSUPPORTED, "this storage engine does not show one moment of itself"
            )

    async def _run(
        self, drill: Drill, password: Password | None, ready: asyncio.Future[None]
    ) -> None:
        try:
            async with asyncio.timeout(FULL_S if drill.full else SAMPLED_S):
                await self._attempted(drill, password, ready)
            drill.outcome = Outcome.FAILED if drill.tally.wrong else Outcome.SUCCEEDED
        except TimeoutError:
            drill.tally.fail("it took too long")
            drill.outcome = Outcome.TIMED_OUT
        except ChangedError:
            drill.outcome = Outcome.INTERRUPTED
        except SpikeError as error:
            drill.tally.fail(error.message)
            drill.outcome = Outcome.FAILED
        except Exception as error:  # noqa: BLE001  a drill that ends without an outcome says nothing
            _log.exception("the drill met a fault")
            drill.tally.fail(f"a fault of ours: {type(error).__name__}; see the log")
            drill.outcome = Outcome.FAILED
        finally:
            if password is not None:
                await password.session.close()
        drill.duration_s = time.monotonic() - drill.began_s
        if ready.done() and not ready.cancelled() and ready.exception() is not None:
            return  # a password that was refused is no drill
        _tell(drill)
        await self._note_end(drill)

    async def _attempted(
        self, drill: Drill, password: Password | None, ready: asyncio.Future[None]
    ) -> None:
        derived, otherwise = False, None
        for _ in range(_ATTEMPTS):
            drill.begin_again()
            try:
                async with AsyncExitStack() as undo:
                    if password is not None and not derived:
                        await self._recovery.derive(drill, password, ready)
                        derived = True
                    await self._recovery.run(drill, password, undo)
                    return
            except ChangedError as changed:
                otherwise = changed.otherwise
                await asyncio.sleep(_AGAIN_S)
        raise otherwise or ChangedError

    async def _note_end(self, drill: Drill) -> None:
        if drill.outcome in (None, Outcome.INTERRUPTED):
            return
        noted = Noted(drill.outcome, drill.at, drill.actor, detail_of(drill))
        succeeded = drill.outcome is Outcome.SUCCEEDED
        try:
            await self._note(drill.kind, noted, drill.slot if succeeded else "")
        except SpikeError as error:
            _log.error("the drill could not be noted: %s", error.message)

    async def _note(self, kind: DrillKind, noted: Noted, verified: str) -> None:
        """Write it into the keyring; `verified` is the slot whose password was proven."""
        vault = self._vault
        async with vault.lock:
            await vault.change(
                lambda ring: ring.replaced(
                    proof.verified(proof.drilled(ring.document, kind, noted), verified, noted)
                )
            )


def detail_of(drill: Drill) -> dict[str, str]:
    """Return what the history says of a drill."""
    tally = drill.tally
    found = {
        "source": drill.source,
        "slot": drill.slot,
        "generation": str(drill.generation),
        "epoch": str(drill.epoch),
        "duration_ms": _ms(drill.duration_s),
        "key_ms": _ms(drill.key_s),
        "steps": ", ".join(f"{name} {_ms(took)}" for name, took in drill.steps),
        "keys": str(drill.keys),
        "slots": str(drill.slots),
        "policies": str(drill.policies),
        "full": "true" if drill.full else "false",
        "scanned": str(tally.scanned),
        "opened": str(tally.opened),
        "secrets": str(tally.secrets),
        "bytes": str(tally.size_bytes),
        "wrong": str(tally.wrong),
        "problems": "; ".join(tally.problems),
    }
    return {name: text[:_TEXT_LIMIT] for name, text in found.items() if text}


def _ms(seconds: float) -> str:
    return str(round(seconds * 1000))


def _tell(drill: Drill) -> None:
    good = drill.outcome is Outcome.SUCCEEDED
    _log.log(
        logging.WARNING if good else logging.ERROR,
        "drill of %s %s in %.2f s from %s: every key after %.2f s, %d of %d records opened, %d secrets read%s",
        drill.actor,
        drill.outcome,
        drill.duration_s,
        drill.source or "nothing",
        drill.key_s,
        drill.tally.opened,
        drill.tally.scanned,
        drill.tally.secrets,
        f": {'; '.join(drill.tally.problems)}" if drill.tally.problems else "",
    )
