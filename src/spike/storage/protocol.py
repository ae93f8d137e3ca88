"""What a storage engine is: records, changes to them, and the `Store` protocol.

An engine sees kinds, keys, versions, generations, sizes and sealed blobs; it holds no key and opens
nothing. Nothing in a store is believed because it is there: what matters is sealed and
authenticated above this layer.

Rules every engine keeps (docs/reference/storage.md; the suite in test/storage/conformance checks
them):

1. A record is found by kind, key and version; it carries a blob, a generation and a revision.
2. Every change names the revision it expects. Where the record is at another one, the change is
   refused with StoreConflictError and nothing happens.
3. A revision is given out once in the life of a store, so a record deleted and made again never
   shows an old revision: a compare-and-swap cannot mistake the new life for the old one.
4. `apply` is all or nothing, on the disk too. A change is acknowledged only when it survives a
   crash.
5. What was acknowledged is seen by every read that begins afterwards.
6. Records are scanned in the order of the UTF-8 bytes of their keys, then of their versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, NewType, Protocol, TypeAlias, TypeVar

from spike.error import InputError

Kind = NewType("Kind", str)
"""What a record is: 1 to 64 of a–z, 0–9 and "-". An engine stores any kind; the constants are those
in use."""

SECRET: Final = Kind("secret")
SECRET_META: Final = Kind("secret-meta")
POLICY: Final = Kind("policy")
ACCESS_LIST: Final = Kind("access-list")
KEYRING: Final = Kind("keyring")
USAGE: Final = Kind("usage")
HISTORY: Final = Kind("history")
ADMIN: Final = Kind("admin")
PROGRESS: Final = Kind("progress")
SET_ASIDE: Final = Kind("set-aside")
"""Sealed rows that nobody honest wrote, kept as they were found. Nothing reads them."""

Revision = NewType("Revision", int)
"""Where a record is in the history of its store; at least 1, given out once in the life of the
store."""

Cursor = NewType("Cursor", str)
"""Where a scan goes on. Opaque; good for the operation, kind, prefix and generation it came from,
and for as long as the store lives, also after it was closed and opened again. At most
CURSOR_LIMIT_BYTES as UTF-8."""

KEY_LIMIT_BYTES: Final = 1024
VERSION_LIMIT: Final = 64
BLOB_LIMIT_BYTES: Final = 8 * 1024 * 1024
GENERATION_LIMIT: Final = 2**32 - 1
EPOCH_LIMIT: Final = 2**63 - 1
PAGE_LIMIT: Final = 1_000
"""The most records a page holds."""
PAGE_BYTE_LIMIT: Final = BLOB_LIMIT_BYTES
"""A page ends with the record that brings its blobs to this size, however many more were asked
for."""
CHANGE_LIMIT: Final = 5_000
"""The most changes one `apply` takes."""
CHANGE_BYTE_LIMIT: Final = 64 * 1024 * 1024
"""The most bytes the blobs of one `apply` have together."""
CURSOR_LIMIT_BYTES: Final = KEY_LIMIT_BYTES + VERSION_LIMIT + 1

_KIND: Final = re.compile(r"[a-z0-9-]{1,64}")
_VERSION: Final = re.compile(r"[a-z0-9-]{0,64}")


class MustNotExist(Enum):
    """The type of MUST_NOT_EXIST, which stands where a revision is expected."""

    TOKEN = "must not exist"  # noqa: S105 - the name of a sentinel, not a password


MUST_NOT_EXIST: Final = MustNotExist.TOKEN
Expected: TypeAlias = Revision | MustNotExist


@dataclass(frozen=True, slots=True)
class RecordId:
    """The name of a record.

    `key` is at most KEY_LIMIT_BYTES of UTF-8 without U+0000, and may be empty; `version` at most
    VERSION_LIMIT of a–z, 0–9 and "-": for a secret the version's random id in hex, otherwise empty.

    Raises:
        InputError: a part is not as described.
    """

    kind: Kind
    key: str
    version: str = ""

    def __post_init__(self) -> None:
        check_kind(self.kind)
        check_key(self.key)
        if _VERSION.fullmatch(self.version) is None:
            raise InputError("a record's version is at most 64 of a-z, 0-9 and '-'")


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read. `generation` is a hint for finding records: only the blob's header
    counts."""

    id: RecordId
    blob: bytes = field(repr=False)
    generation: int
    revision: Revision


