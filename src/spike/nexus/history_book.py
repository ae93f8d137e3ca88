"""The history as stored: one sealed record for each lifecycle event, in the order of their keys."""

from __future__ import annotations

import logging

from spike.error import FormatError, OpenError
from spike.lifecycle.history import Drained
from spike.nexus.sealed import SealedStore
from spike.storage.protocol import HISTORY, MUST_NOT_EXIST, Put, RecordId

_log = logging.getLogger("spike.nexus.history")


async def appended(sealed: SealedStore, drained: Drained) -> list[Put]:
    """Return the changes that append entries, whatever is stored in their place.

    Nothing but these entries can be there honestly: their digests follow from the keyring. What else is there was
    planted, or written in another life of the store, and must not keep the vault from opening.
    """
    return [await _appended(sealed, key, entry) for key, entry in drained.entries]


async def _appended(sealed: SealedStore, key: str, entry: bytes) -> Put:
    record_id = RecordId(HISTORY, key)
    stored = await sealed.fetch(record_id)
    if stored is None:
        return sealed.put(record_id, entry, MUST_NOT_EXIST)
    try:
        differs = sealed.open(stored) != entry
    except (OpenError, FormatError):
        differs = True
    if differs:
        _log.critical("history entry %s was not written in this life of the store; replaced", key)
    return sealed.put(record_id, entry, stored.revision)
