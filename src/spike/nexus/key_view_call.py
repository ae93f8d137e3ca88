"""The calls that look at keys: which there are, what happened to them, whether what is stored opens."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from spike.error import InputError, NotFoundError
from spike.lifecycle.census import Tally
from spike.lifecycle.due import activated
from spike.lifecycle.keyring import Event, KeyPurpose, Keyring
from spike.lifecycle.state import Transition
from spike.lifecycle.usage import Usage
from spike.nexus.handler import Handler, Reading
from spike.nexus.history_check import HistoryCheck
from spike.nexus.opened import Opened
from spike.nexus.pace import Pace
from spike.nexus.rotation_call import Rotations, rotation_of
from spike.nexus.usage_book import UsageBook
from spike.nexus.vault import Vault
from spike.nexus.verification import Run, Verifier
from spike.nexus.verification_scan import Scan
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.key import (
    FINDING_PAGE,
    HISTORY_LIMIT,
    CensusLine,
    HistoryBreak,
    KeyEvent,
    KeyGeneration,
    KeyHistoryAnswer,
    KeyHistoryRequest,
    KeyListAnswer,
    KeyStatusAnswer,
    KeyStatusRequest,
    KeyTransition,
    KeyVerifyAnswer,
    KeyVerifyRequest,
    Verification,
    VerificationFinding,
)
from spike.wire.message import Empty, GoTime

_USUAL_EVENTS: Final = 100
_BREAK_LIMIT: Final = 100


class KeyViewCalls:
    """Handlers bound to one vault, its verifier and its rotations."""

    def __init__(
        self, vault: Vault, verifier: Verifier, usage: UsageBook, rotations: Rotations
    ) -> None:
        self._vault = vault
        self._usage = usage
        self._verifier = verifier
        self._rotations = rotations

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.KEY_LIST.name: Reading(self.list),
            call.KEY_HISTORY.name: Reading(self.history),
            call.KEY_VERIFY.name: Reading(self.verify),
            call.KEY_STATUS.name: Reading(self.status),
        }

    async def list(self, _grant: Grant, opened: Opened, _asked: Empty) -> KeyListAnswer:
        """Tell every generation of every key."""
        document = opened.document
        now = self._vault.life.belief(document).at
        return KeyListAnswer([*generations(document, await self._usage.now(), now)])

    async def history(
        self, _grant: Grant, opened: Opened, asked: KeyHistoryRequest
    ) -> KeyHistoryAnswer:
        """Tell the newest lifecycle events, the whole chain checked."""
        if not 0 <= asked.limit <= HISTORY_LIMIT:
            raise InputError(f"a limit is 1 to {HISTORY_LIMIT}")
        events: deque[KeyEvent] = deque(maxlen=asked.limit or _USUAL_EVENTS)
        breaks: deque[HistoryBreak] = deque()
        total = 0
        async for link in HistoryCheck(Scan(self._vault, Tally(), Pace())).links():
            if link.reason is not None and len(breaks) < _BREAK_LIMIT:
                detail = f"{link.reason}: {link.detail}" if link.detail else str(link.reason)
                breaks.append(HistoryBreak(link.sequence, detail))
            if link.event is not None:
                total += 1
                events.append(_event(link.event))
        seen = events[-1].sequence if events else 0
        for waiting in opened.document.outbox:
            if waiting.sequence > seen:  # else it was moved to the history meanwhile
                total += 1
                events.append(_event(waiting, waiting=True))
        return KeyHistoryAnswer(total, [*events], [*breaks])

    async def verify(
        self, grant: Grant, _opened: Opened, asked: KeyVerifyRequest
    ) -> KeyVerifyAnswer:
        """Begin a verification, join the one that runs, or stop it."""
        if asked.stop:
            await self._verifier.stop(f"stopped by {grant.peer}")
            run, started = self._verifier.last, False
            if run is None:
                raise NotFoundError("no verification has run since Nexus was started")
        else:
            run, started = self._verifier.start(str(grant.peer))
        return KeyVerifyAnswer(started, verification_of(run, 0))

    async def status(
        self, _grant: Grant, _opened: Opened, asked: KeyStatusRequest
    ) -> KeyStatusAnswer:
        """Tell how the verification is, and the rotation."""
        if asked.findings_after < 0:
            raise InputError("a number of findings is not negative")
        run, view = self._verifier.last, self._rotations.view()
        return KeyStatusAnswer(
            verification=None if run is None else verification_of(run, asked.findings_after),
            rotation=None if view is None else rotation_of(view),
        )


def verification_of(run: Run, findings_after: int) -> Verification:
    """Return a verification as it is told on the wire, with the findings behind those the caller has."""
    tally = run.tally
    until_s = asyncio.get_running_loop().time() if run.is_running else run.ended_s
    rate = tally.scanned / max(until_s - run.round_began_s, 0.001)
    left = max(run.expected - tally.scanned, 0)
    page = tally.named[findings_after : findings_after + FINDING_PAGE]
    return Verification(
        id=run.id,
        state=run.outcome,
        started_at=GoTime(run.started_at),
        started_by=run.actor,
        scanned=tally.scanned,
        expected=run.expected,
        good=tally.good,
        bad=tally.bad_total,
        vanished=tally.vanished,
        size_bytes=tally.size_bytes,
        rate_per_s=round(rate),
        round=run.round,
        bad_by_reason={reason.value: count for reason, count in sorted(tally.bad.items())},
        ended_at=GoTime(run.ended_at) if run.ended_at else None,
        left_s=round(left / rate) if run.is_running and rate else None,
        detail=run.detail,
        census=[CensusLine(kind, number, n) for (kind, number), n in sorted(tally.census.items())],
        findings=[
            VerificationFinding(each.kind, each.key, each.version, each.reason, each.detail)
            for each in page
        ],
        findings_total=len(tally.named),
        unnamed=tally.unnamed,
    )


def generations(document: Keyring, usage: Usage, now: datetime) -> Iterator[KeyGeneration]:
    """Give every generation of every key as it is told on the wire, the root key first."""
    for root in sorted(document.roots, key=lambda root: root.number):
        yield KeyGeneration(
            "root",
            root.number,
            root.state,
            _transitions(root.history),
            age_s=_age_s(root.history, now),
        )
    order = ("record", "cipher", "audit", "backup-auth")
    names = {slot.id: slot.name for slot in document.slots}
    # A root key that is kept for a way back was told above, as a generation of the root key.
    data = [key for key in document.keys if key.purpose is not KeyPurpose.ROOT]
    for key in sorted(data, key=lambda k: (order.index(k.purpose), k.slot, k.number)):
        yield KeyGeneration(
            key.purpose,
            key.number,
            key.state,
            _transitions(key.history),
            wrapped_under=key.root,
            slot_id=key.slot or None,
            slot=names.get(key.slot),
            age_s=_age_s(key.history, now),
            sealed=usage.of(key.purpose, key.number),
        )


def _age_s(history: tuple[Transition, ...], now: datetime) -> int | None:
    since = activated(history)
    return None if since is None else max(0, int((now - since).total_seconds()))


def _transitions(history: tuple[Transition, ...]) -> list[KeyTransition]:
    return [KeyTransition(each.state, GoTime(each.at), each.actor, each.reason) for each in history]


def _event(event: Event, *, waiting: bool = False) -> KeyEvent:
    return KeyEvent(
        event.sequence, GoTime(event.at), event.kind, event.actor, dict(event.detail), waiting
    )
