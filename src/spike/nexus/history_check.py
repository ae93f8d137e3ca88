"""The history read from its first entry to its last: each opened, each held against the one before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from spike.error import FormatError
from spike.lifecycle.census import BadReason
from spike.lifecycle.chain import Chain, length_of, sequence_of_untrusted
from spike.lifecycle.history import record_key
from spike.lifecycle.keyring import Event
from spike.nexus.record_check import GONE, Unsound
from spike.nexus.verification_scan import Scan
from spike.storage.protocol import HISTORY, Record, RecordId


@dataclass(frozen=True, slots=True)
class Link:
    """One entry, there or missing. `reason` is None when it is as it must be, else `detail` says what is wrong.

    `counted`: the scan has counted it already.
    """

    id: RecordId
    sequence: int
    event: Event | None
    reason: BadReason | None = None
    detail: str = ""
    counted: bool = False


class HistoryCheck:
    """Reads the history through one scan."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._chain = Chain()
        self._length = length_of(scan.vault.opened.document)

    async def links(self) -> AsyncIterator[Link]:
        """Give every entry that is stored or should be, in order. Entries written meanwhile belong to it."""
        last: Link | None = None
        async for link in self._stored():
            if link.reason is BadReason.ORPHAN or link.sequence == 0:
                yield link  # it is no part of the chain
                continue
            if last is not None:
                yield last
            last = link
        document = await self._scan.settled_document()
        while self._chain.next <= length_of(document):
            if last is not None:
                yield last
            last = await self._next()
        if last is None:
            return
        if last.reason is None and not self._chain.ends_with(document.audit_head):
            last = replace(
                last,
                reason=BadReason.BROKEN_CHAIN,
                detail="it is not the entry that the keyring names as the last one",
            )
        yield last

    async def run(self) -> None:
        """Count every entry in the scan's tally."""
        tally = self._scan.tally
        async for link in self.links():
            if link.counted:
                continue
            if link.reason is None:
                tally.note_good()
            else:
                self._scan.bad(link.id, link.reason, link.detail)

    async def _stored(self) -> AsyncIterator[Link]:
        async for record in self._scan.records(HISTORY):
            try:
                sequence = sequence_of_untrusted(record.id.key)
            except FormatError as error:
                yield Link(record.id, 0, None, BadReason.MALFORMED, error.message)
                continue
            if sequence > self._length:
                self._length = length_of(await self._scan.settled_document())
            if sequence > self._length:
                detail = "it stands behind the end of the history"
                yield Link(record.id, sequence, None, BadReason.ORPHAN, detail)
                continue
            while self._chain.next < sequence:
                yield await self._next()
            if self._chain.next == sequence:
                yield await self._link(record)

    async def _next(self) -> Link:
        """Return the entry that comes next and was not seen by the scan."""
        record_id = RecordId(HISTORY, record_key(self._chain.next))
        record = await self._scan.fetch(record_id)
        return self._missing(record_id) if record is None else await self._link(record)

    async def _link(self, record: Record) -> Link:
        found = await self._scan.examine(record)
        if found is GONE:
            return self._missing(record.id)
        sequence = self._chain.next
        if isinstance(found, Unsound):
            self._chain.skip()
            return Link(record.id, sequence, None, found.reason, found.detail, counted=True)
        event, wrong = self._chain.follow(found.plaintext)
        reason = BadReason.BROKEN_CHAIN if wrong else None
        return Link(record.id, sequence, event, reason, wrong)

    def _missing(self, record_id: RecordId) -> Link:
        sequence = self._chain.next
        self._chain.skip()
        return Link(record_id, sequence, None, BadReason.MISSING, "the history has a gap here")
