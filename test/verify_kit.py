"""What tests of the verification share: writers in a hurry, and a store with many secrets."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
from collections.abc import AsyncIterator

import msgspec

from nexus_kit import RunningNexus
from spike.error import NotFoundError
from spike.lifecycle.keyring import Event
from spike.nexus.secret_book import SecretBook
from spike.policy.rule import Permission, Policy, PolicyName
from spike.secret.encoding import encode_meta, encode_values
from spike.secret.version import SecretMeta, Version, VersionId, VersionNumber
from spike.storage.protocol import (
    MUST_NOT_EXIST,
    SECRET,
    SECRET_META,
    Change,
    RecordId,
)
from spike.wire.go_time import UnixNs

PATHS = 40


class Hurry:
    """Writers of everything that can be written, until they are stopped."""

    def __init__(self, nexus: RunningNexus, chosen: int) -> None:
        self.nexus = nexus
        self.random = random.Random(chosen)
        self.count = 0
        self.work = (self._put, self._put, self._delete, self._policy, self._event)

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._again(each)) for each in self.work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended

    async def _again(self, work: object) -> None:
        while True:
            await work()  # type: ignore[operator]
            self.count += 1
            await asyncio.sleep(0)

    @property
    def book(self) -> SecretBook:
        return self.nexus.vault.opened.secrets

    def _path(self) -> str:
        return f"tenant/{self.random.randrange(PATHS):03d}"

    async def _put(self) -> None:
        await self.book.put(self._path(), {"k": secrets.token_hex(20)})

    async def _delete(self) -> None:
        with contextlib.suppress(NotFoundError):
            await self.book.delete(self._path(), [self.random.randrange(5)])
            await self.book.undelete(self._path(), [])

    async def _policy(self) -> None:
        book = self.nexus.vault.opened.policies
        name = PolicyName(f"p{self.random.randrange(6)}")
        rights = frozenset({self.random.choice(list(Permission))})
        await book.put(Policy(name, "^spiffe://a/b$", "^x", rights, UnixNs(1), UnixNs(2)))
        if self.random.random() < 0.5:
            with contextlib.suppress(NotFoundError):
                await book.delete(f"p{self.random.randrange(6)}")

    async def _event(self) -> None:
        vault = self.nexus.vault
        async with vault.lock:
            document = vault.opened.document
            event = Event(
                sequence=document.next_event, at=vault.moment(), kind="test", actor="t", detail={}
            )
            later = msgspec.structs.replace(
                document,
                revision=document.revision + 1,
                next_event=document.next_event + 1,
                outbox=(*document.outbox, event),
            )
            await vault.advance(vault.opened.ring.replaced(later))


async def fill(nexus: RunningNexus, count: int) -> None:
    """Write secrets behind those that are there."""
    sealed, now, salt = nexus.vault.opened.sealed, UnixNs(1), secrets.token_hex(4)
    values = encode_values({"k": "v" * 100})
    changes: list[Change] = []
    for number in range(count):
        path, version_id = f"many/{salt}/{number:08d}", VersionId(f"{number:032x}")
        meta = SecretMeta((Version(VersionNumber(1), version_id, now, None),), 10, now, now)
        changes.append(sealed.put(RecordId(SECRET, path, version_id), values, MUST_NOT_EXIST))
        changes.append(sealed.put(RecordId(SECRET_META, path), encode_meta(meta), MUST_NOT_EXIST))
        if len(changes) >= 4000 or number == count - 1:
            await sealed.apply(changes)
            changes.clear()
