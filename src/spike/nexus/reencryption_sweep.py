"""After the walk: what is still under the old key was put there past SPIKE. It is named and set aside.

A row is set aside by one write that makes it a record of kind `set-aside`, which nothing reads, and takes it away from
where it was. It is neither re-encrypted, which would make it look honest, nor deleted, which would destroy evidence.
The access list and policies in force are then written again from memory. Of other kinds what had been there is lost
with the planted row, as it would be with a deleted one, and verification names what is missing.

A row that the old key does not open is nothing that SPIKE ever wrote there: damage, or made up. It is named and stays.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, field
from typing import Final

from spike.error import FenceError, FormatError, OpenError, RefusedError, StoreConflictError
from spike.lifecycle.progress import Progress
from spike.nexus.pace import Pace
from spike.nexus.policy_book import ACCESS_LIST_ID
from spike.nexus.record_check import header_generation
from spike.nexus.reencryption_batch import WALKED
from spike.nexus.vault import Vault
from spike.storage.protocol import MUST_NOT_EXIST, POLICY, SET_ASIDE, Delete, Put, Record, RecordId

NAMED_LIMIT: Final = 1_000
_PAGE_RECORDS: Final = 64
_log = logging.getLogger("spike.nexus.reencryption")


@dataclass(slots=True)
class Sweep:
    """What was found under the old key: counted without end, named up to NAMED_LIMIT."""

    set_aside: int = 0
    left: int = 0
    """Rows that the old key does not open."""
    aside_named: list[RecordId] = field(default_factory=list)
    left_named: list[RecordId] = field(default_factory=list)


async def sweep(vault: Vault, walk: Progress) -> Sweep:
    """Look at every record by its header, and set aside what is under the key that was replaced.

    Only after the walk has ended: why nothing honest is there then, see spike.nexus.reencryption.

    Raises:
        RefusedError: the walk has not ended.
        StoreError: the store does not answer; it can be done again.
    """
    if not walk.ended:
        raise RefusedError("the re-encryption has not ended: what is under the old key may be good")
    found, pace = Sweep(), Pace()
    for kind in WALKED:
        after = None
        while True:
            page = await vault.store.scan(kind, "", after, _PAGE_RECORDS)
            for record in page.items:
                await pace.give_way()
                if header_generation(record.blob) == walk.before:
                    await _judge(vault, walk.before, record.id, found)
            after = page.after
            if after is None:
                break
    return found


async def _judge(vault: Vault, before: int, record_id: RecordId, found: Sweep) -> None:
    """Set one record aside if it is still there, still under the old key, and opens."""
    while True:
        opened = vault.require_writable()
        record = await vault.store.get(record_id)
        if record is None or header_generation(record.blob) != before:
            return
        try:
            opened.sealed.open(record)
        except (OpenError, FormatError):
            found.left += 1
            _name(record_id, found.left_named, "is under the old key and does not open")
            return
        try:
            await _set_aside(vault, record)
        except FenceError:
            await vault.settled()
        except StoreConflictError:
            continue  # a writer was quicker: it is looked at again
        else:
            found.set_aside += 1
            _name(record_id, found.aside_named, "was put back past SPIKE and is set aside")
            return


async def _set_aside(vault: Vault, record: Record) -> None:
    """Make a record one that nothing reads. THE COMMIT LINE of setting aside."""
    opened = vault.opened
    aside = Put(_aside_id(record), record.blob, record.generation, MUST_NOT_EXIST)
    if record.id == ACCESS_LIST_ID:
        await opened.policies.put_back_list(aside, record.revision)
        return
    await opened.sealed.apply((aside, Delete(record.id, record.revision)))
    if record.id.kind == POLICY:
        await opened.policies.put_back(record.id.key)


def _aside_id(record: Record) -> RecordId:
    """Return a name that no other row set aside has: the revision is given out once. The key stays readable."""
    told = f"{record.id.kind}/{record.id.version}/{record.revision}"
    return RecordId(SET_ASIDE, record.id.key, hashlib.sha256(told.encode()).hexdigest())


def _name(record_id: RecordId, named: list[RecordId], what: str) -> None:
    if len(named) < NAMED_LIMIT:
        named.append(record_id)
        _log.critical("%s record %r %s %s", record_id.kind, record_id.key, record_id.version, what)
