"""The schedule: kept by a scheduler on a fake clock, told and changed by calls."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from clock_kit import BIRTH, Clocks, clocked
from lifecycle_kit import AT
from nexus_kit import SUPERUSER, WORKLOAD, RunningNexus, running
from spike.error import RefusedError
from spike.lifecycle.keyring import (
    Emergency,
    Event,
    Keyring,
    Phase,
    Rotation,
    RotationKind,
    Scope,
    Succession,
)
from spike.lifecycle.schedule import Schedule, window_of
from spike.nexus.scheduler import ACTOR, LONGEST_SLEEP_S, REASON_PREFIX, Scheduler
from spike.nexus.usage_book import UsageBook

GET = "/v1/key?action=schedule-get"
SET = "/v1/key?action=schedule-set"
HISTORY = "/v1/key?action=history"
ID = "ab" * 16
NIGHTS = Schedule(
    zone="Europe/Berlin", windows=(window_of(["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "01:00", "05:00"),)
)  # fmt: skip


class World:
    """A Nexus, its clocks, and a scheduler whose rotations are written down instead of made."""

    def __init__(self, nexus: RunningNexus, clocks: Clocks) -> None:
        self.nexus = nexus
        self.clocks = clocks
        self.begun: list[tuple[Scope, str]] = []
        self.held: list[bool] = []
        self.refusal: RefusedError | None = None
        self.scheduler = self.scheduler_anew()

    def scheduler_anew(self) -> Scheduler:
        """Return the scheduler of a Nexus that was started again."""
        usage = UsageBook(self.nexus.vault)
        self.scheduler = Scheduler(self.nexus.vault, usage, self.begin, self.hold)
        return self.scheduler

    async def begin(self, scope: Scope, reason: str) -> str:
        if self.refusal is not None:
            raise self.refusal
        self.begun.append((scope, reason))
        await self.rotating(reason)
        return ID

    async def hold(self, paused: bool) -> None:
        self.held.append(paused)
        await self.pause(ACTOR, paused=paused)

    async def pause(self, actor: str, *, paused: bool) -> None:
        kind = "rotation-paused" if paused else "rotation-resumed"
        await self.change(
            lambda document: msgspec.structs.replace(
                document,
                rotation=msgspec.structs.replace(document.rotation, paused=paused),
                next_event=document.next_event + 1,
                outbox=(
                    Event(document.next_event, "2026-11-23T12:00:00Z", kind, actor, {"id": ID}),
                ),
            )
        )

    async def change(self, step: Any) -> None:
        def following(document: Keyring) -> Keyring:
            changed: Keyring = step(document)
            return msgspec.structs.replace(changed, revision=document.revision + 1)

        await self.nexus.vault.change(lambda ring: ring.replaced(following(ring.document)))

    async def schedule(self, schedule: Schedule) -> None:
        await self.change(lambda document: msgspec.structs.replace(document, schedule=schedule))

    async def rotating(
        self,
        reason: str,
        phase: Phase = Phase.RE_ENCRYPTING,
        emergency: Emergency | None = None,
    ) -> None:
        """Let the keyring say that a rotation is in progress."""
        same = Succession(1, 1)
        rotation = Rotation(
            id=ID, kind=RotationKind.ROTATION, scope=Scope.DATA_ONLY, phase=phase,
            started_at="2026-11-23T12:00:00Z", actor=ACTOR, reason=reason, root=same, record=same,
            cipher=same, window_s=0, max_rate=0, emergency=emergency,
        )  # fmt: skip
        await self.change(lambda document: msgspec.structs.replace(document, rotation=rotation))

    async def ended(self) -> None:
        await self.change(lambda document: msgspec.structs.replace(document, rotation=None))

    def at(self, moment: datetime) -> None:
        """Let the time pass up to a moment."""
        self.clocks.pass_days((moment - self.clocks.wall) / timedelta(days=1))

    async def call(self, target: str, message: object = None, who: str = SUPERUSER) -> Any:
        return await self.nexus.call(who, target, message)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running(tmp_path, born_at=AT) as nexus:
        yield World(nexus, clocked(nexus))


def day(days: float) -> datetime:
    return BIRTH + timedelta(days=days)


def night(date: str, time: str) -> datetime:
    """Return a moment in Berlin's winter."""
    return datetime.fromisoformat(f"{date}T{time}:00+01:00").astimezone(UTC)


