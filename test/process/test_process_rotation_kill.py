"""A real Nexus killed at every durable effect of a rotation, a rollback, an abort, a finalization and an emergency.

`killing_nexus.py` ends itself by SIGKILL before or behind one named effect. The next one is to be killed at a random
effect, and then Nexus as it is shipped goes on. `make proof` writes docs/reference/kill-point.md from this run.
"""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import kill_point_page
from process_kit import Installation, eventually
from rotating_process_kit import (
    Row,
    generations_in_file,
    is_dead,
    is_over,
    phase_in_file,
    put_row,
    rests,
    rows_in_file,
    until,
    wait_until,
)
from size import record, seed, size
from spike.error import NotReadyError
from spike.lifecycle.refusal import RefusalError
from spike.nexus.performer import Point
from spike.wire.rotation import KeyRotateRequest

KILLING = Path(__file__).parent.parent / "killing_nexus.py"
SECRETS = 40
CASES_EACH = 22
"""So many on one store: its keyring tells of every key there ever was."""
ABORT_TRIES = 20


@dataclass
class Scene:
    """One installation, and what was acknowledged there."""

    spike: Installation
    blob: bytes = b""
    good: Row | None = None
    """The row that somebody replaced by an older one."""

    def furnish(self) -> None:
        self.spike.init()
        for number in range(SECRETS):
            self.spike.client.put_secret(f"a/{number}", {"k": str(number)})
        self.blob = self.spike.client.encrypt(b"for others")


Deed = Callable[[Scene], None]


def rotate(scene: Scene) -> None:
    scene.spike.client.start_rotation(KeyRotateRequest(window_s=0))


def rotate_slowly(scene: Scene) -> None:
    scene.spike.client.start_rotation(KeyRotateRequest(window_s=0, max_rate=20))
    until(scene.spike, "re-encrypting")


def keep_open(scene: Scene) -> None:
    scene.spike.client.start_rotation(KeyRotateRequest(window_s=3600))
    until(scene.spike, "verified")


def roll_back(scene: Scene) -> None:
    scene.spike.client.rollback_rotation("a test")


def abort(scene: Scene) -> None:
    """Begin and abort until an abort was quick enough, or Nexus is dead."""
    for _ in range(ABORT_TRIES):
        rotate(scene)
        with contextlib.suppress(RefusalError):
            scene.spike.client.abort_rotation("a test")
        wait_until(scene.spike, "it is aborted", is_over)


def pause(scene: Scene) -> None:
    rotate_slowly(scene)
    scene.spike.client.pause_rotation()


def pace(scene: Scene) -> None:
    rotate_slowly(scene)
    scene.spike.client.set_rotation_pace(0)


def replace_at_once(scene: Scene) -> None:
    scene.spike.client.start_rotation(KeyRotateRequest(leaked=["root"], reason="a test"))


def finalize(scene: Scene) -> None:
    scene.spike.client.finalize_rotation()


def plant_behind(scene: Scene) -> None:
    """Rotate, and put a row from before back, as somebody does who writes the store."""
    (old,) = rows_in_file(scene.spike, "secret", "a/7")
    keep_open(scene)
    stop(scene.spike)
    (scene.good,) = rows_in_file(scene.spike, "secret", "a/7")
    put_row(scene.spike, old)


@dataclass(frozen=True)
class Kill:
    """Where a Nexus ends itself: at the `count`-th effect of a name since its start."""

    point: Point
    side: str
    count: int = 1


@dataclass(frozen=True)
class Case:
    """A kill, and the deed that reaches it; `first` is done before, by a Nexus that nobody kills."""

    name: str
    kill: Kill
    deed: Deed
    first: Deed | None = None


FORWARD = (
    Point.PREPARED,
    Point.STAGE,
    Point.DISTRIBUTED,
    Point.PENDING,
    Point.BACKED_UP,
    Point.FLIP,
    Point.COMMIT,
    Point.BATCH,
    Point.NOTED,
    Point.VERIFIED,
    Point.FINALIZING,
    Point.PURGE,
    Point.FINALIZED,
)
# A Nexus that starts with no rotation clears away once what a kill may have left: the second time is the rotation's.
TIDIED = (Point.CLEAR_PENDING, Point.PURGE)


def cases() -> Iterator[Case]:
    for side in ("before", "behind"):
        for point in (*FORWARD, Point.CLEAR_PENDING):
            once = Kill(point, side)
            fresh = replace(once, count=2) if point in TIDIED else once
            yield Case("rotation", fresh, rotate)
            yield Case("emergency", fresh, replace_at_once)
            yield Case("rollback", once, roll_back, keep_open)
        for point in (Point.FINALIZING, Point.PURGE, Point.FINALIZED):
            yield Case("finalization", Kill(point, side), finalize, keep_open)
        for point in (Point.DROPPED, Point.WITHDRAW):
            yield Case("abort", Kill(point, side), abort)
        yield Case("pause", Kill(Point.HELD, side), pause)
        yield Case("change of pace", Kill(Point.PACED, side), pace)
        for point in (Point.REOPENED, Point.SET_ASIDE):
            yield Case("row planted in the window", Kill(point, side), finalize, plant_behind)


