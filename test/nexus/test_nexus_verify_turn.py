"""Something is written at the very place where a verification could be fooled by it."""

from __future__ import annotations

import asyncio

from nexus_kit import RunningNexus
from proxy_store import Proxy
from spike.nexus.policy_book import ACCESS_LIST_ID
from spike.nexus.vault import KEYRING_ID
from spike.nexus.verification import Outcome
from spike.policy.rule import Permission, Policy, PolicyName
from spike.storage.protocol import (
    POLICY,
    SECRET,
    SECRET_META,
    Cursor,
    Kind,
    Page,
    Record,
    RecordId,
    Store,
)
from spike.wire.go_time import UnixNs
from verify_kit import Hurry


class Interrupted(Proxy):
    """A store at one place of which something else happens: `after_get` is told each record that was asked for."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked: list[RecordId] = []

    async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - the field's own name
        found = await self.real.get(id)
        self.asked.append(id)
        await self.after_get(id, self.asked.count(id))
        return found

    async def scan(self, kind: Kind, prefix: str, after: Cursor | None, limit: int) -> Page[Record]:
        await self.before_scan(kind)
        return await self.real.scan(kind, prefix, after, limit)

    async def after_get(self, id: RecordId, count: int) -> None:  # noqa: A002 - as above
        """Do nothing."""

    async def before_scan(self, kind: Kind) -> None:
        """Do nothing."""


async def is_good_on(nexus: RunningNexus, store: Interrupted) -> None:
    real, nexus.vault.store = nexus.vault.store, store
    try:
        run, _ = nexus.verifier.start("a test")
        await nexus.verifier.ended()
    finally:
        nexus.vault.store = real
    assert run.outcome is Outcome.GOOD, (run.detail, run.tally.named)


async def test_a_version_pruned_between_its_metadata_and_its_own_turn_is_not_missing(
    nexus: RunningNexus,
) -> None:
    book = nexus.vault.opened.secrets
    await book.put("a", {"k": "v"})

    class Pruning(Interrupted):
        async def before_scan(self, kind: Kind) -> None:
            if kind == SECRET_META:
                # The first page of versions was read: now metadata come to name one that stands before it.
                (seen,) = (await self.real.scan(SECRET, "", None, 1)).items
                while min(each.id for each in (await book.meta("a")).versions) >= seen.id.version:
                    await book.put("a", {"k": "v"})

        async def after_get(self, id: RecordId, count: int) -> None:  # noqa: A002 - as above
            if id == RecordId(SECRET_META, "a") and count == 2:
                for _ in range(10):
                    await book.put("a", {"k": "v"})

    store = Pruning(nexus.store)
    await is_good_on(nexus, store)
    assert store.asked.count(RecordId(SECRET_META, "a")) > 2


async def test_a_policy_deleted_between_the_list_and_its_own_turn_is_not_missing(
    nexus: RunningNexus,
) -> None:
    book = nexus.vault.opened.policies
    rights = frozenset({Permission.READ})

    async def put(path: str) -> None:
        await book.put(
            Policy(PolicyName("p"), "^spiffe://a/b$", path, rights, UnixNs(1), UnixNs(1))
        )

    class Deleting(Interrupted):
        async def before_scan(self, kind: Kind) -> None:
            if kind == POLICY:
                await put("^y")

        async def after_get(self, id: RecordId, count: int) -> None:  # noqa: A002 - as above
            if id == ACCESS_LIST_ID and count == 3:
                await book.delete("p")

    await put("^x")
    store = Deleting(nexus.store)
    await is_good_on(nexus, store)
    assert store.asked.count(ACCESS_LIST_ID) > 3


async def test_a_keyring_that_is_just_taking_the_place_of_another_is_in_force(
    nexus: RunningNexus,
) -> None:
    vault, writers = nexus.vault, Hurry(nexus, 1)

    class Replacing(Interrupted):
        replaced: asyncio.Task[None] | None = None
        written = asyncio.Event()

        async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - as above
            if id == KEYRING_ID and self.replaced is None:
                self.replaced = asyncio.create_task(writers.work[-1]())
                await self.written.wait()
            elif id == KEYRING_ID and not self.written.is_set():
                # The new one is stored and is read back; in memory the old one still counts.
                self.written.set()
                for _ in range(20):
                    await asyncio.sleep(0)
            return await self.real.get(id)

    before = vault.opened.document
    store = Replacing(nexus.store)
    await is_good_on(nexus, store)
    assert store.replaced is not None
    await store.replaced
    assert vault.opened.document != before