async def test_a_rotation_begins_when_a_key_is_due_and_not_before(world: World) -> None:
    world.at(day(89.99))
    assert await world.scheduler.tick() == LONGEST_SLEEP_S
    assert world.begun == []
    world.at(day(90))
    await world.scheduler.tick()
    assert world.begun == [(Scope.DATA_ONLY, f"{REASON_PREFIX}record key 1 is 90 days old")]
    await world.scheduler.tick()
    assert len(world.begun) == 1


async def test_the_root_key_s_date_replaces_everything(world: World) -> None:
    await world.schedule(Schedule(root_days=60))
    world.at(day(60))
    await world.scheduler.tick()
    assert [scope for scope, _ in world.begun] == [Scope.FULL]


async def test_it_wakes_for_the_very_second_and_never_sleeps_longer_than_a_minute(
    world: World,
) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        world.clocks.pass_days(seconds / 86_400)
        if world.begun:
            raise asyncio.CancelledError

    world.at(day(90) - timedelta(seconds=150))
    scheduler = Scheduler(
        world.nexus.vault, UsageBook(world.nexus.vault), world.begin, world.hold, sleep
    )
    with pytest.raises(asyncio.CancelledError):
        await scheduler.run()
    assert slept[:3] == [60, 60, 30]
    assert len(world.begun) == 1


async def test_a_date_outside_of_the_windows_waits_for_the_next_one(world: World) -> None:
    await world.schedule(NIGHTS)
    world.at(day(90))
    await world.scheduler.tick()
    assert world.begun == []
    world.at(night("2027-02-22", "00:59"))
    assert await world.scheduler.tick() == 60
    assert world.begun == []
    world.at(night("2027-02-22", "01:00"))
    await world.scheduler.tick()
    assert len(world.begun) == 1


async def test_re_encryption_rests_between_windows_and_goes_on_in_the_next(world: World) -> None:
    await world.schedule(NIGHTS)
    world.at(night("2027-02-22", "01:00"))
    await world.scheduler.tick()
    assert len(world.begun) == 1
    for moment, held in (
        (("2027-02-22", "04:59"), []),
        (("2027-02-22", "05:00"), [True]),
        (("2027-02-22", "18:00"), [True]),
        (("2027-02-23", "01:00"), [True, False]),
        (("2027-02-23", "05:00"), [True, False, True]),
    ):
        world.at(night(*moment))
        await world.scheduler.tick()
        assert world.held == held, moment


async def test_a_restart_between_windows_and_in_one_changes_nothing_of_that(world: World) -> None:
    await world.schedule(NIGHTS)
    await world.rotating(f"{REASON_PREFIX}x")
    world.at(night("2027-02-22", "12:00"))
    await world.scheduler_anew().tick()
    await world.scheduler_anew().tick()
    assert world.held == [True]
    world.at(night("2027-02-23", "01:00"))
    await world.scheduler_anew().tick()
    assert world.held == [True, False]


async def test_a_root_replacement_in_progress_is_finished_after_the_window(world: World) -> None:
    await world.schedule(NIGHTS)
    world.at(night("2027-02-22", "12:00"))
    for phase in (Phase.PREPARED, Phase.DISTRIBUTED, Phase.BACKED_UP):
        await world.rotating(f"{REASON_PREFIX}x", phase)
        await world.scheduler.tick()
        assert world.held == []
    await world.rotating(f"{REASON_PREFIX}x", Phase.RE_ENCRYPTING)
    await world.scheduler.tick()
    assert world.held == [True]


@pytest.mark.parametrize(
    ("reason", "emergency"),
    [("somebody wants it now", None), (f"{REASON_PREFIX}x", Emergency(leaked=("root",)))],
)
async def test_what_a_person_began_and_an_emergency_ignore_windows(
    world: World, reason: str, emergency: Emergency | None
) -> None:
    await world.schedule(NIGHTS)
    await world.rotating(reason, emergency=emergency)
    world.at(night("2027-02-22", "12:00"))
    await world.scheduler.tick()
    assert world.held == []


