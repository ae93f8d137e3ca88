"""The verification as a job of Nexus: one at a time, in the background, its last result kept in memory.

It ends by itself, by a stop that was asked for, or with Nexus. Nothing of it is stored.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from spike.error import SpikeError
from spike.lifecycle.census import Tally
from spike.lifecycle.keyring import Keyring
from spike.nexus.sealed import SealedStore
from spike.nexus.vault import Vault
from spike.nexus.verification_pass import VerificationPass

_log = logging.getLogger("spike.nexus.verification")
_PASSES: Final = 10
"""How often a pass is begun anew because keys changed under it."""


class Outcome(StrEnum):
    """How a verification is, or how it ended."""

    RUNNING = "running"
    GOOD = "good"
    BAD = "bad"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(slots=True)
class Run:
    """One verification. What ends in `_s` is of the clock that only goes forward.

    `round`: how often it has begun to look at everything; `tally` is of that round.
    """

    id: str
    actor: str
    started_at: str
    outcome: Outcome = Outcome.RUNNING
    detail: str = ""
    ended_at: str = ""
    ended_s: float = 0.0
    expected: int = 0
    round: int = 1
    round_began_s: float = 0.0
    tally: Tally = field(default_factory=Tally)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.outcome is Outcome.RUNNING


class Verifier:
    """Runs verifications of one vault."""

    def __init__(self, vault: Vault, sealed: Callable[[], SealedStore] | None = None) -> None:
        """`sealed`: what records are opened with, if not with all keys in force."""
        self._vault = vault
        self._sealed = sealed
        self._task: asyncio.Task[None] | None = None
        self.last: Run | None = None
        """The one that runs, or the last one since Nexus has started."""

    def start(self, actor: str) -> tuple[Run, bool]:
        """Begin a verification, or join the one that runs; return it, and whether it was begun now."""
        if self.last is not None and self.last.is_running:
            return self.last, False
        run = Run(secrets.token_hex(8), actor, self._vault.moment())
        self.last = run
        self._task = asyncio.create_task(self._carry_out(run))
        return run, True

    async def stop(self, why: str) -> None:
        """End the one that runs, if any, and wait until it has ended."""
        task, run = self._task, self.last
        if task is None or run is None or not run.is_running:
            return
        task.cancel()
        await asyncio.wait({task})
        if run.is_running:
            # It was cancelled before its first step: then nothing of it has run, not even its end.
            self._end(run, Outcome.STOPPED)
        if run.outcome is Outcome.STOPPED:
            run.detail = why

    async def ended(self) -> None:
        """Return when the one that runs, if any, has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """End what runs; Nexus ends."""
        await self.stop("Nexus was stopped")

    async def _carry_out(self, run: Run) -> None:
        outcome = Outcome.STOPPED
        try:
            await self._pass(run)
            outcome = self._judged(run)
        except SpikeError as error:
            outcome, run.detail = Outcome.FAILED, error.message
        except Exception:  # noqa: BLE001  a job whose end nobody learns would be waited for
            outcome, run.detail = Outcome.FAILED, "a fault of Nexus; see its log"
            _log.exception("verification %s ended by a fault", run.id)
        finally:
            # Also when it was cancelled: who asks next must not wait for it for ever.
            self._end(run, outcome)

    async def _pass(self, run: Run) -> None:
        """Look at everything; and once more if the keys in force changed on the way."""
        for run.round in range(1, _PASSES + 1):
            before = _keys_of(self._vault.opened.document)
            run.tally, run.round_began_s = Tally(), _now_s()
            begun = VerificationPass(self._vault, run.tally, self._sealed)
            run.expected = await begun.expect()
            await begun.run()
            if _keys_of(self._vault.opened.document) == before:
                return
        raise SpikeError("the keys changed during each of its passes")

    def _judged(self, run: Run) -> Outcome:
        if not run.tally.bad_total:
            return Outcome.GOOD
        wrong = self._vault.opened.ring.mismatches()
        if wrong:
            # Then it is the key in memory that is bad, and nothing follows about the records.
            run.detail = f"keys in memory are not what they were: {', '.join(wrong)}"
            return Outcome.FAILED
        return Outcome.BAD

    def _end(self, run: Run, outcome: Outcome) -> None:
        tally = run.tally
        run.ended_at, run.ended_s = self._vault.moment(), _now_s()
        run.outcome = outcome
        level = logging.INFO if outcome in (Outcome.GOOD, Outcome.STOPPED) else logging.ERROR
        _log.log(
            level,
            "verification %s by %s: %s; %d scanned, %d good, %d bad, %d vanished",
            *(run.id, run.actor, outcome, tally.scanned),
            *(tally.good, tally.bad_total, tally.vanished),
        )


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _keys_of(document: Keyring) -> frozenset[tuple[str, str, int, str]]:
    """Return every key and its state: what a pass depends on."""
    roots = [("root", "", root.number, root.state) for root in document.roots]
    return frozenset([*roots, *((k.purpose, k.slot, k.number, k.state) for k in document.keys)])