@dataclass(frozen=True, slots=True)
class RecordHead:
    """A record without its blob."""

    id: RecordId
    generation: int
    revision: Revision


@dataclass(frozen=True, slots=True)
class Put:
    """Make the record, or replace its blob and generation.

    Raises:
        InputError: the blob is larger than BLOB_LIMIT_BYTES, or the generation no unsigned 32-bit
            number.
    """

    id: RecordId
    blob: bytes = field(repr=False)
    generation: int
    expected: Expected

    def __post_init__(self) -> None:
        if len(self.blob) > BLOB_LIMIT_BYTES:
            raise InputError(f"a record holds at most {BLOB_LIMIT_BYTES} bytes")
        check_generation(self.generation)
        if self.expected is not MUST_NOT_EXIST:
            _check_revision(self.expected)


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove the record."""

    id: RecordId
    expected: Revision

    def __post_init__(self) -> None:
        _check_revision(self.expected)


@dataclass(frozen=True, slots=True)
class SetFence:
    """Set the store's fence: the keyring epoch from now on. It stays or grows; a smaller one is a
    FenceError."""

    epoch: int

    def __post_init__(self) -> None:
        check_epoch(self.epoch)


Change: TypeAlias = Put | Delete | SetFence

Item_co = TypeVar("Item_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[Item_co]):
    """A part of a scan. `after` continues it; None means that nothing follows.

    A page may hold fewer items than were asked for, even none, and still have a cursor.
    """

    items: tuple[Item_co, ...]
    after: Cursor | None


Census: TypeAlias = Mapping[tuple[Kind, int], int]
"""How many records there are of each kind and generation; combinations without a record are left
out."""


@dataclass(frozen=True, slots=True)
class Health:
    """What an engine says of itself without changing a byte.

    `durable`: acknowledged changes survive the end of the process. `format`: number of the encoding
    on disk.
    `free_bytes`: what the engine can still take before the disk is full, None where that has no
    meaning.
    `reclaimable_bytes`: what `purge` would give back or overwrite. `fence`: the epoch last set, 0
    before the first.
    `fault`: why the newest write failed, in one sentence; empty when it succeeded.
    """

    engine: str
    durable: bool
    journal: str
    format: int
    size_bytes: int
    reclaimable_bytes: int
    free_bytes: int | None
    fence: int
    fault: str


class Store(Protocol):
    """A storage engine.

    All operations may raise StoreUnavailableError (the engine does not answer, the disk is full,
    the store was closed) and StoreCorruptError. Arguments out of their limits raise InputError. An
    operation whose task was cancelled may have happened whole or not at all.
    """

    async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - the field's own name
        """Return the record, or None if there is none."""
        ...

    async def put(self, change: Put, *, fence: int | None) -> Revision:
        """`apply` for one Put: return the record's new revision."""
        ...

    async def delete(self, change: Delete, *, fence: int | None) -> None:
        """`apply` for one Delete."""
        ...

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        """Make all changes or none; return one revision for each change, in order.

        1 to CHANGE_LIMIT changes, blobs of at most CHANGE_BYTE_LIMIT together, each record and the
        fence at most once. `fence` is the epoch of the keyring the data were sealed under; None
        only for what no epoch governs. An engine without transactions makes the changes in the
        order given, so callers give them in an order in which every prefix is a valid state. When
        the answer is StoreUnavailableError nothing of it is visible; read again before deciding
        what follows from it, for a crash may still bring back what the disk had taken.

        Raises:
            FenceError: the store's fence is not `fence` (checked before anything else), or a
                SetFence would lower it.
            StoreConflictError: a record is not at the expected revision; the message names the
                first such record.
        """
        ...

    async def scan(self, kind: Kind, prefix: str, after: Cursor | None, limit: int) -> Page[Record]:
        """Return up to `limit` (1 to PAGE_LIMIT) records of a kind whose key begins with `prefix`.

        A record that is there during the whole scan is returned exactly once, whatever is written
        meanwhile. A cursor from another scan may skip records, but never brings in one that this
        scan does not select.
        """
        ...

    async def scan_key(
        self, kind: Kind, prefix: str, after: Cursor | None, limit: int
    ) -> Page[RecordHead]:
        """`scan` without the blobs."""
        ...

    async def scan_generation(
        self, kind: Kind, generation: int, after: Cursor | None, limit: int
    ) -> Page[Record]:
        """`scan` over the records of a kind that carry this generation."""
        ...

    async def census(self) -> Census:
        """Count the records by kind and generation, from the records themselves, at one moment."""
        ...

    async def health(self) -> Health:
        """Say how the engine is. Quick; changes nothing.

        Raises:
            StoreUnavailableError: it can neither read nor take a write, and will not recover by
                itself.
        """
        ...

    async def check(self) -> None:
        """Read everything and check what the engine can check by itself.

        May take minutes; other operations go on meanwhile.

        Raises:
            StoreCorruptError: something is wrong; the message says what was found first.
        """
        ...

    async def purge(self, budget_bytes: int) -> int:
        """Overwrite or give back what is left of deleted and replaced records.

        Returns how many bytes are still to do. One call works on about `budget_bytes` (at least 1)
        and is meant to be repeated until it returns 0. Then no file of the store holds the blob of
        a record that was deleted or replaced before the first call. What a file system, disk,
        snapshot or log of the engine's host keeps is beyond an engine's reach.
        """
        ...

    async def close(self) -> None:
        """Finish what was begun, and let go of the store. Idempotent."""
        ...


