"""Policies held against the access list, and the access list against the one in force."""

from __future__ import annotations

from spike.lifecycle.census import BadReason
from spike.nexus.policy_book import ACCESS_LIST_ID
from spike.nexus.record_check import GONE, READ_ATTEMPTS, Sound
from spike.nexus.verification_scan import Scan
from spike.policy.access_list import (
    AccessList,
    Right,
    RightKind,
    is_listed,
)
from spike.storage.protocol import ACCESS_LIST, POLICY, Record, RecordId, Revision


class RightCheck:
    """Looks at rights through one scan."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan
        self._decoded: tuple[Revision, AccessList] | None = None

    async def run(self) -> None:
        """Count the access list and every policy in the scan's tally."""
        await self._look_at_lists()
        listed = await self._list_now()
        wanted = {
            right.name
            for right in ({} if listed is None else listed[1].entries)
            if right.kind is RightKind.POLICY
        }
        async for record in self._scan.records(POLICY):
            await self._look_at_policy(record, None if listed is None else listed[1], wanted)
        for name in sorted(wanted):
            await self._judge(RecordId(POLICY, name))

    async def _look_at_lists(self) -> None:
        seen = False
        async for record in self._scan.records(ACCESS_LIST):
            found = await self._scan.examine(record)
            if record.id != ACCESS_LIST_ID:
                if isinstance(found, Sound):
                    self._scan.bad(record.id, BadReason.ORPHAN, "there is one access list alone")
                elif found is GONE:
                    self._scan.tally.note_vanished()
                continue
            seen = found is not GONE
            if isinstance(found, Sound):
                await self._judge_in_force()
        if not seen:
            self._scan.bad(ACCESS_LIST_ID, BadReason.MISSING, "nobody but superusers has a right")

    async def _judge_in_force(self) -> None:
        """Count the access list, which opens: it must be the one that Nexus decides by."""
        for _ in range(READ_ATTEMPTS):
            policies = self._scan.vault.opened.policies
            async with policies.unchanging():
                listed = await self._list_now()
                in_force = policies.access_generation
            if self._scan.vault.opened.policies is not policies:
                continue  # the keys changed meanwhile, and rights go on in another book
            if listed is not None and listed[1].generation != in_force:
                detail = f"generation {listed[1].generation} is stored, {in_force} is in force"
                self._scan.bad(ACCESS_LIST_ID, BadReason.NOT_IN_FORCE, detail)
                return
            break
        self._scan.tally.note_good()

    async def _look_at_policy(
        self, record: Record, listed: AccessList | None, wanted: set[str]
    ) -> None:
        found = await self._scan.examine(record)
        name = record.id.key
        if found is GONE:
            if name not in wanted:
                self._scan.tally.note_vanished()
            return  # else it is looked for with those that were not seen
        wanted.discard(name)
        if not isinstance(found, Sound):
            return
        right = Right(RightKind.POLICY, name)
        if listed is None or is_listed(listed, right, found.plaintext):
            self._scan.tally.note_good()
        else:
            await self._judge(record.id)

    async def _judge(self, record_id: RecordId) -> None:
        """Count a policy that did not fit the list, or was not seen: both as they were at one moment."""
        right = Right(RightKind.POLICY, record_id.key)
        for _ in range(READ_ATTEMPTS):
            before = await self._list_now()
            row = await self._scan.fetch(record_id)
            after = await self._list_now()
            if before is None or after is None:
                break  # the list was named already; without it nothing follows about a policy
            if before[0] != after[0]:
                continue
            entry = before[1].entries.get(right)
            if row is None:
                self._judge_absent(record_id, listed=entry is not None)
                return
            found = await self._scan.judge(row)
            if not isinstance(found, Sound):
                continue  # it changed since it was opened
            if is_listed(before[1], right, found.plaintext):
                break
            if entry is None:
                self._scan.bad(record_id, BadReason.UNLISTED, "it counts for nothing")
            else:
                detail = "it is not in the form that the access list names; it counts for nothing"
                self._scan.bad(record_id, BadReason.DIFFERING, detail)
            return
        self._scan.tally.note_good()

    def _judge_absent(self, record_id: RecordId, *, listed: bool) -> None:
        if listed:
            detail = "the access list names it, and it is not in the store"
            self._scan.bad(record_id, BadReason.MISSING, detail)
        else:
            self._scan.tally.note_vanished()

    async def _list_now(self) -> tuple[Revision, AccessList] | None:
        """Return the access list as stored, with its revision; None when it cannot be read."""
        record = await self._scan.fetch(ACCESS_LIST_ID)
        if record is None:
            return None
        if self._decoded is not None and self._decoded[0] == record.revision:
            return self._decoded
        found = await self._scan.judge(record)
        if not isinstance(found, Sound) or not isinstance(found.content, AccessList):
            return None
        self._decoded = (found.record.revision, found.content)
        return self._decoded
