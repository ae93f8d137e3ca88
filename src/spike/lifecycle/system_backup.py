"""The system backup: one file with a whole store as it was at one moment, and all that is needed to open it. Pure.

    spike-system-backup 1\n
    frame K    the key backup of the moment (spike.lifecycle.backup): the keyring, with its sealed root keys
    frame R …  records as they are sealed in the store, in the order of kind, key and version
    frame M    the manifest (spike.lifecycle.manifest), authenticated under the root key

    frame  = letter (1 byte) ‖ length of content (4) ‖ content ‖ digest (32)
    digest = SHA-256(digest before ‖ letter ‖ length ‖ content); before the first frame SHA-256(first line)
    record = length (1) ‖ kind ‖ length (2) ‖ key ‖ length (1) ‖ version ‖ generation (4) ‖ length (4) ‖ blob

A frame's digest says at once where a file is damaged. It protects from nobody who wants to deceive: that is what the
manifest's MAC and the seals of the records are for. Nothing in the file is in plain text but names, sizes and times.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from spike.lifecycle import manifest
from spike.lifecycle.keyring import Keyring
from spike.lifecycle.manifest import CensusLine, Manifest
from spike.memory.key_memory import KeyMemory
from spike.storage.protocol import BLOB_LIMIT_BYTES, RecordId

FORMAT: Final = 1
THING: Final = "system backup"
FRAME_LIMIT_BYTES: Final = BLOB_LIMIT_BYTES + (1 << 20)
"""The most one frame holds: the records that make it worth a frame, and one more of the largest size."""

HEAD: Final = b"spike-system-backup 1\n"
HEAD_LIMIT_BYTES: Final = 64
NAME: Final = b"spike-system-backup "
DIGEST_BYTES: Final = 32
FRAME: Final = struct.Struct(">cI")
KIND: Final = struct.Struct(">B")
KEY: Final = struct.Struct(">H")
VERSION: Final = struct.Struct(">B")
BLOB: Final = struct.Struct(">II")
LETTERS: Final = (b"K", b"R", b"M")


@dataclass(frozen=True, slots=True)
class HeldRecord:
    """A record of a system backup, still sealed."""

    id: RecordId
    generation: int
    blob: bytes

    def __repr__(self) -> str:
        return f"HeldRecord({self.id}, generation={self.generation})"


@dataclass(frozen=True, slots=True)
class Moment:
    """What is said of the moment a system backup is made at."""

    written_at: str
    document: Keyring
    access_generation: int
    fence: int


class Composer:
    """Makes a system backup piece by piece; what it keeps does not grow with the store."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256(HEAD).digest()
        self._census: Counter[tuple[str, int]] = Counter()
        self._size_bytes = len(HEAD)

    def head(self, key_backup: bytes) -> bytes:
        """Return the beginning of the file."""
        return HEAD + self._frame(b"K", key_backup)

    def records(self, records: Sequence[HeldRecord]) -> bytes:
        """Return the next records, which follow those before in order, as one frame."""
        parts: list[bytes] = []
        for each in records:
            kind, key = each.id.kind.encode(), each.id.key.encode()
            version = each.id.version.encode()
            parts += (
                KIND.pack(len(kind)) + kind + KEY.pack(len(key)) + key,
                VERSION.pack(len(version)) + version,
                BLOB.pack(each.generation, len(each.blob)),
                each.blob,
            )
            self._census[each.id.kind, each.generation] += 1
        return self._frame(b"R", b"".join(parts))

    def end(self, moment: Moment, key: KeyMemory) -> bytes:
        """Return the end of the file; `key` is the `manifest_key` of the moment."""
        held = moment.document
        census = tuple(
            CensusLine(kind, generation, count)
            for (kind, generation), count in sorted(self._census.items())
        )
        digest = self._digest
        told = Manifest(
            written_at=moment.written_at,
            store_id=held.store_id,
            lineage=held.lineage,
            epoch=held.epoch,
            revision=held.revision,
            generation=held.active_root.number,
            access_generation=moment.access_generation,
            fence=moment.fence,
            records=self._census.total(),
            size_bytes=self._size_bytes,
            digest=digest.hex(),
            census=census,
        )
        return self._frame(b"M", manifest.encode(told, key))

    def _frame(self, letter: bytes, content: bytes) -> bytes:
        head = FRAME.pack(letter, len(content))
        self._digest = chained(self._digest, head, content)
        self._size_bytes += len(head) + len(content) + DIGEST_BYTES
        return head + content + self._digest


def chained(before: bytes, head: bytes | bytearray, content: bytes | bytearray) -> bytes:
    """Return the digest that follows another one in the chain."""
    chain = hashlib.sha256(before)
    chain.update(head)
    chain.update(content)
    return chain.digest()
