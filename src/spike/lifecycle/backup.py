"""The key backup: the whole keyring document and the anchor of the moment, fit to be kept anywhere.

It opens with the password of any of its slots and needs nothing else of the store. Layout:

    spike-backup 1
    {"written_at":…,"anchor":…,"keyring":…}      the two documents, base64
    mac …                                        backup-mac of the active root key

Before a rotation takes effect, the backup of the keyring that is to follow lies beside the one in force. It says that
it is *pending*, and carries format 2, so that a version that knows no rotation does not take it for a backup in force.
"""

from __future__ import annotations

from typing import Final

import msgspec

from spike.crypto.purpose import Purpose, purpose_key
from spike.error import FormatError
from spike.lifecycle import document, keyring
from spike.lifecycle.anchor import Anchor
from spike.lifecycle.anchor import decode_untrusted as decode_anchor_untrusted
from spike.lifecycle.document import Document
from spike.lifecycle.keyring import Keyring, Moment, UnconfirmedKeyring
from spike.memory.key_memory import KeyMemory

FORMAT: Final = 2
LIMIT_BYTES: Final = 2 << 20
THING: Final = "backup"


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    written_at: Moment
    anchor: bytes
    keyring: bytes
    pending: bool = False

    @property
    def format(self) -> int:
        return 2 if self.pending else 1


class KeyBackup:
    """A key backup as read from outside: nothing in it is authenticated until a root key confirms it."""

    def __init__(
        self, split: Document, body: _Body, held: UnconfirmedKeyring, anchor: Anchor
    ) -> None:
        self._split = split
        self.written_at = body.written_at
        self.anchor_raw = body.anchor
        self.anchor = anchor
        self.keyring = held
        self.pending = body.pending
        """Whether its keyring was not in force yet when it was written."""

    def confirmed_by(self, root: KeyMemory) -> Keyring | None:
        """Return the keyring if `root` authenticates both it and the backup around it, else None."""
        held = self.keyring.confirmed_by(root)
        if held is None:
            return None
        store = bytes.fromhex(held.store_id)
        with purpose_key(root, Purpose.BACKUP_MAC, store, held.active_root.number) as key:
            return held if self._split.confirmed_by(key) else None


def encode(
    keyring_raw: bytes,
    anchor_raw: bytes,
    written_at: str,
    held: Keyring,
    root: KeyMemory,
    *,
    pending: bool = False,
) -> bytes:
    """Return the key backup of an encoded keyring and anchor, authenticated under its active root key.

    `pending`: the keyring is not in force yet; `root` is the root key that it makes active.
    """
    body = _Body(written_at=written_at, anchor=anchor_raw, keyring=keyring_raw, pending=pending)
    store = bytes.fromhex(held.store_id)
    with purpose_key(root, Purpose.BACKUP_MAC, store, held.active_root.number) as key:
        return document.compose(THING, body.format, body, key)


def decode_untrusted(raw: bytes) -> KeyBackup:
    """Read a key backup from outside. Size: at most 2 MiB.

    Raises:
        NewerFormatError: written by a newer SPIKE.
        FormatError: none, or damaged.
    """
    split = document.split_untrusted(raw, THING, FORMAT, LIMIT_BYTES)
    body = document.read_untrusted(split.body, _Body, THING)
    if split.format != body.format:
        raise FormatError("the backup is damaged: it carries the number of another format")
    held = keyring.decode_untrusted(body.keyring)
    anchor = decode_anchor_untrusted(body.anchor)
    if (anchor.store_id, anchor.lineage) != (held.hint.store_id, held.hint.lineage):
        raise FormatError("the backup is damaged: its anchor is of another store")
    return KeyBackup(split, body, held, anchor)
