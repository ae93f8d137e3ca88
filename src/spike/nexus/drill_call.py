"""The calls on drills."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping

import msgspec

from spike.error import InputError
from spike.lifecycle.keyring import Event
from spike.lifecycle.proof import DrillKind, Outcome
from spike.nexus.drill import DrillDesk, detail_of
from spike.nexus.drill_recovery import Drill as Made
from spike.nexus.drill_recovery import Password
from spike.nexus.handler import Handler, Reading, Writing
from spike.nexus.keeper_call import rehearsal_of
from spike.nexus.opened import Opened
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.recent_event import recent_events
from spike.nexus.rehearsal import Rehearser
from spike.nexus.status_proof import due_dates
from spike.nexus.vault import Vault
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.drill import (
    NAME_LIMIT,
    NOTE_LIMIT,
    Drill,
    DrillBeginRequest,
    DrillRecordRequest,
    DrillReportAnswer,
    DrillStep,
)
from spike.wire.message import Empty, GoTime

_SHOWN = 50
"""The most drills a report has."""
_RUNNING = "running"
_KINDS = frozenset(kind.value for kind in DrillKind)


class DrillCalls:
    """Handlers bound to the drills of one vault."""

    def __init__(
        self, vault: Vault, drills: DrillDesk, desk: PasswordDesk, rehearser: Rehearser
    ) -> None:
        self._vault = vault
        self._drills = drills
        self._desk = desk
        self._rehearser = rehearser

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.DRILL_BEGIN.name: Reading(self.begin),
            call.DRILL_REPORT.name: Reading(self.report),
            call.DRILL_RECORD.name: Writing(self.record),
        }

    async def begin(self, grant: Grant, _opened: Opened, asked: DrillBeginRequest) -> Drill:
        """Begin a drill.

        Raises:
            RefusalError: BUSY, UNSUPPORTED, or what a restore would say of the password.
        """
        actor = str(grant.peer)
        password = None
        if asked.session:
            session = self._desk.take(asked.session, actor)
            password = Password(session, asked.sealed_password, asked.slot_name)
        return drill_of(await self._drills.begin(actor, full=asked.full, password=password))

    async def report(self, _grant: Grant, opened: Opened, _asked: Empty) -> DrillReportAnswer:
        """Tell what is known of drills."""
        document, now = opened.document, self._vault.moment()
        by_itself, person = due_dates(document, now)
        last = self._drills.last
        rehearsed = self._rehearser.last
        return DrillReportAnswer(
            at=GoTime(now),
            store_id=document.store_id,
            lineage=document.lineage,
            epoch=document.epoch,
            root_generation=document.active_root.number,
            drill=by_itself,
            person=person,
            drills=[each async for each in _noted(opened)],
            last=None if last is None else drill_of(last),
            rehearsal=None if rehearsed is None else rehearsal_of(rehearsed),
        )

    async def record(self, grant: Grant, _opened: Opened, asked: DrillRecordRequest) -> Empty:
        """Note that people practised a runbook."""
        if not 1 <= len(asked.name) <= NAME_LIMIT or not asked.name.isprintable():
            raise InputError(f"a name has 1 to {NAME_LIMIT} printable characters")
        if len(asked.note) > NOTE_LIMIT or not asked.note.isprintable():
            raise InputError(f"a note has at most {NOTE_LIMIT} printable characters, in one line")
        try:
            outcome = Outcome(asked.outcome)
        except ValueError:
            raise InputError("an outcome is succeeded, failed or timed-out") from None
        await self._drills.record(asked.name, outcome, asked.note, str(grant.peer))
        return Empty()


async def _noted(opened: Opened) -> AsyncIterator[Drill]:
    count = 0
    async for event in recent_events(opened):
        if event.kind in _KINDS and count < _SHOWN:
            count += 1
            yield drill_of_event(event)


def drill_of(made: Made) -> Drill:
    """Return a drill as it is told on the wire."""
    outcome = _RUNNING if made.outcome is None else made.outcome.value
    told = _told(made.kind.value, outcome, made.at, made.actor, detail_of(made))
    steps = [DrillStep(name, round(took * 1000)) for name, took in made.steps]
    return msgspec.structs.replace(
        told, steps=steps, expected=made.tally.expected, problems=list(made.tally.problems)
    )


def drill_of_event(event: Event) -> Drill:
    """Return a drill as the history has it."""
    detail = dict(event.detail)
    outcome = detail.pop("outcome", "")
    return _told(event.kind, outcome, event.at, event.actor, detail)


def _told(kind: str, outcome: str, at: str, actor: str, detail: Mapping[str, str]) -> Drill:
    def number(name: str) -> int:
        text = detail.get(name, "")
        return int(text) if text.isdecimal() else 0

    problems = detail.get("problems", "")
    return Drill(
        kind=kind,
        outcome=outcome,
        at=GoTime(at),
        actor=actor,
        name=detail.get("name", ""),
        note=detail.get("note", ""),
        full=detail.get("full") == "true",
        source=detail.get("source", ""),
        slot=detail.get("slot", ""),
        generation=number("generation"),
        epoch=number("epoch"),
        duration_ms=number("duration_ms"),
        key_ms=number("key_ms"),
        steps=[*_steps(detail.get("steps", ""))],
        keys=number("keys"),
        slots=number("slots"),
        policies=number("policies"),
        scanned=number("scanned"),
        opened=number("opened"),
        secrets=number("secrets"),
        size_bytes=number("bytes"),
        wrong=number("wrong"),
        problems=problems.split("; ") if problems else [],
    )


def _steps(text: str) -> Iterator[DrillStep]:
    for part in filter(None, text.split(", ")):
        name, _, took = part.partition(" ")
        if took.isdecimal():
            yield DrillStep(name, int(took))
