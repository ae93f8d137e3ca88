"""The secrets of an open vault: the rules of spike.secret, carried out on sealed records.

A put inserts the immutable version record and then swaps the metadata record that names it, in one `apply`. Who loses
the swap reads again and tries again, so two writers on one path never lose an update. Writers of one process queue up
on a lock for the path first; the swap is what makes it right, the lock only spares wasted work.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakValueDictionary

from spike.error import (
    FenceError,
    NotFoundError,
    OpenError,
    StoreConflictError,
    StoreUnavailableError,
)
from spike.nexus.sealed import SealedStore
from spike.secret.encoding import (
    decode_meta_untrusted,
    decode_values_untrusted,
    encode_meta,
    encode_values,
)
from spike.secret.version import (
    NotFound,
    NothingUndeleted,
    SecretMeta,
    VersionId,
    delete,
    put,
    resolve,
    undelete,
)
from spike.storage.protocol import (
    MUST_NOT_EXIST,
    SECRET,
    SECRET_META,
    Change,
    Delete,
    Expected,
    Record,
    RecordId,
    Revision,
)
from spike.wire.go_time import UnixNs

Clock = Callable[[], UnixNs]
_REMEMBERED_BYTES: Final = 4 << 20
"""Metadata kept opened, in bytes as sealed: ten versions are 1 KiB, and about twice that when opened."""
_ATTEMPTS: Final = 100
"""How often a call that lost against another writer is tried again. Of several writers one always wins, so this many
losses in a row are no honest ones."""
_BREATH: Final = 256
"""Records opened between two chances for other requests."""


@dataclass(frozen=True, slots=True)
class _Held:
    """The metadata of a secret as read, and the revision to expect when it is swapped."""

    meta: SecretMeta
    revision: Revision


class SecretBook:
    """The secrets seen through one key ring."""

    def __init__(self, sealed: SealedStore, clock: Clock, max_versions: int) -> None:
        self._sealed = sealed
        self._clock = clock
        self._max_versions = max_versions
        self._opened: OrderedDict[tuple[str, bytes], SecretMeta] = OrderedDict()
        self._opened_bytes = 0
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def get(self, path: str, version: int) -> dict[str, str]:
        """Return the values of a version; 0 is the current one.

        Raises:
            NotFoundError: no such path or version, or it is deleted.
            OpenError, FormatError: what is stored there is not what was put there.
        """
        for _ in range(_ATTEMPTS):
            meta = await self.meta(path)
            record_id = _version_record(path, _resolved(meta, version))
            record = await self._sealed.read(record_id)
            if record is not None:
                return decode_values_untrusted(record.plaintext)
            if await self.meta(path) == meta:
                raise OpenError("a version that the metadata name is missing from the store")
            # It was pruned between the two reads: look again.
        raise _restless()

    async def meta(self, path: str) -> SecretMeta:
        """Return a secret's metadata.

        Raises:
            NotFoundError: no such path.
            OpenError, FormatError: what is stored there is not what was put there.
        """
        held = await self._held(path)
        if held is None:
            raise NotFoundError("there is no secret at this path")
        return held.meta

    def require_version(self, meta: SecretMeta, version: int) -> None:
        """Return if a version of a secret lives; 0 is the current one.

        Raises:
            NotFoundError: it does not.
        """
        _resolved(meta, version)

    async def put(self, path: str, values: Mapping[str, str]) -> None:
        """Write a new version, and really erase those beyond the secret's retention."""
        encoded = encode_values(values)
        async with self._lock(path):
            for _ in range(_ATTEMPTS):
                if await self._put_once(path, encoded):
                    return
        raise _restless()

    async def _put_once(self, path: str, encoded: bytes) -> bool:
        held = await self._held(path)
        version_id = VersionId(secrets.token_hex(16))
        result = put(
            None if held is None else held.meta, version_id, self._clock(), self._max_versions
        )
        version = self._sealed.put(_version_record(path, version_id), encoded, MUST_NOT_EXIST)
        return await self._swapped(path, held, result.meta, (version,), result.pruned)

    async def delete(self, path: str, versions: Sequence[int]) -> None:
        """Delete versions softly.

        Raises:
            NotFoundError: no such path.
        """
        async with self._lock(path):
            for _ in range(_ATTEMPTS):
                held = await self._require_held(path)
                meta = delete(held.meta, versions, self._clock())
                if meta == held.meta or await self._swapped(path, held, meta):
                    return
        raise _restless()

    async def undelete(self, path: str, versions: Sequence[int]) -> None:
        """Take deletions back.

        Raises:
            NotFoundError: no such path, or nothing was undeleted.
        """
        async with self._lock(path):
            for _ in range(_ATTEMPTS):
                held = await self._require_held(path)
                meta = undelete(held.meta, versions, self._clock())
                if isinstance(meta, NothingUndeleted):
                    raise NotFoundError("there was nothing to undelete")
                if await self._swapped(path, held, meta):
                    return
        raise _restless()

    async def paths(self) -> list[str]:
        """Return every path in the order of its bytes, each confirmed by opening its metadata."""
        found: list[str] = []
        async for record, _ in self._sealed.scan(SECRET_META):
            found.append(record.id.key)
            if len(found) % _BREATH == 0:
                await asyncio.sleep(0)
        return found

    async def _swapped(
        self,
        path: str,
        held: _Held | None,
        meta: SecretMeta,
        before: Sequence[Change] = (),
        pruned: Sequence[VersionId] = (),
    ) -> bool:
        """Swap the metadata; return False when somebody else did so first.

        Raises:
            FenceError: the store is under another keyring than this book: trying again would not help.
        """
        expected: Expected = MUST_NOT_EXIST if held is None else held.revision
        swap = self._sealed.put(_meta_record(path), encode_meta(meta), expected)
        erased = [await self._erased(path, version_id) for version_id in pruned]
        changes = [*before, swap, *(change for change in erased if change is not None)]
        try:
            await self._sealed.apply(changes)
        except FenceError:
            raise
        except StoreConflictError:
            return False
        return True

    async def _erased(self, path: str, version_id: VersionId) -> Delete | None:
        record_id = _version_record(path, version_id)
        record = await self._sealed.head(record_id)
        return None if record is None else Delete(record_id, record)

    async def _held(self, path: str) -> _Held | None:
        record = await self._sealed.fetch(_meta_record(path))
        return None if record is None else _Held(self._meta_of(path, record), record.revision)

    def _meta_of(self, path: str, record: Record) -> SecretMeta:
        """Open metadata, or remember them: the same sealed bytes at the same path open to the same thing.

        What is remembered holds no secret value. The store is still read each time and stays the truth.
        """
        name = (path, record.blob)
        meta = self._opened.get(name)
        if meta is None:
            meta = decode_meta_untrusted(self._sealed.open(record))
            self._opened[name] = meta
            self._opened_bytes += len(record.blob)
            while self._opened_bytes > _REMEMBERED_BYTES:
                (_, blob), _ = self._opened.popitem(last=False)
                self._opened_bytes -= len(blob)
        return meta

    async def _require_held(self, path: str) -> _Held:
        held = await self._held(path)
        if held is None:
            raise NotFoundError("there is no secret at this path")
        return held

    def _lock(self, path: str) -> asyncio.Lock:
        lock = self._locks.get(path)
        if lock is None:
            lock = self._locks[path] = asyncio.Lock()
        return lock


def _restless() -> StoreUnavailableError:
    return StoreUnavailableError("this secret changes faster than it can be read or written")


def _resolved(meta: SecretMeta, version: int) -> VersionId:
    found = resolve(meta, version)
    if isinstance(found, NotFound):
        raise NotFoundError("there is no such version, or it is deleted")
    return found


def _meta_record(path: str) -> RecordId:
    return RecordId(SECRET_META, path)


def _version_record(path: str, version_id: VersionId) -> RecordId:
    return RecordId(SECRET, path, version_id)