def stop(spike: Installation) -> None:
    """End Nexus in order, without a connection that it would wait for."""
    spike.drop_client()
    spike.stop_nexus()


def start_killing(spike: Installation, kill: Kill) -> None:
    """Start a Nexus that ends itself there, and wait until it serves, or has ended."""
    stop(spike)
    spike.nexus_command = [
        *(sys.executable, str(KILLING)),
        *(kill.point.value, str(kill.count), kill.side),
    ]
    try:
        spike.start_nexus()
    except AssertionError:
        assert is_dead(spike)
    finally:
        spike.nexus_command = []
    wait_until(spike, "Nexus serves", lambda _: True)


def play(scene: Scene, case: Case, chance: random.Random) -> kill_point_page.Row:
    """Kill at the case's effect, kill again at a random one, and start a Nexus that goes on."""
    spike = scene.spike
    scene.good = None
    if case.first is not None:
        case.first(scene)
    start_killing(spike, case.kill)
    with contextlib.suppress(NotReadyError):
        case.deed(scene)
    eventually(f"{case.name} is killed: {case.kill}", lambda: is_dead(spike))
    found = phase_in_file(spike)
    second = Kill(chance.choice(FORWARD), chance.choice(("before", "behind")))
    start_killing(spike, second)
    wait_until(spike, "it went on", rests)
    again = f"{second.side} {second.point}" if is_dead(spike) else "no"
    print(f"{case.name}: killed {case.kill}, found {found}, again: {again}")
    spike.kill_nexus()
    spike.start_nexus()
    spike.wait_until_open()
    return kill_point_page.Row(
        case.name, case.kill.point, case.kill.side, found, again, "nothing lost"
    )


def mend(scene: Scene) -> None:
    """Do what is asked of a person: put back what was replaced past SPIKE, and let the rotation go on."""
    spike = scene.spike
    assert scene.good is not None
    wait_until(spike, "a person is asked", lambda now: now is not None and bool(now.fault))
    told = spike.client.get_rotation()
    assert told is not None
    assert told.paused
    assert "secret a/7" in told.fault
    stop(spike)
    put_row(spike, scene.good)
    spike.start_nexus()
    spike.wait_until_open()
    spike.client.resume_rotation()
    wait_until(spike, "it goes on", lambda now: now is not None and not now.paused)


def end(scene: Scene) -> None:
    """Let whatever the kills have left come to its end, and be told as an operator would see it."""
    spike = scene.spike
    wait_until(spike, "it rests", rests)
    if scene.good is not None:
        mend(scene)
        wait_until(spike, "it rests", rests)
    rotation = spike.client.get_rotation()
    if rotation is not None and rotation.paused:
        spike.client.resume_rotation()
    if rotation is not None and rotation.phase == "verified":
        # What should have ended it or taken it back never began, or it was opened again: the window is open.
        # Without a window it ends by itself, perhaps just now.
        with contextlib.suppress(RefusalError):
            finalize(scene)
    wait_until(spike, "it is over", is_over)


def require_whole(scene: Scene) -> None:
    """Require that all that was acknowledged is there, under one active key of each purpose and no destroyed one."""
    spike = scene.spike
    for number in range(SECRETS):
        assert spike.client.get_secret(f"a/{number}") == {"k": str(number)}
    assert spike.client.decrypt(scene.blob) == b"for others"
    spike.wait_for_keepers()
    eventually("nothing is pending", lambda: not list(spike.place.glob("*.pending")))
    keys = spike.client.list_keys()
    for purpose in ("root", "record", "cipher"):
        states = [key.state for key in keys if key.purpose == purpose]
        assert states.count("active") == 1, (purpose, states)
        assert purpose == "cipher" or set(states) <= {"active", "destroyed"}, (purpose, states)
    (active,) = [k.generation for k in keys if k.purpose == "record" and k.state == "active"]
    assert generations_in_file(spike) == {active}


def test_nexus_killed_at_each_effect_goes_on_and_loses_nothing(tmp_path: Path) -> None:
    number = seed()
    print(f"SPIKE_SEED={number}")
    chance = random.Random(number)
    every = list(cases())
    todo = chance.sample(every, size(test=3, proof=len(every)))
    rows: list[kill_point_page.Row] = []
    for start in range(0, len(todo), CASES_EACH):
        directory = tmp_path / str(start)
        directory.mkdir()
        with Installation(directory, keepers=3) as spike:
            scene = Scene(spike)
            scene.furnish()
            for case in todo[start : start + CASES_EACH]:
                row = play(scene, case, chance)
                end(scene)
                require_whole(scene)
                rows.append(row)
    kill_point_page.write(rows, number)
    record("real Nexus killed at an effect of rotations", len(todo), "nothing lost", seed=number)


def test_every_effect_has_its_kill_and_its_row() -> None:
    every = {point.value for point in Point}
    assert {case.kill.point.value for case in cases()} == every
    assert set(kill_point_page.points()) == every
