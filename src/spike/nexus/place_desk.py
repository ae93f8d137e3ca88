"""The backup places of one vault: given the newest key backup and anchor, and how each of them is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from spike.error import StoreError
from spike.lifecycle import backup
from spike.nexus.place import Place
from spike.nexus.place_lineage import require_own

_log = logging.getLogger("spike.nexus.place")


@dataclass(frozen=True, slots=True)
class PlaceState:
    """What is known of one backup place: `fault` is empty when it holds the present backup and anchor."""

    place: Place
    fault: str


@dataclass(frozen=True, slots=True)
class Written:
    """What every place ought to hold."""

    backup_raw: bytes
    anchor_raw: bytes

    def is_of(self, keyring_raw: bytes) -> bool:
        """Whether the backup holds this very keyring."""
        return backup.decode_untrusted(self.backup_raw).keyring.raw == keyring_raw


class PlaceDesk:
    """Writes to all places. Hold `lock` from the moment at which what is written is read off the vault."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.states = tuple(PlaceState(place, "not written yet") for place in places)
        self.lock = asyncio.Lock()
        """Two writers of one file would tear it, and an older anchor could come to lie over a newer one."""
        self.written: Written | None = None
        """What was last given to every place; None before the first time."""
        self.renewed = asyncio.Event()
        """Set when the places were given something new: whoever verifies them should look."""

    @property
    def one_holds(self) -> bool:
        """Whether a place holds what was written last."""
        return any(not state.fault for state in self.states)

    def ought_to_hold(self, keyring_raw: bytes) -> bool:
        """Whether what was last given to every place is the backup of this keyring, or there is no place."""
        if not self.states:
            return True
        return self.written is not None and self.written.is_of(keyring_raw)

    async def renew(self, store_id: str, backup_raw: bytes, anchor_raw: bytes) -> None:
        """Give every place a key backup and an anchor. A place that fails is reported, not fatal."""
        self.written = Written(backup_raw, anchor_raw)
        self.states = tuple(
            [await _renewed(s.place, store_id, backup_raw, anchor_raw) for s in self.states]
        )
        self.renewed.set()

    async def renew_anchor(self, store_id: str, anchor_raw: bytes) -> None:
        """Give every place that holds the present backup an anchor."""
        if self.written is not None:
            self.written = Written(self.written.backup_raw, anchor_raw)
        self.states = tuple(
            [
                s if s.fault else await _renewed(s.place, store_id, None, anchor_raw)
                for s in self.states
            ]
        )


async def _renewed(
    place: Place, store_id: str, backup_raw: bytes | None, anchor_raw: bytes
) -> PlaceState:
    try:
        await require_own(place, store_id, anchor_raw)
        if backup_raw is not None:
            await place.reach.call(place.write_backup, store_id, backup_raw)
        await place.reach.call(place.write_anchor, store_id, anchor_raw)
    except StoreError as error:
        _log.error("a backup place failed: %s", error.message)
        return PlaceState(place, error.message)
    return PlaceState(place, "")
