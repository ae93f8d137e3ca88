"""What a rotation does behind its flip: re-encrypt, prove, finalize. The long part, beside all requests."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Final, NoReturn, TypeVar

from spike.error import RefusedError
from spike.lifecycle import rotation as rules
from spike.lifecycle.keyring import KeyPurpose, Rotation
from spike.lifecycle.progress import Outcome, Progress
from spike.lifecycle.ring import KeyRing
from spike.nexus.performer import Performer, Point
from spike.nexus.reencryption import Reencryption
from spike.nexus.reencryption_pace import Limits
from spike.nexus.reencryption_sweep import sweep
from spike.nexus.rotation_end import (
    Proof,
    change_with,
    count_left,
    destroy,
    prove,
    purge,
    reclaimable,
)
from spike.nexus.vault import Vault

_log: Final = logging.getLogger("spike.nexus.rotation")
_SHOWN: Final = 10
ACTOR: Final = "nexus/re-encryption"
"""Who lets a rotation rest that found what nobody honest wrote. Not the schedule's name, which resumes by itself."""
T = TypeVar("T")


class UnprovenError(RefusedError):
    """Something stands in the way of the proof that nothing needs the old keys. They are kept."""


class Work:
    """The work of one rotation at a time. Interrupted anywhere it goes on from what is stored."""

    def __init__(
        self, vault: Vault, performer: Performer, former: Callable[[KeyRing], None]
    ) -> None:
        self._vault = vault
        self._performer = performer
        self._former = former
        self._walk: Reencryption | None = None
        self._walked: tuple[str, Progress] | None = None
        self._proof: Proof | None = None
        self._to_purge: int | None = None

    @property
    def trouble(self) -> str:
        """Why re-encryption does not go on just now; empty while it does."""
        return "" if self._walk is None else self._walk.trouble

    @property
    def verified(self) -> tuple[int, int]:
        """How many records the pass without the old keys has looked at, of how many."""
        return (0, 0) if self._proof is None else (self._proof.tally.scanned, self._proof.expected)

    def progress_of(self, rotation: Rotation) -> Progress | None:
        """Return how far the re-encryption of a rotation has come."""
        if self._walk is not None:
            return self._walk.progress
        if self._walked is not None and self._walked[0] == rotation.id:
            return self._walked[1]
        return None

    def forget(self) -> None:
        """Another rotation begins."""
        self._walk = self._walked = self._proof = self._to_purge = None

    async def re_encrypt(self, rotation: Rotation) -> bool:
        """Steps 5 and 6: seal every record under the active key, and prove that none needs another one.

        Raises:
            UnprovenError: a record does not open, or lies under an old key; it is named, and the old keys are kept.
        """
        walks = [await self._walk_over(rotation, before) for before in self._replaced()]
        started = time.monotonic()
        proof = self._proof = Proof()
        await prove(self._vault, proof)
        if proof.left_behind(self._active):
            await self._sweep(walks)
        await self._require_proven(proof)
        tally = proof.tally
        detail = {
            "scanned": str(tally.scanned),
            "good": str(tally.good),
            "bad": str(tally.bad_total),
            "seconds": f"{time.monotonic() - started:.1f}",
        }
        at = self._vault.moment()
        await change_with(
            self._vault,
            self._performer,
            Point.VERIFIED,
            lambda document: rules.verified(document, at, detail),
        )
        return True

    @property
    def _active(self) -> int:
        return self._vault.opened.ring.active_record.generation

    def _replaced(self) -> list[int]:
        """Return the record keys that are at hand and not the active one."""
        active = self._active
        document = self._vault.opened.document
        return sorted(
            key.number
            for key in document.keys
            if key.purpose is KeyPurpose.RECORD and key.is_live and key.number != active
        )

    async def _walk_over(self, rotation: Rotation, before: int) -> Progress:
        walk = self._walk = Reencryption(
            self._vault, rotation.id, before, self._limits, perform=self._batch
        )
        started = time.monotonic()
        try:
            progress = await walk.run()
        finally:
            self._walked, self._walk = (rotation.id, walk.progress), None
        detail = {
            "id": rotation.id,
            "before": str(before),
            "scanned": str(progress.scanned),
            "re_encrypted": str(progress.re_encrypted),
            "already_current": str(progress.already_current),
            "skipped": str(progress.skipped_total),
            "vanished": str(progress.vanished),
            "failed": str(progress.failed),
            "size_bytes": str(progress.size_bytes),
            "seconds": f"{time.monotonic() - started:.1f}",
        }
        if progress.failed:
            names = ", ".join(
                f"{each.kind} {each.key} {each.version} ({each.reason})".replace("  ", " ")
                for each in progress.named
                if each.outcome is Outcome.FAILED
            )
            _log.error("re-encryption left records behind: %s", names[:1000])
        await self._note("rotation-re-encrypted", detail)
        return progress

    async def _sweep(self, walks: Sequence[Progress]) -> None:
        """Set aside what lies under an old key though everything had been looked at, and rest until a person resumes.

        Nothing honest can be there. But if this were a fault of ours, going on would destroy the key that opens it.

        Raises:
            UnprovenError: something was set aside.
        """
        found = [
            await self._performer.do(Point.SET_ASIDE, partial(sweep, self._vault, walk))
            for walk in walks
        ]
        aside = [record_id for each in found for record_id in each.aside_named]
        if not aside:
            return
        count = sum(each.set_aside for each in found)
        names = ", ".join(f"{each.kind} {each.key}" for each in aside[:_SHOWN])
        why = f"{count} records lay under an old key behind the re-encryption, and were set aside: {names}"
        await self._rest(why, "somebody put them into the store; look into it")

    async def _rest(self, why: str, what: str) -> NoReturn:
        """Let the rotation rest until a person resumes it.

        Raises:
            UnprovenError: always; it says why, and what to do.
        """
        at = self._vault.moment()
        await change_with(
            self._vault,
            self._performer,
            Point.HELD,
            lambda document: rules.held(document, at, ACTOR, paused=True, why=why[:400]),
        )
        raise UnprovenError(why, f"{what}, then: spike key resume")

    def _limits(self) -> Limits:
        rotation = self._vault.opened.document.rotation
        if rotation is None:
            return Limits(0, paused=True)
        return Limits(rotation.max_rate, rotation.paused)

    async def _batch(self, write: Callable[[], Awaitable[T]]) -> T:
        return await self._performer.do(Point.BATCH, write)

    async def _require_proven(self, proof: Proof) -> None:
        left = proof.left_behind(self._active)
        bad = proof.tally.bad_total
        if not left and not bad:
            return
        names = "; ".join(
            f"{each.kind} {each.key}: {each.reason}" for each in proof.findings[:_SHOWN]
        )
        told = f"{left} records under an old key, {bad} that are bad ({names})"
        what = "put back what is named from a system backup, or delete it"
        await self._rest(f"not verified: {told}", what)

    async def finish(self) -> None:
        """Step 7: nothing under the old keys, once more; all that is left of it purged; then they are destroyed.

        Where a record turns up the rotation re-encrypts once more instead.

        Raises:
            StoreError: the store failed; it goes on later.
        """
        await self._vault.in_use.over()
        left, named = await count_left(self._vault)
        if left:
            told = ", ".join(f"{each.kind} {each.key}" for each in named[:_SHOWN])
            why = f"{left} records under an old key turned up: {told}"
            _log.critical("%s", why)
            at = self._vault.moment()
            await change_with(
                self._vault,
                self._performer,
                Point.REOPENED,
                lambda document: rules.reopened(document, at, why[:400]),
            )
            return
        if self._to_purge is None:
            self._to_purge = await reclaimable(self._vault)
        await self.purge()
        purged = max(0, self._to_purge - await reclaimable(self._vault))
        await destroy(self._vault, self._performer, {"purged_bytes": str(purged)}, self._former)

    async def purge(self) -> bool:
        """Overwrite what is left of replaced records in the store's files; True once nothing is left."""
        return await purge(self._vault, self._performer)

    async def note_checks(self, rotation: Rotation, checks: Mapping[str, str]) -> None:
        """Note the checks behind a rotation."""
        await self._note("rotation-checked", {"id": rotation.id, "when": "after", **checks})

    async def _note(self, kind: str, detail: Mapping[str, str]) -> None:
        at = self._vault.moment()
        await change_with(
            self._vault,
            self._performer,
            Point.NOTED,
            lambda document: rules.noted(document, at, kind, detail),
        )
