"""The keys of a running installation, learned as Nexus learns them, and where they are looked for.

The root key comes from a threshold of Keepers under a Nexus identity, everything below it from the stored keyring.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lifecycle_kit import copy_of
from memory_scan import patterns_of
from process_kit import BIN, NEXUS, Installation
from rotating_process_kit import Row, stored_keyring
from spike.crypto.purpose import Purpose, purpose_key
from spike.crypto.record import RecordContext, open_into, open_untrusted
from spike.crypto.shamir import interpolate
from spike.error import FormatError, OpenError
from spike.lifecycle import backup
from spike.lifecycle.keyring import UnconfirmedKeyring
from spike.lifecycle.refresh import set_in_force
from spike.lifecycle.ring import KeyName, KeyRing, wrap_context
from spike.memory.key_memory import KeyMemory

PROBE = Path(__file__).parent / "share_probe.py"


@dataclass(frozen=True)
class Learned:
    """The keys in force at one moment."""

    root: bytes
    record: bytes
    cipher: bytes
    generation: int
    """Of the record key."""
    set_id: str
    shares: list[bytes]

    def keys(self, name: str) -> dict[str, bytes]:
        return {f"{name} root key": self.root, f"{name} record key": self.record}

    def held_shares(self, name: str) -> dict[str, bytes]:
        return {f"{name} share {number}": share for number, share in enumerate(self.shares, 1)}


def learned(spike: Installation) -> Learned:
    """Learn the keys in force, from shares and the stored keyring."""
    held = stored_keyring(spike)
    in_force = set_in_force(held.hint)
    assert in_force is not None
    shares = _asked(spike, in_force.id)
    root = interpolate({1: held_by(shares[0]), 2: held_by(shares[1])})
    document = held.confirmed_by(root)
    assert document is not None
    ring = KeyRing.open(document, copy_of(root))
    active = ring.active_record
    found = Learned(
        copied(root),
        copied(active.key),
        copied(ring.active_cipher.key),
        active.generation,
        in_force.id,
        shares,
    )
    ring.wipe()
    return found


def _asked(spike: Installation, set_id: str) -> list[bytes]:
    ports = [str(port) for port in spike.keeper_port.values()]
    command = [sys.executable, str(PROBE), set_id, *ports]
    done = subprocess.run(
        [str(BIN / "spike-authority"), "run", "--id", NEXUS, "--", *command],
        capture_output=True,
        env=dict(spike.environment),
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [bytes.fromhex(line) for line in done.stdout.split()]


def held_by(raw: bytes) -> KeyMemory:
    memory = KeyMemory.allocate(len(raw))
    with memory.view() as view:
        view[:] = raw
    return memory


def copied(key: KeyMemory) -> bytes:
    with key.view() as view:
        return bytes(view)


def patterns(secrets: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return every form in which these secrets may lie somewhere."""
    return {
        f"{name}, {form}": pattern
        for name, secret in secrets.items()
        for form, pattern in patterns_of(secret).items()
    }


def files_with(directory: Path, wanted: Mapping[str, bytes]) -> list[str]:
    """Return which file below a directory holds which of these bytes."""
    found, searched = [], 0
    for path in sorted(directory.rglob("*")):
        if path.is_file() and not path.is_symlink():
            searched += 1
            content = path.read_bytes()
            found += [f"{path} holds {name}" for name, each in wanted.items() if each in content]
    assert searched > 10
    return found


def opened_by(spike: Installation, keys: Learned, rows: Sequence[Row]) -> list[str]:
    """Return what is stored and opens with these keys: keyring, backups, wrapped keys, records."""
    held, root, record = stored_keyring(spike), held_by(keys.root), held_by(keys.record)
    store_id = bytes.fromhex(held.hint.store_id)
    found = [name for name, each in _documents(spike, held) if _confirms(each, root)]
    for wrapped in held.hint.keys:
        name = KeyName(wrapped.purpose, wrapped.slot, wrapped.number)
        context = wrap_context(held.hint.store_id, name)
        for number in {each.number for each in held.hint.roots}:
            with (
                KeyMemory.allocate(32) as out,
                purpose_key(root, Purpose.WRAP, store_id, number) as key,
            ):
                try:
                    open_into(key, context, wrapped.wrapped, out)
                    found.append(f"{name.purpose} {name.number}")
                except (OpenError, FormatError):
                    pass
    for row in rows:
        try:
            context = RecordContext(store_id, row.kind, row.key, row.version, "value")
            open_untrusted(record, context, row.blob)
            found.append(f"{row.kind} {row.key}")
        except OpenError:
            pass
    root.wipe()
    record.wipe()
    return found


def _documents(
    spike: Installation, held: UnconfirmedKeyring
) -> list[tuple[str, UnconfirmedKeyring]]:
    backups = [
        (path.name, backup.decode_untrusted(path.read_bytes()).keyring)
        for path in sorted(spike.place.iterdir())
        if path.is_file() and path.suffix in (".key-backup", ".pending")
    ]
    assert backups
    return [("keyring", held), *backups]


def _confirms(held: UnconfirmedKeyring, root: KeyMemory) -> bool:
    return held.confirmed_by(root) is not None


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and that still are."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]
