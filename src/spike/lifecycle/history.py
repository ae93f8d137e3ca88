"""The history: lifecycle events, each chained to the one before by its digest.

An event reaches the history from the keyring's outbox. Appending is idempotent by sequence number: after a crash the
same entries are made again, to the same bytes, and only then leave the outbox.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from spike.lifecycle.keyring import Event, Keyring


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event and the digest of the entry before it; the first one's is empty."""

    format: int
    previous: str
    event: Event


class Drained(NamedTuple):
    """The entries to append, by record key, and the keyring that no longer holds their events."""

    entries: tuple[tuple[str, bytes], ...]
    keyring: Keyring


def drain(keyring: Keyring, at: str) -> Drained | None:
    """Return what to append and the keyring that follows it, or None when the outbox is empty."""
    if not keyring.outbox:
        return None
    head = keyring.audit_head
    entries = []
    for event in keyring.outbox:
        encoded = msgspec.json.encode(Entry(format=1, previous=head, event=event))
        entries.append((record_key(event.sequence), encoded))
        head = hashlib.sha256(encoded).hexdigest()
    emptied = msgspec.structs.replace(
        keyring, revision=keyring.revision + 1, replaced_at=at, outbox=(), audit_head=head
    )
    return Drained(tuple(entries), emptied)


def record_key(sequence: int) -> str:
    """Return the storage key of an entry: fixed width, so that key order is event order."""
    return f"{sequence:020d}"
