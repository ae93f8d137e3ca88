"""Steps 6 to 8 of a rotation: prove that nothing needs the old keys, destroy them, see that all is well.

The proof reads the stored bytes themselves, through a key ring that does not hold the old record keys at all.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from spike.lifecycle import rotation as rules
from spike.lifecycle.census import Finding, Tally
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.ring import KeyRing
from spike.nexus.opened import Opened
from spike.nexus.pace import Pace
from spike.nexus.performer import Performer, Point
from spike.nexus.record_check import SEALED_KINDS, header_generation
from spike.nexus.sealed import SealedStore
from spike.nexus.vault import Vault
from spike.nexus.verification_pass import VerificationPass
from spike.nexus.verification_scan import Scan
from spike.storage.protocol import RecordId

_log: Final = logging.getLogger("spike.nexus.rotation")
PURGE_BYTES: Final = 8 << 20
"""What one step of a purge works on: it holds up writers for some tens of milliseconds."""
PURGE_AGAIN_S: Final = 0.1
"""After a step that brought it no further, a purge rests so long."""


@dataclass(slots=True)
class Proof:
    """One pass over everything stored, without the old record keys. `tally` may be looked at while it runs."""

    expected: int = 0
    tally: Tally = field(default_factory=Tally)

    def left_behind(self, active: int) -> int:
        """Return how many records the pass saw under another record key than the active one."""
        kinds = {str(kind) for kind in SEALED_KINDS}
        counted = self.tally.census.items()
        return sum(n for (kind, number), n in counted if kind in kinds and number != active)

    @property
    def findings(self) -> list[Finding]:
        """What is bad, by name, as far as names are kept."""
        return list(self.tally.named)


class OldKeyless:
    """The store as it is seen without the old record keys; follows the ring in force."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._ring: KeyRing | None = None
        self._sealed: SealedStore | None = None

    def __call__(self) -> SealedStore:
        """Return the present view."""
        ring = self._vault.opened.ring
        if self._sealed is None or ring is not self._ring:
            self._ring = ring
            self._sealed = SealedStore(self._vault.store, ring.with_active_record_alone())
        return self._sealed


async def prove(vault: Vault, proof: Proof) -> None:
    """Read every record and open it without the old keys; what is found is in `proof`.

    Raises:
        StoreError: the store cannot be read on.
        NotReadyError: the vault was closed.
    """
    # What began before the flip could still write what it had read: the store refuses that, and nothing runs on.
    await vault.in_use.over()
    proof.tally = Tally()
    every = VerificationPass(vault, proof.tally, OldKeyless(vault))
    proof.expected = await every.expect()
    await every.run()


async def count_left(vault: Vault, limit: int = 100) -> tuple[int, list[RecordId]]:
    """Count what is stored under another record key than the active one, from the blobs themselves; name some."""
    scan = Scan(vault, Tally(), Pace())
    active = vault.opened.ring.active_record.generation
    count, named = 0, list[RecordId]()
    for kind in sorted(SEALED_KINDS):
        async for record in scan.records(kind):
            if header_generation(record.blob) != active:
                count += 1
                if len(named) < limit:
                    named.append(record.id)
    return count, named


async def purge(vault: Vault, performer: Performer) -> bool:
    """Overwrite what is left in the store's files of replaced records, step by step; True once nothing is left.

    Cancelled it ends behind the step under way at the latest, and the next call goes on from there.
    """

    async def step() -> int:
        return await vault.store.purge(PURGE_BYTES)

    left = await performer.do(Point.PURGE, step)
    while left:
        before, left = left, await performer.do(Point.PURGE, step)
        if left >= before:
            # Somebody reads an older state, a system backup for one, and so it cannot be overwritten yet.
            await asyncio.sleep(PURGE_AGAIN_S)
    return True


async def reclaimable(vault: Vault) -> int:
    """Return how many bytes of the store's files a purge could give back now."""
    return (await vault.store.health()).reclaimable_bytes


async def destroy(
    vault: Vault, performer: Performer, detail: dict[str, str], former: Callable[[KeyRing], None]
) -> Opened:
    """Write that the old keys are destroyed. `former` is given the ring that still holds them, to be wiped.

    Raises:
        RefusalError: the rotation is not at its end.
        StoreError: the store failed.
    """

    def step(ring: KeyRing) -> KeyRing:
        document = rules.finalized(ring.document, vault.moment(), detail)
        former(ring)
        return ring.changed(document, {})

    return await performer.do(Point.FINALIZED, lambda: vault.change(step))


def change_with(
    vault: Vault, performer: Performer, point: Point, rule: Callable[[Keyring], Keyring | None]
) -> Awaitable[Opened]:
    """Return the write of what `rule` makes of the keyring in force; None leaves it as it is."""

    async def write() -> Opened:
        if rule(vault.opened.document) is None:
            return vault.opened

        def step(ring: KeyRing) -> KeyRing:
            following = rule(ring.document)
            return ring.replaced(ring.document if following is None else following)

        return await vault.change(step)

    return performer.do(point, write)
