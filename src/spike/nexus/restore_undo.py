"""Undoing a restore from a system backup: what was set aside is put back, and what had come in its place is kept.

    1. no rotation goes on, and the keys in memory are wiped: nothing is served
    2. the store's file is put back (spike.storage.ability): from here on the old state is the one in force
    3. the backup places get back the key backup and anchor of that state's lineage

Killed after 2, the same command does 3, and killed after that, it says once more what is in force: whoever asked and
did not hear the answer, goes on from there. The old state is locked then, and its root key comes back as ever.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from spike.error import SpikeError
from spike.lifecycle import restore as rules
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.opened import Phase
from spike.nexus.place_lineage import put_back
from spike.nexus.rotation_loop import RotationLoop
from spike.nexus.store_room import bring_back, newest_aside, was_undone
from spike.nexus.vault import KEYRING_ID, Vault

_log: Final = logging.getLogger("spike.nexus.system_restore")


@dataclass(frozen=True, slots=True)
class Undone:
    """What is in force again, as its keyring says; empty where that cannot be read. `aside`: what is kept."""

    phase: Phase
    store_id: str
    lineage: str
    aside: str


async def undo(keepers: KeeperDesk, rotations: RotationLoop, actor: str) -> Undone:
    """Put back what the last restore has set aside. A rotation that has not come into force ends with what it was of.

    Raises:
        RefusalError: NOTHING_ASIDE.
        StoreError: the store or a backup place failed; the same can be done again.
    """
    vault = keepers.vault
    async with vault.lock, rotations.halted():
        name = await newest_aside(vault.store)
        if name is not None:
            await _end_rotation(vault, rotations)
        return await _undone(keepers, name, actor)


async def _end_rotation(vault: Vault, rotations: RotationLoop) -> None:
    """Drop a rotation before its flip, with its keys and staged shares, and forget one that waits to begin."""
    rotations.wanted = None
    if not vault.is_open:
        return
    try:
        await rotations.drop("the restore that it followed was undone")
    except SpikeError as error:
        # Its state is put aside anyway; of a rotation that nobody carries on nothing comes into force.
        _log.error("a rotation could not be dropped: %s", error.message)


async def _undone(keepers: KeeperDesk, name: str | None, actor: str) -> Undone:
    vault = keepers.vault
    async with keepers.lock:
        aside = ""
        if name is not None:
            await vault.close()
            keepers.forget()
            aside = await bring_back(vault.store, name, vault.moment())
            _log.critical("%s has undone a restore; %s is in force again", actor, name)
        store_id, lineage = await _named(vault)
        did = [await put_back(state.place, store_id, lineage) for state in vault.places if store_id]
        if name is None and not any(did) and not await was_undone(vault.store):
            raise RefusalError(
                Reason.NOTHING_ASIDE, "no restore has set anything aside here", "see spike status"
            )
        return Undone(await vault.phase(), store_id, lineage, aside)


async def _named(vault: Vault) -> tuple[str, str]:
    stored = await vault.store.get(KEYRING_ID)
    if stored is None:
        return "", ""
    try:
        hint = rules.read_stored(stored.blob).hint
    except RefusalError:
        return "", ""
    return hint.store_id, hint.lineage
