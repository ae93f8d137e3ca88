"""System backups for tests: made of a newborn store and records that nobody opens, or of what a Nexus holds."""

from __future__ import annotations

from collections.abc import Sequence

import lifecycle_kit
from spike.lifecycle import anchor, backup
from spike.lifecycle.manifest import manifest_key
from spike.lifecycle.system_backup import Composer, HeldRecord, Moment
from spike.lifecycle.system_backup_reader import Parser, Summary
from spike.storage.protocol import KEYRING, POLICY, SECRET, RecordId


def records_of(born: lifecycle_kit.Born, count: int) -> list[HeldRecord]:
    """Return a keyring and `count` records behind it, in order."""
    keyring = HeldRecord(RecordId(KEYRING, "current"), 1, born.raw)
    policy = HeldRecord(RecordId(POLICY, "a"), 1, b"policy")
    secrets = [
        HeldRecord(RecordId(SECRET, f"path/{number:04d}", "0a"), 1 + number % 2, b"x" * number)
        for number in range(count)
    ]
    return [keyring, policy, *secrets]


def composed(
    born: lifecycle_kit.Born, records: Sequence[HeldRecord], frame: int = 3, at: str = ""
) -> bytes:
    """Return a system backup of these records, so many in each frame."""
    document, root = born.ring.document, born.ring.root
    at = at or lifecycle_kit.AT
    anchor_raw = anchor.encode(anchor.anchor_of(document, 1), root)
    composer = Composer()
    parts = [composer.head(backup.encode(born.raw, anchor_raw, at, document, root))]
    parts += [
        composer.records(records[begin : begin + frame]) for begin in range(0, len(records), frame)
    ]
    with manifest_key(root, document) as key:
        parts.append(composer.end(Moment(at, document, 1, document.epoch), key))
    return b"".join(parts)


def parsed(raw: bytes, piece_bytes: int = 1 << 20) -> tuple[Summary, list[HeldRecord]]:
    """Read a system backup in pieces of a size."""
    parser, found = Parser(), list[HeldRecord]()
    for begin in range(0, len(raw), piece_bytes):
        for records in parser.feed(raw[begin : begin + piece_bytes]):
            found += records
    return parser.summary(), found
