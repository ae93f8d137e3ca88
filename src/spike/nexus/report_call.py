"""The calls on the history of one rotation: a remark, and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spike.lifecycle import report as rules
from spike.lifecycle.census import Tally
from spike.lifecycle.keyring import Event
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.remark import check_remark, remarked
from spike.lifecycle.report import NEVER_ERASED, Count, Report, Step
from spike.lifecycle.report_markdown import Source, markdown
from spike.nexus.handler import Handler, Reading
from spike.nexus.history_check import HistoryCheck
from spike.nexus.opened import Opened
from spike.nexus.pace import Pace
from spike.nexus.vault import Vault
from spike.nexus.verification_scan import Scan
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.message import GoTime
from spike.wire.report import (
    KeyNoteAnswer,
    KeyNoteRequest,
    KeyReport,
    KeyReportAnswer,
    KeyReportRequest,
    ReportCheck,
    ReportCount,
    ReportKey,
    ReportStep,
)

_BREAK_LIMIT = 100
_ID_SHOWN = 40


@dataclass(slots=True)
class _Told:
    """The events that reports are made of, how many there are in all, and where the chain does not hold."""

    events: list[Event] = field(default_factory=list)
    total: int = 0
    breaks: list[str] = field(default_factory=list)

    def add(self, event: Event) -> None:
        self.total += 1
        if event.kind.startswith(rules.PREFIX) or event.kind in rules.COPIES:
            self.events.append(event)


class ReportCalls:
    """Handlers bound to one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.KEY_NOTE.name: Reading(self.note),
            call.KEY_REPORT.name: Reading(self.report),
        }

    async def note(self, grant: Grant, _opened: Opened, asked: KeyNoteRequest) -> KeyNoteAnswer:
        """Add a remark to a rotation that the history knows.

        Raises:
            RefusalError: REMARK or UNKNOWN_ROTATION; nothing was changed.
        """
        check_remark(asked.text)
        told = await self._told()
        if not any(rules.is_of(event, asked.id) for event in told.events):
            raise _unknown(asked.id)
        async with self._vault.lock:
            at, actor = self._vault.moment(), str(grant.peer)
            number = self._vault.opened.document.next_event
            await self._vault.change(
                lambda ring: ring.replaced(remarked(ring.document, asked.id, asked.text, at, actor))
            )
        return KeyNoteAnswer(number)

    async def report(
        self, grant: Grant, opened: Opened, asked: KeyReportRequest
    ) -> KeyReportAnswer:
        """Report on a rotation, from the whole history.

        Raises:
            RefusalError: UNKNOWN_ROTATION.
        """
        told = await self._told()
        rotation_id = asked.id or rules.newest_id(told.events)
        if rotation_id is None:
            raise RefusalError(
                Reason.UNKNOWN_ROTATION,
                "the history tells of no rotation yet",
                "see spike key history",
            )
        made = rules.report(rotation_id, told.events)
        if made is None:
            raise _unknown(rotation_id)
        document = opened.document
        source = Source(
            store_id=document.store_id,
            lineage=document.lineage,
            made_at=self._vault.moment(),
            made_for=str(grant.peer),
            events=told.total,
            breaks=tuple(told.breaks),
            head=document.audit_head,
        )
        return KeyReportAnswer(_message(made, source), markdown(made, source))

    async def _told(self) -> _Told:
        told = _Told()
        seen = 0
        async for link in HistoryCheck(Scan(self._vault, Tally(), Pace())).links():
            if link.reason is not None and len(told.breaks) < _BREAK_LIMIT:
                told.breaks.append(f"event {link.sequence}: {link.reason} {link.detail}".strip())
            if link.event is not None:
                told.add(link.event)
                seen = link.event.sequence
        for waiting in self._vault.opened.document.outbox:
            if waiting.sequence > seen:  # else it was moved to the history meanwhile
                told.add(waiting)
        return told


def _unknown(rotation_id: str) -> RefusalError:
    return RefusalError(
        Reason.UNKNOWN_ROTATION,
        f"the history tells of no rotation {rotation_id[:_ID_SHOWN]!r}",
        "see spike key history",
    )


def _message(made: Report, source: Source) -> KeyReport:
    return KeyReport(
        id=made.id,
        outcome=made.outcome,
        made_at=GoTime(source.made_at),
        made_for=source.made_for,
        store_id=source.store_id,
        lineage=source.lineage,
        events=source.events,
        head=source.head,
        keys=[ReportKey(each.purpose, each.before, each.after) for each in made.keys],
        checks=[
            ReportCheck(each.when, each.name, each.result, each.detail) for each in made.checks
        ],
        steps=[_step(each) for each in made.steps],
        durations_s=dict(made.durations),
        notes=[_step(each) for each in made.notes],
        copies=[_step(each) for each in made.copies],
        never_erased=[*NEVER_ERASED],
        missing=[*made.missing],
        breaks=[*source.breaks],
        kind=made.kind,
        scope=made.scope,
        actor=made.actor,
        reason=made.reason,
        started_at=made.started_at,
        ended_at=made.ended_at,
        leaked=made.leaked,
        records=_count(made.records),
        verification=_count(made.verification),
        destroyed=made.destroyed,
        purged_bytes=made.purged_bytes,
    )


def _step(step: Step) -> ReportStep:
    return ReportStep(step.sequence, GoTime(step.at), step.what, step.actor, dict(step.detail))


def _count(count: Count | None) -> ReportCount | None:
    return None if count is None else ReportCount(dict(count.numbers), count.adds_up)
