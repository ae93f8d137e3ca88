"""The newest lifecycle events, newest first: from the keyring, then from the end of the history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from spike.error import FormatError, OpenError
from spike.lifecycle.chain import decode_entry_untrusted
from spike.lifecycle.history import record_key
from spike.lifecycle.keyring import Event
from spike.nexus.opened import Opened
from spike.storage.protocol import HISTORY, RecordId

LIMIT: Final = 500


async def recent_events(opened: Opened, limit: int = LIMIT) -> AsyncIterator[Event]:
    """Give the newest events. What is missing or does not open is passed over: a verification tells of it.

    Raises:
        StoreError: the store cannot be read.
    """
    waiting = opened.document.outbox
    for event in reversed(waiting):
        yield event
    newest = opened.document.next_event - 1 - len(waiting)
    for sequence in range(newest, max(0, newest - limit), -1):
        try:
            record = await opened.sealed.read(RecordId(HISTORY, record_key(sequence)))
            if record is not None:
                yield decode_entry_untrusted(record.plaintext).event
        except (OpenError, FormatError):
            continue
