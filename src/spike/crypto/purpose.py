"""What a key is used for: one derived key per purpose, and check values.

The root key itself is only ever the input of HKDF: what wraps, authenticates or confirms is derived
from it, bound to the store and to the root key's generation (key hierarchy, section 1).
"""

from __future__ import annotations

import enum
import hmac
from typing import Final

from spike.crypto.derivation import derive_into
from spike.crypto.mac import mac
from spike.memory import KEY_BYTES, KeyMemory

STORE_ID_BYTES: Final = 16
GENERATION_LIMIT: Final = 0xFFFF_FFFF
_PURPOSE_LIMIT_BYTES: Final = 255


class Purpose(enum.Enum):
    """The purposes of keys derived from the root key."""

    WRAP = "wrap"
    CHECK = "check"
    KEYRING_MAC = "keyring-mac"
    BACKUP_MAC = "backup-mac"
    SHARE_MAC = "share-mac"
    ANCHOR_MAC = "anchor-mac"
    MANIFEST_MAC = "manifest-mac"


def purpose_key(root: KeyMemory, purpose: Purpose, store_id: bytes, generation: int) -> KeyMemory:
    """Return the 32-byte key of `purpose` under a root key of `generation`; the caller wipes it.

    HKDF-SHA512, info "spike/root/v1/" ‖ purpose ‖ store id (16) ‖ generation (4, big-endian). The
    tail has a fixed size, so no two inputs give one info.

    Raises:
        WipedError: `root` is gone.
        ValueError: a store id not of 16 bytes, or a generation outside 1 to 2^32 - 1.
    """
    tail = _bound_to(store_id, generation)
    return _derive(root, b"spike/root/v1/" + purpose.value.encode("ascii") + tail)


def check_value(root: KeyMemory, store_id: bytes, generation: int) -> bytes:
    """Return the 32 public bytes that confirm a root key without showing anything of it.

    Raises:
        WipedError: `root` is gone.
        ValueError: as for `purpose_key`.
    """
    with purpose_key(root, Purpose.CHECK, store_id, generation) as key:
        return mac(key, b"spike/check/v1/root" + _bound_to(store_id, generation))


def data_check_value(key: KeyMemory, purpose: str, store_id: bytes, generation: int) -> bytes:
    """Return the 32 public bytes that confirm a key below the root key: its `purpose` (such as
    "record"), store and generation are part of them.

    Raises:
        WipedError: `key` is gone.
        ValueError: as for `purpose_key`, or a purpose not of 1 to 255 ASCII characters.
    """
    if not (purpose.isascii() and 1 <= len(purpose) <= _PURPOSE_LIMIT_BYTES):
        raise ValueError("the purpose of a key is 1 to 255 ASCII characters")
    tail = purpose.encode("ascii") + _bound_to(store_id, generation)
    with _derive(key, b"spike/key/v1/check/" + tail) as derived:
        return mac(derived, b"spike/check/v1/key/" + tail)


def check_value_matches(expected: bytes, found: bytes) -> bool:
    """Compare two check values in constant time."""
    return hmac.compare_digest(expected, found)


def _bound_to(store_id: bytes, generation: int) -> bytes:
    if len(store_id) != STORE_ID_BYTES:
        raise ValueError("a store id is 16 bytes")
    if not 1 <= generation <= GENERATION_LIMIT:
        raise ValueError("a generation is a number from 1 to 4294967295")
    return store_id + generation.to_bytes(4, "big")


def _derive(key: KeyMemory, info: bytes) -> KeyMemory:
    derived = KeyMemory.allocate(KEY_BYTES)
    try:
        derive_into(key, info, derived)
    except BaseException:
        derived.wipe()
        raise
    return derived