def check_kind(kind: Kind) -> None:
    """Raise InputError unless `kind` is 1 to 64 of a–z, 0–9 and "-"."""
    if _KIND.fullmatch(kind) is None:
        raise InputError("a record's kind is 1 to 64 of a-z, 0-9 and '-'")


def check_key(key: str) -> None:
    """Raise InputError unless `key` is a key or the beginning of one.

    A key has at most KEY_LIMIT_BYTES of UTF-8 and no U+0000.
    """
    try:
        size_bytes = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise InputError("a record's key is not valid Unicode") from None
    if size_bytes > KEY_LIMIT_BYTES:
        raise InputError(f"a record's key has at most {KEY_LIMIT_BYTES} bytes")
    if "\0" in key:
        raise InputError("a record's key does not hold U+0000")


def check_generation(generation: int) -> None:
    """Raise InputError unless `generation` is an unsigned 32-bit number."""
    if not 0 <= generation <= GENERATION_LIMIT:
        raise InputError(f"a generation is 0 to {GENERATION_LIMIT}")


def check_epoch(epoch: int) -> None:
    """Raise InputError unless `epoch` is an unsigned 63-bit number."""
    if not 0 <= epoch <= EPOCH_LIMIT:
        raise InputError(f"an epoch is 0 to {EPOCH_LIMIT}")


def check_page_limit(limit: int) -> None:
    """Raise InputError unless `limit` is 1 to PAGE_LIMIT."""
    if not 1 <= limit <= PAGE_LIMIT:
        raise InputError(f"a page has 1 to {PAGE_LIMIT} records")


def _check_revision(revision: int) -> None:
    if not 1 <= revision <= EPOCH_LIMIT:
        raise InputError(f"a revision is 1 to {EPOCH_LIMIT}")
