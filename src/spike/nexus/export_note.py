"""Noting in the history that a copy leaves, before it does."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from spike.error import SpikeError
from spike.lifecycle.export import Copy, exported
from spike.nexus.vault import Vault

_PATIENCE_S: Final = 5.0
_log = logging.getLogger("spike.nexus.export")


async def note_export(vault: Vault, copy: Copy, place: str, actor: str) -> None:
    """Write that `actor` takes a copy to `place`; where that cannot be written, say so in the log and go on.

    A store that takes no writes, or a rotation that waits for a Keeper, is just when a copy is wanted most.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S), vault.lock:
            at = vault.moment()
            await vault.change(
                lambda ring: ring.replaced(exported(ring.document, copy, place, at, actor))
            )
    except (SpikeError, TimeoutError) as error:
        _log.critical(
            "%s by %s to %r is not in the history: %s", copy.value, actor, place, error or "busy"
        )
