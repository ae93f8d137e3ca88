"""Reading a system backup from outside, piece by piece. Pure; no key is needed or seen here.

The format is that of spike.lifecycle.system_backup.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from spike.error import FormatError, InputError, NewerFormatError
from spike.lifecycle import backup, manifest
from spike.lifecycle.backup import KeyBackup
from spike.lifecycle.manifest import Manifest, UnconfirmedManifest
from spike.lifecycle.system_backup import (
    BLOB,
    DIGEST_BYTES,
    FORMAT,
    FRAME,
    FRAME_LIMIT_BYTES,
    HEAD,
    HEAD_LIMIT_BYTES,
    KEY,
    KIND,
    LETTERS,
    NAME,
    THING,
    VERSION,
    HeldRecord,
    chained,
)
from spike.storage.protocol import BLOB_LIMIT_BYTES, KEYRING, Kind, RecordId


@dataclass(frozen=True, slots=True)
class Summary:
    """A whole system backup, found consistent in itself. Nothing in it is authenticated."""

    backup_raw: bytes
    backup: KeyBackup
    manifest: UnconfirmedManifest
    size_bytes: int


class Parser:
    """Reads a system backup from outside, in pieces of any size, and holds all of it against itself.

    Feed it until the file ends, then ask for the `summary`. It keeps at most one frame.
    """

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._digest: bytes | None = None
        self._at = 0
        """Where in the file the bytes that wait begin."""
        self._census: Counter[tuple[str, int]] = Counter()
        self._last: tuple[str, str, str] | None = None
        self._backup_raw = b""
        self._backup: KeyBackup | None = None
        self._keyring_blob: bytes | None = None
        self._manifest: UnconfirmedManifest | None = None
        self._before: tuple[int, str] = (0, "")

    @property
    def digest_before_manifest(self) -> str:
        """The chain's digest before the manifest, once that was read: what its `digest` has to be."""
        return self._before[1]

    def feed(self, data: bytes) -> Iterator[Sequence[HeldRecord]]:
        """Take the next bytes; give the records of each frame that is whole now. Go through all of it.

        Raises:
            NewerFormatError: a newer SPIKE wrote the file.
            FormatError: it is no system backup, or damaged; the message says where.
        """
        self._waiting += data
        if self._digest is None and not self._read_head():
            return
        while (frame := self._next_frame()) is not None:
            yield self._take(*frame)

    def summary(self) -> Summary:
        """Return what the file is, now that it has ended.

        Raises:
            FormatError: it is cut short, or contradicts itself.
        """
        if self._digest is None or self._manifest is None or self._waiting:
            raise self._damaged("it is cut short", self._at + len(self._waiting))
        assert self._backup is not None
        self._require_consistent(self._backup, self._manifest.hint)
        return Summary(self._backup_raw, self._backup, self._manifest, self._at)

    def _read_head(self) -> bool:
        line, feed, _ = self._waiting[:HEAD_LIMIT_BYTES].partition(b"\n")
        if not feed and len(self._waiting) < HEAD_LIMIT_BYTES and _may_begin(line):
            return False
        number = line[len(NAME) :] if line.startswith(NAME) else b""
        if not feed or not number.isdigit() or number.startswith(b"0"):
            raise _foreign(line)
        if int(number) != FORMAT:
            raise NewerFormatError(THING, int(number), FORMAT)
        self._digest = hashlib.sha256(HEAD).digest()
        self._drop(len(HEAD))
        return True

    def _next_frame(self) -> tuple[bytes, bytes] | None:
        if self._manifest is not None and self._waiting:
            raise self._damaged("something follows its end")
        if len(self._waiting) < FRAME.size:
            return None
        letter, length = FRAME.unpack_from(self._waiting)
        if letter not in LETTERS or length > FRAME_LIMIT_BYTES:
            raise self._damaged("no frame begins here")
        end = FRAME.size + length
        if len(self._waiting) < end + DIGEST_BYTES:
            return None
        head, content = self._waiting[: FRAME.size], self._waiting[FRAME.size : end]
        assert self._digest is not None
        before, self._digest = self._digest, chained(self._digest, head, content)
        if self._waiting[end : end + DIGEST_BYTES] != self._digest:
            raise self._damaged("a frame differs from its digest")
        if letter == b"M":
            self._before = (self._at, _hexadecimal(before))
        return letter, bytes(content)

    def _take(self, letter: bytes, content: bytes) -> Sequence[HeldRecord]:
        if (letter == b"K") != (self._backup is None):
            raise self._damaged("its frames are in another order")
        found: Sequence[HeldRecord] = ()
        match letter:
            case b"K":
                self._backup_raw, self._backup = content, backup.decode_untrusted(content)
            case b"M":
                self._manifest = manifest.decode_untrusted(content)
            case _:
                found = self._records(content)
        self._drop(FRAME.size + len(content) + DIGEST_BYTES)
        return found

    def _records(self, content: bytes) -> Sequence[HeldRecord]:
        try:
            found = _read_records(content)
        except (struct.error, UnicodeDecodeError, InputError, IndexError):
            raise self._damaged("a record is malformed") from None
        for each in found:
            name = (each.id.kind, each.id.key, each.id.version)
            if self._last is not None and name <= self._last:
                raise self._damaged("its records are not in order")
            self._last = name
            self._census[each.id.kind, each.generation] += 1
            if each.id == RecordId(KEYRING, "current"):
                self._keyring_blob = each.blob
        return found

    def _require_consistent(self, held: KeyBackup, told: Manifest) -> None:
        hint = held.keyring.hint
        if (told.size_bytes, told.digest) != self._before:
            raise FormatError(f"the {THING} is damaged: its manifest is of another file")
        names = (told.store_id, told.lineage, told.epoch, told.revision, told.generation)
        if names != (
            hint.store_id,
            hint.lineage,
            hint.epoch,
            hint.revision,
            hint.active_root.number,
        ):
            raise FormatError(f"the {THING} is damaged: manifest and keyring are of two moments")
        census = {(line.kind, line.generation): line.records for line in told.census}
        if census != dict(self._census) or told.records != self._census.total():
            raise FormatError(f"the {THING} is damaged: it does not hold what its manifest says")
        if self._keyring_blob != held.keyring.raw:
            raise FormatError(f"the {THING} is damaged: its records have another keyring")

    def _drop(self, size_bytes: int) -> None:
        del self._waiting[:size_bytes]
        self._at += size_bytes

    def _damaged(self, why: str, at: int | None = None) -> FormatError:
        return FormatError(
            f"the {THING} is damaged: {why} (at byte {self._at if at is None else at})",
            "use another copy of it",
        )


