"""The calls on the schedule: how it is, what comes next, and its change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from spike.error import InputError
from spike.lifecycle import due
from spike.lifecycle import schedule as rules
from spike.lifecycle.keyring import Event, Keyring
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.schedule import DEFAULT, NEVER, Schedule, window_of
from spike.nexus.handler import Handler, Reading
from spike.nexus.opened import Opened
from spike.nexus.schedule_look import Look, look, measured_rate_per_s
from spike.nexus.time_zone import zone_of
from spike.nexus.usage_book import UsageBook
from spike.nexus.vault import Vault
from spike.policy.access import Grant
from spike.storage.protocol import KEYRING
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.message import Empty, GoTime
from spike.wire.schedule import (
    UNLIMITED,
    KeyScheduleSetRequest,
    ScheduleAnswer,
    ScheduleKey,
    ScheduleNext,
    ScheduleSetting,
    ScheduleWindow,
)

_LOOK: Final = "see spike key schedule set --help"


class ScheduleCalls:
    """Handlers bound to one vault. `fault` gives why a rotation that is due could not begin, or ""."""

    def __init__(
        self, vault: Vault, usage: UsageBook, fault: Callable[[], str] = lambda: ""
    ) -> None:
        self._vault = vault
        self._usage = usage
        self._fault = fault

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.KEY_SCHEDULE_GET.name: Reading(self.get),
            call.KEY_SCHEDULE_SET.name: Reading(self.set),
        }

    async def get(self, _grant: Grant, opened: Opened, _asked: Empty) -> ScheduleAnswer:
        """Tell the schedule, how far each key is and what comes next."""
        seen = await look(self._vault, self._usage)
        return _answer(seen, await self._next(opened, seen), self._fault())

    async def set(
        self, grant: Grant, _opened: Opened, asked: KeyScheduleSetRequest
    ) -> ScheduleAnswer:
        """Change the schedule, also while a rotation is in progress. Asked for what is so already, write nothing.

        Raises:
            RefusalError: SCHEDULE, it could not be kept to.
        """
        async with self._vault.lock:
            document = self._vault.opened.document
            following = _checked(due.schedule_of(document), asked)
            if following != due.schedule_of(document):
                at = self._vault.moment()
                await self._vault.change(
                    lambda ring: ring.replaced(
                        with_schedule(ring.document, following, at, str(grant.peer))
                    )
                )
        await self._vault.guard.anchored()
        return await self.get(grant, self._vault.opened, Empty())

    async def _next(self, opened: Opened, seen: Look) -> ScheduleNext | None:
        if seen.planned is None or seen.zone is None:
            return None
        census = await self._vault.store.census()
        records = sum(count for (kind, _), count in census.items() if kind != KEYRING)
        planned = seen.planned
        took = due.estimate(
            seen.schedule,
            seen.zone,
            planned.begins_at,
            records,
            await measured_rate_per_s(opened),
        )
        return ScheduleNext(
            scope=planned.scope,
            due_at=_time(planned.due_at),
            begins_at=_time(planned.begins_at),
            reason=planned.why,
            records=records,
            rate_per_s=took.rate_per_s,
            seconds=took.seconds,
            measured=took.is_measured,
            window_ends_at=None if took.ends_at is None else _time(took.ends_at),
            fits=took.fits,
        )


def _checked(schedule: Schedule, asked: KeyScheduleSetRequest) -> Schedule:
    """Return the schedule with what was asked for, if it can be kept to.

    Raises:
        RefusalError: SCHEDULE, and what is wrong with it.
    """
    try:
        following = changed(schedule, asked)
        rules.check(following)
        zone_of(following.zone)
    except InputError as error:
        raise RefusalError(Reason.SCHEDULE, error.message, error.next_step or _LOOK) from error
    return following


def changed(schedule: Schedule, asked: KeyScheduleSetRequest) -> Schedule:
    """Return the schedule with what was asked for.

    Raises:
        InputError: a window is none.
    """
    before = DEFAULT if asked.reset else schedule
    windows = before.windows
    if asked.replace_windows or asked.windows:
        windows = tuple(window_of(each.days, each.begin, each.end) for each in asked.windows)
    return Schedule(
        record_days=_number(before.record_days, asked.record_days),
        root_days=_number(before.root_days, asked.root_days),
        usage_limit=_number(before.usage_limit, asked.usage_limit),
        zone=asked.zone or before.zone,
        windows=windows,
    )


def _number(before: int, asked: int) -> int:
    if asked == UNLIMITED:
        return NEVER
    return asked or before


def with_schedule(document: Keyring, schedule: Schedule, at: str, actor: str) -> Keyring:
    """Return the keyring with another schedule, one revision later."""
    event = Event(
        sequence=document.next_event,
        at=at,
        kind="schedule-changed",
        actor=actor,
        detail={
            "record_days": str(schedule.record_days),
            "root_days": str(schedule.root_days),
            "usage_limit": str(schedule.usage_limit),
            "zone": schedule.zone,
            "windows": "; ".join(
                f"{','.join(each.days)} {each.begin}-{each.end}" for each in schedule.windows
            ),
        },
    )
    return msgspec.structs.replace(
        document,
        revision=document.revision + 1,
        replaced_at=at,
        schedule=None if schedule == DEFAULT else schedule,
        next_event=document.next_event + 1,
        outbox=(*document.outbox, event),
    )


def _answer(seen: Look, following: ScheduleNext | None, fault: str) -> ScheduleAnswer:
    schedule = seen.schedule
    return ScheduleAnswer(
        now=_time(seen.now),
        setting=ScheduleSetting(
            record_days=schedule.record_days,
            root_days=schedule.root_days,
            usage_limit=schedule.usage_limit,
            zone=schedule.zone,
            windows=[
                ScheduleWindow([day.value for day in each.days], each.begin, each.end)
                for each in schedule.windows
            ],
        ),
        keys=[
            ScheduleKey(
                purpose=use.purpose,
                generation=use.generation,
                standing=seen.standing(use),
                since=_time(use.since),
                spent=int(use.share(seen.now) * 100),
                due_at=None if use.due_at is None else _time(use.due_at),
                expires_at=None if use.expires_at is None else _time(use.expires_at),
                used=use.used,
                limit=use.limit,
            )
            for use in seen.uses
        ],
        default=seen.document.schedule is None,
        open=seen.zone is not None and rules.is_open(schedule, seen.zone, seen.now),
        next=following,
        alerts=[*seen.alerts, *([fault] if fault else [])],
    )


def _time(at: datetime) -> GoTime:
    return GoTime(at.strftime("%Y-%m-%dT%H:%M:%SZ"))
