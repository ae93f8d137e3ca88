"""Nexus or a Keeper killed at every durable step of a rotation, a rollback, an abort, an emergency and a finalization.

A step is a call that reaches a Keeper, a write that reaches the store, or one that reaches a backup place. A killed
Nexus does nothing more anywhere, and another one starts on what is left; it may be killed again. In the end everything
that was acknowledged is there, one generation of each key is active, and nothing lies under a destroyed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import pytest

import rotating_kit
from around_kit import PASSWORD, Around, eventually, states, surroundings
from nexus_kit import SUPERUSER, RunningNexus, running
from rotating_kit import PATIENCE_S, asked, decrypt, encrypt, generations, get, put
from size import record, seed, size
from spike.error import SpikeError, StoreUnavailableError
from spike.lifecycle.keyring import KeyPurpose, Phase
from spike.lifecycle.state import State
from spike.lifecycle.supply import KeeperState
from spike.nexus.performer import Performer, Point
from spike.nexus.place import Place
from spike.storage.protocol import Change, Revision, Store
from spike.storage.registry import open_store

T = TypeVar("T")
POLICY = {
    "name": "web",
    "spiffeidPattern": "^spiffe://spike\\.ist/web$",
    "pathPattern": "^a/",
    "permissions": ["read"],
}
_point: ContextVar[str] = ContextVar("point", default="")


class Victim(Enum):
    """Who is killed, and on which side of the effect."""

    NEXUS_BEFORE = "Nexus, before the effect"
    NEXUS_AFTER = "Nexus, after the effect and before its answer"
    KEEPER = "the Keeper that is called, or Keeper 1 at any other step"


@dataclass(frozen=True)
class Step:
    """One durable effect: what it was, and the point it is named by, where that is known on this side."""

    name: str
    point: str


@dataclass
class Killer:
    """Counts the steps and kills at one of them."""

    around: Around
    kill_at: int | None = None
    victim: Victim = Victim.NEXUS_BEFORE
    steps: list[Step] = field(default_factory=list)
    points: set[Point] = field(default_factory=set)
    nexus_is_dead: bool = False
    armed: bool = False

    def aim(self, kill_at: int | None, victim: Victim = Victim.NEXUS_BEFORE) -> None:
        """Kill at the step with this number, counted from now."""
        self.kill_at, self.victim, self.steps, self.nexus_is_dead = kill_at, victim, [], False

    async def keeper_called(self, index: int, action: str) -> None:
        self.step(f"{action} at Keeper {index}", index)

    def step(self, name: str, keeper: int = 1) -> None:
        if self.nexus_is_dead:
            raise StoreUnavailableError("a dead Nexus does nothing")
        if not self.armed:
            return
        self.steps.append(Step(name, _point.get()))
        if len(self.steps) - 1 != self.kill_at:
            return
        if self.victim is Victim.KEEPER:
            self.around.keepers[keeper].safe.wipe()
        else:
            self.nexus_is_dead = True
            if self.victim is Victim.NEXUS_BEFORE:
                raise StoreUnavailableError("killed")

    def behind(self) -> None:
        """The effect is done; a Nexus that was killed behind it does not learn that."""
        if self.nexus_is_dead:
            raise StoreUnavailableError("killed")


class KilledStore:
    """A store that a killed Nexus can no longer write to, and whose last answer it may not see."""

    def __init__(self, store: Store, killer: Killer) -> None:
        self._store = store
        self._killer = killer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        self._killer.step("a write to the store")
        done = await self._store.apply(changes, fence=fence)
        self._killer.behind()
        return done

    async def purge(self, budget_bytes: int) -> int:
        self._killer.step("a purge of the store")
        left = await self._store.purge(budget_bytes)
        self._killer.behind()
        return left


@dataclass(frozen=True, slots=True)
class KilledPlace(Place):
    """A backup place that a killed Nexus can no longer write to."""

    killer: Killer

    def _write(self, path: Path, raw: bytes) -> None:
        self.killer.step(f"a write of {path.suffix[1:]} to the place")
        Place._write(self, path, raw)
        self.killer.behind()

    def remove_pending(self, store_id: str) -> None:
        self.killer.step("a removal at the place")
        Place.remove_pending(self, store_id)
        self.killer.behind()


class NamingPerformer(Performer):
    """Performs as the shipped one does, and lets each write know by which point it is named."""

    def __init__(self, killer: Killer) -> None:
        self._killer = killer

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        token = _point.set(point.value)
        self._killer.points.add(point)
        try:
            return await act()
        finally:
            _point.reset(token)


@contextlib.asynccontextmanager
async def nexus_on(
    around: Around, killer: Killer, *, born: bool = False
) -> AsyncIterator[RunningNexus]:
    store = await open_store("sqlite", around.directory / "data")
    place = KilledPlace(around.directory / "place", killer)
    try:
        wrapped: Any = KilledStore(store, killer)
        async with running(
            store=wrapped,
            places=(place,),
            ca=around.ca,
            born=born,
            password=PASSWORD if born else None,
            keepers=around.setting,
            unattended=not born,
            performer=NamingPerformer(killer),
        ) as nexus:
            yield nexus
    finally:
        await store.close()


@dataclass
class Kept:
    """What was acknowledged, and has to be there whatever happens."""

    values: dict[tuple[str, int], str] = field(default_factory=dict)
    blobs: list[dict[str, object]] = field(default_factory=list)

    async def fill(self, nexus: RunningNexus) -> None:
        for path in ("a/live", "a/older", "a/deleted"):
            for version in (1, 2):
                await put(nexus, path, f"{path} {version}")
                self.values[path, version] = f"{path} {version}"
        target = "/v1/store/secrets?action=delete"
        assert (await nexus.call(SUPERUSER, target, {"path": "a/deleted", "versions": [1]}))[
            0
        ] == 200
        assert (await nexus.call(SUPERUSER, "/v1/acl/policy", POLICY))[0] == 200
        self.blobs.append(await encrypt(nexus, b"for others"))

    async def require(self, nexus: RunningNexus) -> None:
        for (path, version), value in self.values.items():
            if (path, version) == ("a/deleted", 1):
                target = "/v1/store/secrets?action=undelete"
                told = await nexus.call(SUPERUSER, target, {"path": path, "versions": [1]})
                assert told[0] == 200, told
            assert await get(nexus, path, version) == value
        status, told = await nexus.call(SUPERUSER, "/v1/acl/policy?action=get", {"id": "web"})
        assert (status, told["pathPattern"]) == (200, POLICY["pathPattern"])
        for blob in self.blobs:
            assert await decrypt(nexus, blob) == b"for others"


Deed = Callable[[RunningNexus], Awaitable[None]]


async def rotated(nexus: RunningNexus) -> None:
    await nexus.rotations.start(asked(window_s=0), SUPERUSER)
    await over(nexus)


async def rolled_back(nexus: RunningNexus) -> None:
    await nexus.rotations.rollback("a test", SUPERUSER)
    # Dropped, it leaves the rotation that it should have taken back as it was.
    await carried_out(nexus)


async def aborted(nexus: RunningNexus) -> None:
    started = await nexus.rotations.start(asked(window_s=0), SUPERUSER)
    with contextlib.suppress(SpikeError):
        await nexus.rotations.abort(SUPERUSER, "a test")
    assert started.id
    await over(nexus)


async def replaced_at_once(nexus: RunningNexus) -> None:
    await nexus.rotations.start(rotating_kit.emergency(), SUPERUSER)
    await over(nexus)


async def carried_out(nexus: RunningNexus) -> None:
    """Wait until nothing is left to do but to wait for the end of a window, or this Nexus is dead."""

    def rests() -> bool:
        rotation = nexus.vault.opened.document.rotation
        return rotation is None or (rotation.phase is Phase.VERIFIED and bool(rotation.window_s))

    await eventually(lambda: rests() or _is_dead(nexus), PATIENCE_S)
    await eventually(lambda: not nexus.rotations.is_busy or _is_dead(nexus), PATIENCE_S)


async def over(nexus: RunningNexus) -> None:
    """Wait until a rotation has ended, or this Nexus is dead and nothing can."""
    await eventually(
        lambda: nexus.vault.opened.document.rotation is None or _is_dead(nexus), PATIENCE_S
    )
    await eventually(lambda: not nexus.rotations.is_busy or _is_dead(nexus), PATIENCE_S)


def _is_dead(nexus: RunningNexus) -> bool:
    store: Any = nexus.store
    return bool(store._killer.nexus_is_dead)


DEEDS: dict[str, Deed] = {
    "rotation": rotated,
    "rollback": rolled_back,
    "abort": aborted,
    "emergency": replaced_at_once,
}


async def play(
    directory: Path, name: str, kills: Sequence[tuple[int, Victim]]
) -> tuple[list[Step], set[Point]]:
    """Do the deed, kill at a step; start again, perhaps kill again; require that nothing is lost. Return the steps."""
    async with surroundings(directory, 3, 2) as around:
        killer = Killer(around)
        around.before = killer.keeper_called
        kept, waiting = Kept(), [*kills]
        first: list[Step] = []
        async with nexus_on(around, killer, born=True) as nexus:
            await kept.fill(nexus)
            if name == "rollback":
                await nexus.rotations.start(asked(), SUPERUSER)
                await rotating_kit.until(nexus, Phase.VERIFIED)
            killer.aim(*(waiting.pop(0) if waiting else (None,)))
            killer.armed = True
            with contextlib.suppress(SpikeError):
                await DEEDS[name](nexus)
            first = killer.steps
        while waiting:
            killer.aim(*waiting.pop(0))
            async with nexus_on(around, killer) as nexus:
                with contextlib.suppress(SpikeError):
                    await opened(nexus)
                    await carried_out(nexus)
        killer.armed = False
        killer.aim(None)
        async with nexus_on(around, killer) as nexus:
            await opened(nexus)
            rotation = nexus.vault.opened.document.rotation
            if rotation is not None and rotation.window_s:
                # The rollback never began: what it should have taken back stands.
                await nexus.rotations.finalize(SUPERUSER)
            await over(nexus)
            await require_whole(nexus, around, kept, name)
        return first, killer.points


async def opened(nexus: RunningNexus) -> None:
    await eventually(lambda: nexus.vault.is_open or _is_dead(nexus))


async def require_whole(nexus: RunningNexus, around: Around, kept: Kept, name: str) -> None:
    await kept.require(nexus)
    await put(nexus, "a/new", "new")
    document = nexus.vault.opened.document
    assert document.rotation is None
    assert [root.state for root in document.roots].count(State.ACTIVE) == 1
    assert {root.state for root in document.roots} <= {State.ACTIVE, State.DESTROYED}
    live = {k.number for k in document.keys if k.purpose is KeyPurpose.RECORD and k.is_live}
    assert live == {document.active_key(KeyPurpose.RECORD).number}
    assert await generations(nexus) == live
    if name == "emergency" and len(document.roots) > 1:  # once begun, it is never given up
        assert document.active_root.number > 1
    await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)
    (in_force,) = document.share_sets
    assert {keeper.committed_set for keeper in around.keepers.values()} == {in_force.id}
    await eventually(lambda: all(keeper.staged_set is None for keeper in around.keepers.values()))
    assert not list((around.directory / "place").glob("*.pending"))


@pytest.mark.parametrize("name", DEEDS)
async def test_a_kill_at_any_step_loses_nothing_and_is_made_good(tmp_path: Path, name: str) -> None:
    number = seed()
    chance = random.Random(number)
    whole = tmp_path / "whole"
    whole.mkdir()
    steps, _ = await play(whole, name, [])
    print(f"{name}: {len(steps)} steps")
    unnamed = [step for step in steps if not step.point and "store" in step.name]
    assert not unnamed, unnamed
    cases = [(step, victim) for step in range(len(steps)) for victim in Victim]
    chosen = chance.sample(cases, min(len(cases), size(test=4, proof=len(cases))))
    for step, victim in chosen:
        # Two of three Keepers lost at once are more than what is promised.
        able = [each for each in Victim if each is not Victim.KEEPER or victim is not each]
        second = (chance.randrange(len(steps)), chance.choice(able))
        print(f"{name}: {victim.value}, at {step} ({steps[step]}); then {second}; seed {number}")
        directory = tmp_path / f"{step}-{victim.name}"
        directory.mkdir()
        async with asyncio.timeout(300):
            await play(directory, name, [(step, victim), second])
    record(f"kills at a step of a {name}, twice each", len(chosen), "nothing lost", seed=number)