def _read_records(content: bytes) -> list[HeldRecord]:
    found: list[HeldRecord] = []
    at, end = 0, len(content)
    while at < end:
        kind, at = _field(content, at, KIND)
        key, at = _field(content, at, KEY)
        version, at = _field(content, at, VERSION)
        generation, length = BLOB.unpack_from(content, at)
        at += BLOB.size
        if length > BLOB_LIMIT_BYTES or at + length > end:
            raise InputError("a blob is too long")
        record_id = RecordId(Kind(kind), key, version)
        found.append(HeldRecord(record_id, generation, content[at : at + length]))
        at += length
    return found


def _field(content: bytes, at: int, size: struct.Struct) -> tuple[str, int]:
    (length,) = size.unpack_from(content, at)
    begin = at + size.size
    if begin + length > len(content):
        raise InputError("a field is too long")
    return content[begin : begin + length].decode(), begin + length


def _hexadecimal(digest: bytes) -> str:
    return digest.hex()


def _may_begin(line: bytes | bytearray) -> bool:
    return line.startswith(NAME) or NAME.startswith(line)


def _foreign(line: bytes | bytearray) -> FormatError:
    if line.startswith(b"spike-backup "):
        return FormatError(
            "this is a key backup, not a system backup: it holds the keys and not what they protect",
            "restore from it beside its store: spike restore --backup FILE",
        )
    return FormatError("this is no system backup", "name a file that spike system-backup made")
