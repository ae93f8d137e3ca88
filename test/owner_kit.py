"""Owners of secrets, policies and ciphertexts who are busy all the time, and know what was acknowledged to them."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import secrets
from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol

from nexus_kit import SUPERUSER, RunningNexus
from reencryption_kit import policy


class Busy(Protocol):
    """Who does one thing after the other; `count` is how many."""

    count: int

    async def act(self) -> None:
        """Do one thing."""

    async def look_at_all(self) -> None:
        """Require that everything is as it was acknowledged."""


class Owner:
    """One writer with paths and policies of his own, who knows what was acknowledged to him."""

    def __init__(self, nexus: RunningNexus, name: str, chosen: random.Random) -> None:
        self._nexus, self._name, self._random = nexus, name, chosen
        self._versions: dict[str, list[tuple[dict[str, str], bool]]] = {}
        self._policies: dict[str, str] = {}
        self.count = 0

    async def call(self, target: str, message: object) -> object:
        """Call as the superuser. A failed request is a defect: nothing is tried twice here."""
        status, body = await self._nexus.call(SUPERUSER, target, message)
        assert status == 200, (target, status, body)
        self.count += 1
        return body

    async def act(self) -> None:
        """Do one thing."""
        path = f"{self._name}/{self._random.randrange(6)}"
        kept = self._versions.setdefault(path, [])
        choice = self._random.random()
        if not kept or choice < 0.45:
            values = {"k": secrets.token_hex(8)}
            await self.call("/v1/store/secrets", {"path": path, "values": values})
            kept.append((values, True))
        elif choice < 0.6:
            at = self._random.randrange(max(0, len(kept) - 10), len(kept))
            await self.call("/v1/store/secrets?action=delete", {"path": path, "versions": [at + 1]})
            kept[at] = (kept[at][0], False)
        elif choice < 0.7 and not kept[-1][1]:
            target = "/v1/store/secrets?action=undelete"
            await self.call(target, {"path": path, "versions": [len(kept)]})
            kept[-1] = (kept[-1][0], True)
        elif choice < 0.85:
            name = f"{self._name}-{self._random.randrange(3)}"
            found = policy(name, f"^{secrets.token_hex(4)}")
            await self.call(
                "/v1/acl/policy",
                {
                    "name": name,
                    "spiffeidPattern": found.spiffe_id_pattern,
                    "pathPattern": found.path_pattern,
                    "permissions": ["read"],
                },
            )
            self._policies[name] = found.path_pattern
        elif self._policies and choice < 0.9:
            name = self._random.choice(sorted(self._policies))
            await self.call("/v1/acl/policy?action=delete", {"id": name})
            del self._policies[name]
        else:
            await self.look(path)

    async def look(self, path: str) -> None:
        """Compare what is read with what was acknowledged: the versions that are kept, live or deleted."""
        kept = self._versions[path]
        for at in range(max(0, len(kept) - 10), len(kept)):
            status, body = await self._nexus.call(
                SUPERUSER, "/v1/store/secrets?action=get", {"path": path, "version": at + 1}
            )
            values, is_live = kept[at]
            assert status == (200 if is_live else 404), (path, at + 1, status)
            if is_live:
                assert body["data"] == values

    async def look_at_all(self) -> None:
        for path in self._versions:
            await self.look(path)
        book = self._nexus.vault.opened.policies
        mine = {it.name: it.path_pattern for it in book.all() if it.name.startswith(self._name)}
        assert mine == self._policies


class CipherUser:
    """One who has encrypted, keeps the ciphertexts outside, and reads them again for ever."""

    def __init__(self, nexus: RunningNexus, chosen: random.Random) -> None:
        self._nexus, self._random = nexus, chosen
        self._kept: list[tuple[bytes, dict[str, Any]]] = []
        self.count = 0

    async def act(self) -> None:
        """Encrypt something, or read again what was encrypted at any time before."""
        self.count += 1
        if not self._kept or self._random.random() < 0.2:
            plain = secrets.token_bytes(self._random.randrange(1, 2_000))
            message = {"plaintext": base64.b64encode(plain).decode()}
            status, body = await self._nexus.call(SUPERUSER, "/v1/cipher/encrypt", message)
            assert status == 200, body
            self._kept.append((plain, dict(body)))
        else:
            await self._look(*self._random.choice(self._kept))

    async def look_at_all(self) -> None:
        for plain, blob in self._kept:
            await self._look(plain, blob)

    async def _look(self, plain: bytes, blob: dict[str, Any]) -> None:
        status, body = await self._nexus.call(SUPERUSER, "/v1/cipher/decrypt", blob)
        assert status == 200, body
        assert base64.b64decode(body["plaintext"]) == plain


@contextlib.asynccontextmanager
async def at_work(owners: Sequence[Busy]) -> AsyncIterator[None]:
    """Let owners act until the end of the block; what failed is raised then."""
    over = asyncio.Event()

    async def again(owner: Busy) -> None:
        while not over.is_set():
            await owner.act()

    tasks = [asyncio.create_task(again(owner)) for owner in owners]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*tasks)
