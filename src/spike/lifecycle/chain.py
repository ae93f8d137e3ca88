"""Following the hash chain of the history, entry by entry. Pure.

Whoever writes the store cannot make an entry, but can remove some, or put back what stood there in another life of the
store. Each entry names the digest of the one before, and the keyring names the digest of the last; so what is
missing or changed shows at the entry that follows it, or at the end.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from spike.error import FormatError, NewerFormatError
from spike.lifecycle.history import Entry, record_key
from spike.lifecycle.keyring import Event, Keyring

FORMAT: Final = 1
ENTRY_LIMIT_BYTES: Final = 1 << 20
_THING: Final = "history entry"


class _Head(msgspec.Struct, frozen=True):
    """What every format of an entry begins with."""

    format: int


def sequence_of_untrusted(key: str) -> int:
    """Return the number of the entry stored under a key.

    Raises:
        FormatError: no entry is ever stored under this key.
    """
    if not (key.isascii() and key.isdecimal()) or record_key(int(key[:20])) != key or not int(key):
        raise FormatError(f"no {_THING} has this key")
    return int(key)


def decode_entry_untrusted(raw: bytes) -> Entry:
    """Read an entry.

    Raises:
        NewerFormatError: it is in the format of a newer SPIKE.
        FormatError: it is damaged, larger than 1 MiB, or not in its one form.
    """
    if len(raw) > ENTRY_LIMIT_BYTES:
        raise FormatError(f"the {_THING} is larger than {ENTRY_LIMIT_BYTES} bytes")
    try:
        found = msgspec.json.decode(raw, type=_Head).format
        if found > FORMAT:
            raise NewerFormatError(_THING, found, FORMAT)
        entry = msgspec.json.decode(raw, type=Entry)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise FormatError(f"the {_THING} is damaged: it has another form") from None
    if entry.format != FORMAT or msgspec.json.encode(entry) != raw:
        raise FormatError(f"the {_THING} is damaged: it is not in its one form")
    return entry


def length_of(keyring: Keyring) -> int:
    """Return how many entries the history has: all events but those that still wait in the keyring."""
    return keyring.next_event - 1 - len(keyring.outbox)


class Chain:
    """Follows a history from its first entry. Feed it in order; `next` is the sequence number that follows."""

    def __init__(self) -> None:
        self.next = 1
        # The digest of the entry before; None: that one could not be read, so nothing is known of it.
        self._head: str | None = ""

    def skip(self) -> None:
        """Go on behind an entry that is not there or does not open: what it was is not known."""
        self.next += 1
        self._head = None

    def follow(self, raw: bytes) -> tuple[Event | None, str]:
        """Take the next entry as it was written; return its event, and what is wrong with it or "".

        The event is None when the bytes are no entry at all.
        """
        sequence, before = self.next, self._head
        self.next += 1
        self._head = hashlib.sha256(raw).hexdigest()
        try:
            entry = decode_entry_untrusted(raw)
        except FormatError as error:
            return None, error.message
        if entry.event.sequence != sequence:
            return entry.event, f"it is entry {entry.event.sequence}"
        if before is not None and entry.previous != before:
            return entry.event, f"entry {sequence - 1} is not the one that stood before it"
        return entry.event, ""

    def ends_with(self, head: str) -> bool:
        """Return whether the last entry is the one with this digest; also when it could not be read."""
        return self._head is None or self._head == head