async def test_what_a_person_paused_is_not_resumed_by_a_window(world: World) -> None:
    await world.schedule(NIGHTS)
    await world.rotating(f"{REASON_PREFIX}x")
    await world.pause(SUPERUSER, paused=True)
    for moment in (("2027-02-22", "12:00"), ("2027-02-23", "02:00"), ("2027-02-23", "12:00")):
        world.at(night(*moment))
        await world.scheduler_anew().tick()
    assert world.held == []


async def test_what_a_person_resumed_is_not_paused_before_the_next_window(world: World) -> None:
    await world.schedule(NIGHTS)
    await world.rotating(f"{REASON_PREFIX}x")
    world.at(night("2027-02-22", "12:00"))
    await world.scheduler.tick()
    await world.pause(SUPERUSER, paused=False)
    await world.scheduler.tick()
    assert world.held == [True]
    world.at(night("2027-02-23", "02:00"))
    await world.scheduler.tick()
    world.at(night("2027-02-23", "05:00"))
    await world.scheduler.tick()
    assert world.held == [True, True]


@pytest.mark.parametrize("days", [300.0, -300.0])
async def test_a_clock_that_jumps_begins_nothing_and_is_told_once(
    world: World, days: float, caplog: pytest.LogCaptureFixture
) -> None:
    world.at(day(10))
    world.clocks.jump(days)
    with caplog.at_level(logging.WARNING, "spike.nexus.scheduler"):
        for _ in range(3):
            await world.scheduler.tick()
    assert world.begun == []
    assert sum("the clock has jumped" in line for line in caplog.messages) == 1
    _, told = await world.call(GET)
    assert any("the clock has jumped" in alert for alert in told["alerts"])
    assert {key["standing"] for key in told["keys"]} == {"current"}


async def test_a_refused_beginning_is_told_and_tried_again_later(world: World) -> None:
    world.at(day(90))
    world.refusal = RefusedError("a Keeper does not answer")
    await world.scheduler.tick()
    assert "a Keeper does not answer" in world.scheduler.fault
    world.refusal = None
    world.at(day(90) + timedelta(minutes=14))
    await world.scheduler.tick()
    assert world.begun == []
    world.at(day(90) + timedelta(minutes=15))
    await world.scheduler.tick()
    assert len(world.begun) == 1
    assert world.scheduler.fault == ""


async def test_a_locked_vault_is_left_alone(tmp_path: Path) -> None:
    async with running(tmp_path, born=False) as nexus:
        made = World(nexus, clocked(nexus))
        assert await made.scheduler.tick() == LONGEST_SLEEP_S
        assert made.begun == []


async def test_the_use_of_a_key_calls_for_a_rotation_too(world: World) -> None:
    await world.schedule(Schedule(usage_limit=50))
    world.nexus.vault.seal_count.record[1] += 39
    _, told = await world.call(GET)
    record = told["keys"][1]
    assert (record["purpose"], record["limit"]) == ("record", 50)
    assert record["standing"] == "warning"
    assert any("record key 1 is due soon" in alert for alert in told["alerts"])
    _, status = await world.call("/v1/operator/status")
    assert status["remarks"] == told["alerts"]
    world.nexus.vault.seal_count.record[1] += 10
    await world.scheduler.tick()
    assert [scope for scope, _ in world.begun] == [Scope.DATA_ONLY]


async def test_the_call_tells_the_defaults_and_what_comes_next(world: World) -> None:
    status, told = await world.call(GET)
    assert status == 200
    assert told["default"] is True
    assert told["setting"] == {
        "recordDays": 90, "rootDays": 365, "usageLimit": 1_000_000_000, "zone": "UTC", "windows": [],
    }  # fmt: skip
    assert [key["purpose"] for key in told["keys"]] == ["root", "record", "cipher"]
    planned = told["next"]
    assert (planned["scope"], planned["beginsAt"]) == ("data-only", "2027-02-21T12:00:00Z")
    assert planned["ratePerS"] == 1_000
    assert "measured" not in planned
    assert planned["records"] > 0
    assert "alerts" not in told


