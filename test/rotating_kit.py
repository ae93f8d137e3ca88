"""Rotations in one process: asked for, waited for, and looked at from every side."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nexus_kit import SUPERUSER, RunningNexus
from spike.lifecycle.keyring import Emergency, Phase, Scope
from spike.nexus.performer import Performer, Point
from spike.nexus.record_check import SEALED_KINDS, header_generation
from spike.nexus.rotation_view import Asked, RotationView

PATIENCE_S = 60.0
T = TypeVar("T")


class Holding(Performer):
    """Waits before one effect until a test lets it go on."""

    def __init__(self, point: Point) -> None:
        self._point = point
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        if point is self._point:
            self.reached.set()
            await self.go_on.wait()
        return await act()


def asked(scope: Scope = Scope.FULL, **changes: object) -> Asked:
    """Return what somebody asks for; with a rollback window unless told otherwise."""
    whole: dict[str, object] = {"scope": scope, "reason": "a test", "window_s": 3600, **changes}
    return Asked(**whole)  # type: ignore[arg-type]


def emergency(*leaked: str) -> Asked:
    """Return an emergency as somebody asks for it."""
    return asked(emergency=Emergency(leaked=leaked or ("root",)))


async def until(nexus: RunningNexus, *states: str) -> RotationView:
    """Return how the rotation is once it is in one of these states; a fault on the way fails."""
    return await seen(nexus, lambda view: view.phase in states)


async def seen(nexus: RunningNexus, wanted: Callable[[RotationView], bool]) -> RotationView:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            view = nexus.rotations.view()
            if view is not None and wanted(view):
                return view
            if view is not None and view.phase in ("failed", "dropped"):
                raise AssertionError(f"{view.phase}: {view.fault}")
            await asyncio.sleep(0.01)


async def rotated(nexus: RunningNexus, request: Asked | None = None) -> RotationView:
    """Rotate and return how it is once everything is verified."""
    await nexus.rotations.start(request or asked(), SUPERUSER)
    return await until(nexus, Phase.VERIFIED, "finalized")


async def put(nexus: RunningNexus, path: str, value: str) -> None:
    status, told = await nexus.call(
        SUPERUSER, "/v1/store/secrets", {"path": path, "values": {"v": value}}
    )
    assert status == 200, told


async def get(nexus: RunningNexus, path: str, version: int = 0) -> str:
    status, told = await nexus.call(
        SUPERUSER, "/v1/store/secrets?action=get", {"path": path, "version": version}
    )
    assert status == 200, told
    return str(told["data"]["v"])


async def encrypt(nexus: RunningNexus, plaintext: bytes) -> dict[str, object]:
    status, told = await nexus.call(
        SUPERUSER, "/v1/cipher/encrypt", {"plaintext": base64.b64encode(plaintext).decode()}
    )
    assert status == 200, told
    return dict(told)


async def decrypt(nexus: RunningNexus, blob: dict[str, object]) -> bytes:
    status, told = await nexus.call(SUPERUSER, "/v1/cipher/decrypt", blob)
    assert status == 200, told
    return base64.b64decode(told["plaintext"])


async def generations(nexus: RunningNexus) -> set[int]:
    """Return under which record keys the stored blobs are, from the blobs themselves."""
    found = set()
    for kind in SEALED_KINDS:
        after = None
        while True:
            page = await nexus.store.scan(kind, "", after, 1000)
            found |= {header_generation(record.blob) for record in page.items}
            after = page.after
            if after is None:
                break
    return found
