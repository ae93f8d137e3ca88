"""Opens a key backup with a password, and says what in a store its keys open. Shows no key.

    python -m spike.pilot.demo.rotation.opener BACKUP STORE < password

Prints one line of JSON. It is what somebody can do who kept a key backup and knows its password.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from spike.crypto.record import RecordContext, open_untrusted
from spike.crypto.slot import Argon2Setting, SlotKey, derive_slot_secret
from spike.error import FormatError, OpenError
from spike.lifecycle import backup, keyring, password, restore
from spike.lifecycle.ring import KeyRing
from spike.lifecycle.slot import header_of
from spike.memory.key_memory import KEY_BYTES, KeyMemory
from spike.memory.process import harden
from spike.pilot.demo import census

_PASSWORD_LIMIT_BYTES: Final = 4096


def open_backup(held: backup.KeyBackup, entered: bytearray) -> KeyMemory:
    """Return the root key of a key backup.

    Raises:
        RefusalError: no password opens it.
        OpenError: this one does not.
    """
    chosen = restore.choose_slot(held.keyring, "")
    store, slot = held.keyring.hint.store_id, chosen.slot
    setting = Argon2Setting.parse_untrusted(slot.argon2)
    normal = password.normalize_untrusted(entered)
    with derive_slot_secret(normal, slot.salt, setting) as secret:
        key = SlotKey.from_slot_secret(secret, bytes.fromhex(store), bytes.fromhex(slot.id))
    root = KeyMemory.allocate(KEY_BYTES)
    try:
        key.open_into(chosen.sealed.sealed, header_of(held.keyring.hint, slot, chosen.sealed), root)
    except BaseException:
        root.wipe()
        raise
    finally:
        key.wipe()
        normal[:] = b"\0" * len(normal)
    return root


def opens(ring: KeyRing, name: census.Name, blob: bytes) -> bool:
    """Tell whether any record key of a ring opens a record, whatever generation the record claims."""
    kind, key, version = name
    store_id = ring.document.store_id
    context = RecordContext(bytes.fromhex(store_id), kind, key, version, "value")
    for generation in ring.record_generations:
        try:
            open_untrusted(ring.record(generation), context, blob)
        except (OpenError, FormatError):
            continue
        return True
    return False


def main() -> None:
    """Open the backup, try every record of the store and its keyring, and say what came of it."""
    harden()
    path, store = map(Path, sys.argv[1:])
    held = backup.decode_untrusted(path.read_bytes())
    entered = bytearray(sys.stdin.buffer.readline(_PASSWORD_LIMIT_BYTES).rstrip(b"\n"))
    root = open_backup(held, entered)
    confirmed = held.confirmed_by(root)
    if confirmed is None:
        root.wipe()
        raise SystemExit("the key does not confirm the backup")
    present = keyring.decode_untrusted(census.keyring(store)).confirmed_by(root)
    ring = KeyRing.open(confirmed, root)
    try:
        opened = [opens(ring, name, blob) for name, blob in census.records(store)]
    finally:
        ring.wipe()
    told = {
        "generation": confirmed.active_root.number,
        "records": len(opened),
        "opened": sum(opened),
        "keyring": present is not None,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