async def test_the_estimate_is_by_the_last_rotation(world: World) -> None:
    detail = {"id": ID, "re_encrypted": "9000", "seconds": "2.0"}
    await world.change(
        lambda document: msgspec.structs.replace(
            document,
            next_event=document.next_event + 1,
            outbox=(
                Event(
                    document.next_event,
                    "2026-11-23T12:00:00Z",
                    "rotation-re-encrypted",
                    "x",
                    detail,
                ),
            ),
        )
    )
    _, told = await world.call(GET)
    assert (told["next"]["ratePerS"], told["next"]["measured"]) == (4_500, True)


async def test_a_change_is_one_replacement_with_an_event_and_the_same_again_is_none(
    world: World,
) -> None:
    asked = {
        "recordDays": 30, "rootDays": -1, "zone": "Europe/Berlin",
        "windows": [{"days": ["sun", "sat"], "begin": "22:00", "end": "06:00"}],
    }  # fmt: skip
    before = world.nexus.vault.opened.document
    status, told = await world.call(SET, asked)
    assert status == 200
    assert told["setting"] == {
        "recordDays": 30, "rootDays": 0, "usageLimit": 1_000_000_000, "zone": "Europe/Berlin",
        "windows": [{"days": ["sat", "sun"], "begin": "22:00", "end": "06:00"}],
    }  # fmt: skip
    after = world.nexus.vault.opened.document
    assert after.epoch == before.epoch
    _, history = await world.call(HISTORY)
    last = history["events"][-1]
    assert (last["kind"], last["actor"]) == ("schedule-changed", SUPERUSER)
    assert last["detail"]["windows"] == "sat,sun 22:00-06:00"
    await world.call(SET, asked)
    assert world.nexus.vault.opened.document.revision == after.revision


async def test_what_is_not_named_stays_and_a_reset_begins_from_the_defaults(world: World) -> None:
    window = [{"days": ["sun"], "begin": "01:00", "end": "02:00"}]
    await world.call(SET, {"recordDays": 30, "windows": window, "zone": "Europe/Berlin"})
    _, told = await world.call(SET, {"usageLimit": 5_000_000})
    assert (told["setting"]["recordDays"], told["setting"]["usageLimit"]) == (30, 5_000_000)
    assert len(told["setting"]["windows"]) == 1
    _, told = await world.call(SET, {"replaceWindows": True})
    assert told["setting"]["windows"] == []
    assert told["setting"]["recordDays"] == 30
    _, told = await world.call(SET, {"reset": True})
    assert told["default"] is True
    assert world.nexus.vault.opened.document.schedule is None


@pytest.mark.parametrize(
    "asked",
    [
        {"zone": "Europe/Nowhere"},
        {"zone": "Europe"},
        {"zone": "../../../etc/passwd"},
        {"recordDays": 4000},
        {"rootDays": -2},
        {"windows": [{"days": ["mon"], "begin": "25:00", "end": "06:00"}]},
        {"windows": [{"days": ["day"], "begin": "22:00", "end": "06:00"}]},
        {"windows": [{"begin": "22:00", "end": "06:00"}]},
    ],
)
async def test_what_cannot_be_kept_to_is_refused_and_changes_nothing(
    world: World, asked: dict[str, object]
) -> None:
    before = world.nexus.vault.opened.document
    status, told = await world.call(SET, asked)
    assert (status, told["err"]) == (400, "refused_schedule")
    assert told["message"]
    assert world.nexus.vault.opened.document == before


async def test_the_schedule_is_for_the_superuser(world: World) -> None:
    for target in (GET, SET):
        assert (await world.call(target, {}, WORKLOAD))[0] == 401


async def test_keys_are_listed_with_use_and_age(world: World) -> None:
    world.at(day(3))
    secret = {"path": "a", "values": {"k": "v"}}
    await world.call("/v1/store/secrets", secret)
    _, told = await world.call("/v1/key?action=list")
    found = {key["purpose"]: key for key in told["keys"]}
    assert {key["ageS"] for key in told["keys"]} == {3 * 86_400}
    assert found["record"]["sealed"] >= 2
    assert found["cipher"]["sealed"] == 0
    assert "sealed" not in found["root"]
