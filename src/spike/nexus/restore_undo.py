"""Undoing a restore from a system backup: what was set aside is put back, and what had come in its place is kept.

    1. the keys in memory are wiped: nothing is served
    2. the store's file is put back (spike.storage.ability): from here on the old state is the one in force
    3. the backup places get back the key backup and anchor of that state's lineage

Killed after 2, the same command does 3. The old state is locked then, and its root key comes back as ever.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from spike.lifecycle import restore as rules
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.opened import Phase
from spike.nexus.place_lineage import put_back
from spike.nexus.store_room import bring_back, newest_aside
from spike.nexus.vault import KEYRING_ID, Vault

_log: Final = logging.getLogger("spike.nexus.system_restore")


@dataclass(frozen=True, slots=True)
class Undone:
    """What is in force again, as its keyring says; empty where that cannot be read. `aside`: what is kept."""

    phase: Phase
    store_id: str
    lineage: str
    aside: str


async def undo(keepers: KeeperDesk, actor: str) -> Undone:
    """Put back what the last restore has set aside.

    Raises:
        RefusalError: NOTHING_ASIDE.
        StoreError: the store or a backup place failed; the same can be done again.
    """
    vault = keepers.vault
    async with vault.lock, keepers.lock:
        name = await newest_aside(vault.store)
        aside = ""
        if name is not None:
            await vault.close()
            keepers.adopt(None)
            aside = await bring_back(vault.store, name, vault.moment())
            _log.critical("%s has undone a restore; %s is in force again", actor, name)
        store_id, lineage = await _named(vault)
        did = [await put_back(state.place, store_id, lineage) for state in vault.places if store_id]
        if name is None and not any(did):
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
