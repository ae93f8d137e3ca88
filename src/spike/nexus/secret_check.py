"""Secrets: metadata and versions held against each other in one pass over both, in the order of their paths.

What does not fit is read again: the record that could have changed it is read before and after. If that one is the
same both times, what was seen between was there at that moment; a put or a prune changes both in one write.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from spike.lifecycle.census import BadReason
from spike.nexus.record_check import GONE, READ_ATTEMPTS, Sound
from spike.nexus.verification_scan import Scan
from spike.secret.version import SecretMeta
from spike.storage.protocol import SECRET, SECRET_META, Record, RecordId

_NO_META: Final = "no metadata at this path name it"
_NOT_NAMED: Final = "the metadata of its path do not name it"


class SecretCheck:
    """Looks at every secret through one scan."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._versions: AsyncIterator[Record] = scan.records(SECRET)
        self._version: Record | None = None

    async def run(self) -> None:
        """Count every metadata and version record in the scan's tally."""
        await self._advance()
        async for meta in self._scan.records(SECRET_META):
            # Paths are in the order of their bytes, which is that of their code points.
            while self._version is not None and self._version.id.key < meta.id.key:
                await self._look_at_version(self._version, {}, _NO_META)
            await self._look_at_secret(meta)
        while self._version is not None:
            await self._look_at_version(self._version, {}, _NO_META)

    async def _advance(self) -> None:
        self._version = await anext(self._versions, None)

    async def _look_at_secret(self, meta: Record) -> None:
        path = meta.id.key
        found = await self._scan.count(meta)
        named = None if found is None else _named(found.content)
        while self._version is not None and self._version.id.key == path:
            await self._look_at_version(self._version, named, _NOT_NAMED)
        for version_id, number in (named or {}).items():
            await self._look_for(RecordId(SECRET, path, version_id), number)

    async def _look_at_version(
        self, record: Record, named: dict[str, int] | None, unnamed: str
    ) -> None:
        """Count a version. `named` are those its metadata name and that were not seen yet; None: not known."""
        await self._advance()
        found = await self._scan.examine(record)
        expected = named is None or record.id.version in named
        if found is GONE:
            if named is None or not expected:
                self._scan.tally.note_vanished()
            return  # else it is looked for with those that were not seen
        if named is not None:
            named.pop(record.id.version, None)
        if not isinstance(found, Sound):
            return
        if expected:
            self._scan.tally.note_good()
        else:
            await self._judge_unnamed(record.id, unnamed)

    async def _judge_unnamed(self, record_id: RecordId, detail: str) -> None:
        """Count a version that opens and that no metadata seemed to name."""
        for _ in range(READ_ATTEMPTS):
            before = await self._scan.fetch(record_id)
            if before is None:
                self._scan.tally.note_vanished()
                return
            named = await self._named_now(record_id.key)
            after = await self._scan.fetch(record_id)
            if after is not None and after.revision == before.revision:
                if named is None or record_id.version in named:
                    break
                self._scan.bad(record_id, BadReason.ORPHAN, detail)
                return
        self._scan.tally.note_good()

    async def _look_for(self, record_id: RecordId, number: int) -> None:
        """Count a version that metadata named and the scan did not see."""
        meta_id = RecordId(SECRET_META, record_id.key)
        for _ in range(READ_ATTEMPTS):
            before = await self._scan.fetch(meta_id)
            named = await self._named_now(record_id.key)
            if before is None or named is None or record_id.version not in named:
                break
            version = await self._scan.fetch(record_id)
            if version is not None:
                await self._scan.count(version)
                return
            after = await self._scan.fetch(meta_id)
            if after is not None and after.revision == before.revision:
                detail = f"version {number}, which its metadata name, is not in the store"
                self._scan.bad(record_id, BadReason.MISSING, detail)
                return
        self._scan.tally.note_vanished()

    async def _named_now(self, path: str) -> dict[str, int] | None:
        """Return what the metadata of a path name at this moment; None when they cannot be read."""
        record = await self._scan.fetch(RecordId(SECRET_META, path))
        if record is None:
            return {}
        found = await self._scan.judge(record)
        return _named(found.content) if isinstance(found, Sound) else None


def _named(content: object) -> dict[str, int]:
    """Return the ids that metadata name, with their version numbers."""
    if not isinstance(content, SecretMeta):
        raise TypeError("these are no metadata")
    return {version.id: version.number for version in content.versions}
