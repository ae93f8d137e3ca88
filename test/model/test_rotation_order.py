"""The shell does the durable effects of a rotation in the order of the model, and takes the model's cares."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import TypeVar

import pytest

from around_kit import PASSWORD, Around, put, surroundings
from model.rotation_model import steps
from model.rotation_rule import Wish
from model.rotation_world import Budget, Setting, World, is_well, start
from nexus_kit import SUPERUSER, RunningNexus, running
from rotating_kit import asked, until
from spike.error import StoreUnavailableError
from spike.lifecycle import backup
from spike.lifecycle.keyring import Emergency, Phase, RotationKind
from spike.lifecycle.refresh import set_in_force
from spike.nexus.performer import Performer, Point

T = TypeVar("T")
POINTS = {
    "keyring: prepared": Point.PREPARED,
    "stage": Point.STAGE,
    "keyring: distributed": Point.DISTRIBUTED,
    "pending": Point.PENDING,
    "keyring: backed-up": Point.BACKED_UP,
    "keyring: re-encrypting": Point.FLIP,
    "tend: commit": Point.COMMIT,
    "clear what was pending": Point.CLEAR_PENDING,
    "re-encrypt": Point.BATCH,
    "keyring: verified": Point.VERIFIED,
    "keyring: finalizing": Point.FINALIZING,
    "keyring: no rotation": Point.FINALIZED,
}
"""What a step of the model is called in the shell. Others decide nothing: what is purged, noted, paused."""


class Noting(Performer):
    """Notes each effect, and lets a test look right before and behind it."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.before: Callable[[Point], None] = lambda _point: None
        self.behind: Callable[[Point], None] = lambda _point: None

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        self.before(point)
        self.points.append(point)
        done = await super().do(point, act)
        self.behind(point)
        return done


def point_of(name: str) -> Point | None:
    """Return the effect that a step of the model stands for."""
    return POINTS.get(name.removeprefix("rotation: ").removeprefix("rollback: "))


def closed(worlds: set[World], setting: Setting, last: Point | None) -> set[World]:
    """Return these worlds and those behind steps that are no effect of their own, or more of the last one."""
    found, open_ends = set(worlds), list(worlds)
    while open_ends:
        for step in steps(open_ends.pop(), setting):
            if point_of(step.name) in (None, last) and step.world not in found:
                found.add(step.world)
                open_ends.append(step.world)
    return found


def follow(points: Iterable[Point], setting: Setting) -> set[World]:
    """Let the model do these effects one after the other; return where it may be then. It must be able to."""
    last: Point | None = None
    worlds = closed({start(setting)}, setting, last)
    for point in points:
        behind = {
            step.world
            for world in worlds
            for step in steps(world, setting)
            if point_of(step.name) is point
        }
        assert behind, f"the model has no {point} behind {last}"
        worlds, last = closed(behind, setting, point), point
    return worlds


def _running(
    around: Around, performer: Performer
) -> contextlib.AbstractAsyncContextManager[RunningNexus]:
    return running(
        around.directory / "data",
        place=around.directory / "place",
        ca=around.ca,
        password=PASSWORD,
        keepers=around.setting,
        performer=performer,
    )


@pytest.mark.parametrize("kind", RotationKind)
async def test_a_rotation_has_the_effects_of_the_model_in_its_order(
    tmp_path: Path, kind: RotationKind
) -> None:
    wishes = (Wish(),) if kind is RotationKind.ROTATION else (Wish(), Wish(RotationKind.ROLLBACK))
    setting = Setting(Budget(wishes=wishes))
    performer = Noting()
    async with surroundings(tmp_path, 3, 2) as around, _running(around, performer) as nexus:
        await put(nexus, "a")
        await nexus.keepers.look()
        await nexus.rotations.start(asked(window_s=3600), SUPERUSER)
        await until(nexus, Phase.VERIFIED)
        if kind is RotationKind.ROLLBACK:
            await nexus.rotations.rollback("a test", SUPERUSER)
        else:
            await nexus.rotations.finalize(SUPERUSER)
        await until(nexus, "finalized")
    told = [point for point, _ in itertools.groupby(performer.points) if point in POINTS.values()]
    # What is cleared away after a start and behind the end finds nothing.
    first = told.index(Point.PREPARED)
    last = len(told) - told[::-1].index(Point.FINALIZED)
    reached = follow((point for point, _ in itertools.groupby(told[first:last])), setting)
    assert any(is_well(world) and not world.budget.wishes for world in reached)
    assert set(told[first:last]) == set(POINTS.values())


def test_another_order_than_that_of_the_model_is_noticed() -> None:
    order = [Point.PREPARED, Point.DISTRIBUTED, Point.STAGE]
    with pytest.raises(AssertionError, match="no keyring: distributed behind keyring: prepared"):
        follow(order, Setting(Budget(wishes=(Wish(),))))


async def test_nothing_is_named_or_taken_away_before_what_it_depends_on_is_there(
    tmp_path: Path,
) -> None:
    performer = Noting()
    seen: list[Point] = []
    async with surroundings(tmp_path, 3, 2) as around, _running(around, performer) as nexus:
        await put(nexus, "a")
        await nexus.keepers.look()
        store_id = nexus.vault.opened.document.store_id
        place = nexus.vault.places[0].place

        def look(point: Point) -> None:
            document = nexus.vault.opened.document
            pending = place.read_pending(store_id)
            if point is Point.DISTRIBUTED:
                assert None not in {each.staged_set for each in around.keepers.values()}
            elif point is Point.FLIP:
                assert pending is not None
                held = backup.decode_untrusted(pending)
                assert held.keyring.hint.active_root.number == 2
            elif point is Point.CLEAR_PENDING and document.active_root.number == 2:
                active = place.read_backup(store_id)
                assert active is not None
                assert backup.decode_untrusted(active).keyring.hint.active_root.number == 2
            elif point is Point.BATCH:
                assert nexus.vault.guard.is_anchored
                in_force = set_in_force(document)
                assert in_force is not None
                held_sets = {each.committed_set for each in around.keepers.values()}
                assert held_sets == {in_force.id}
            else:
                return
            seen.append(point)

        performer.before = look
        await nexus.rotations.start(asked(window_s=0), SUPERUSER)
        await until(nexus, "finalized")
    wanted = {Point.DISTRIBUTED, Point.FLIP, Point.CLEAR_PENDING, Point.BATCH}
    assert set(seen) == wanted


async def test_a_keeper_commits_the_set_in_force_before_another_one_is_staged_over_it(
    tmp_path: Path,
) -> None:
    """An emergency begins while a Keeper has not committed yet what the rotation before it brought."""
    away = True

    async def before(index: int, action: str) -> None:
        if away and index == 3 and action == "commit":
            raise StoreUnavailableError("the call is lost")

    performer = Noting()
    async with surroundings(tmp_path, 3, 2) as around, _running(around, performer) as nexus:
        await put(nexus, "a")
        await nexus.keepers.look()
        around.before = before
        await nexus.rotations.start(asked(window_s=3600), SUPERUSER)
        await until(nexus, Phase.VERIFIED)
        in_force = set_in_force(nexus.vault.opened.document)
        assert in_force is not None
        assert around.keepers[3].staged_set == in_force.id
        away = False
        kept: list[bool] = []

        def look(point: Point) -> None:
            if point is Point.FLIP:
                kept.append(around.keepers[3].committed_set == in_force.id)

        performer.before = look
        request = asked(emergency=Emergency(("root",)), window_s=None, force=True)
        await nexus.rotations.start(request, SUPERUSER)
        await until(nexus, "finalized")
        assert kept == [True]
