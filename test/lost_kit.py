"""A Nexus whose memory is gone: what the tests of restore begin with."""

from __future__ import annotations

import asyncio
import base64
import shutil
from pathlib import Path

from nexus_kit import SUPERUSER, WORKLOAD, RunningNexus, running

PASSWORD = b"zebra lamp orbit cactus 71 violin"
SECRETS = "/v1/store/secrets"
POLICIES = "/v1/acl/policy"
WEB = {
    "name": "web",
    "spiffeidPattern": f"^{WORKLOAD}$",
    "pathPattern": "^a$",
    "permissions": ["read"],
}


class Lost:
    """A Nexus that held two secrets and a policy. Its files and its last anchor are left."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.place = directory / "backup"
        self.anchor = b""
        self.store_id = ""

    @property
    def backup_path(self) -> Path:
        return self.place / f"spike-{self.store_id}.key-backup"

    @property
    def anchor_path(self) -> Path:
        return self.place / f"spike-{self.store_id}.anchor"

    def empty_places(self) -> None:
        """Take the backup place away: only what Pilot remembers is left beside the store."""
        shutil.rmtree(self.place)


def lose(directory: Path) -> Lost:
    """Let a Nexus live in a directory, and lose it. Its slot opens with PASSWORD."""
    held = Lost(directory)

    async def live() -> None:
        async with running(held.data, place=held.place, password=PASSWORD) as nexus:
            await put(nexus, "a", "1")
            await put(nexus, "b", "2")
            assert await nexus.call(SUPERUSER, POLICIES, WEB) == (200, {})
            held.anchor = await anchor_now(nexus)
            held.store_id = nexus.vault.opened.document.store_id

    asyncio.run(live())
    return held


async def put(nexus: RunningNexus, path: str, value: str) -> None:
    """Write a secret with one value, as the superuser."""
    assert await nexus.call(SUPERUSER, SECRETS, {"path": path, "values": {"k": value}}) == (200, {})


async def anchor_now(nexus: RunningNexus) -> bytes:
    """Return the anchor that Pilot would remember."""
    _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
    return base64.b64decode(told["anchor"])
