"""The calls that begin, steer and end a rotation, and how it is told. What they ask is done elsewhere: `Rotations`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from spike.error import InputError, NotFoundError
from spike.lifecycle.keyring import Emergency, Phase, Scope
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.handler import Handler, OnKey
from spike.nexus.rotation_view import Asked, Check, Progress, RotationView, Started
from spike.policy.access import Grant
from spike.wire import call, rotation
from spike.wire.call import CallName
from spike.wire.message import Empty, GoTime
from spike.wire.own import StatusRotation
from spike.wire.rotation import (
    KeyPaceRequest,
    KeyReasonRequest,
    KeyRotateAnswer,
    KeyRotateRequest,
    KeyRotationAnswer,
    Rotation,
    RotationCheck,
    RotationProgress,
    RotationRecord,
    RotationVerification,
)
from spike.wire.validate import check_keeper_names, check_leaked, check_reason

WINDOW_LIMIT_S: Final = 366 * 24 * 3600
"""The longest rollback window: a key that is meant to be replaced is kept no longer than that."""
RATE_LIMIT_PER_S: Final = 1_000_000_000


class Rotations(Protocol):
    """Who begins, steers and ends rotations. What does not fit raises RefusalError: ROTATION, PREFLIGHT or BUSY."""

    async def start(self, asked: Asked, actor: str) -> Started:
        """Begin a rotation, or join the same one that runs."""

    async def check(self, asked: Asked, actor: str) -> tuple[Check, ...]:
        """Look whether it could begin; change no byte anywhere."""

    async def exposure(self, asked: Asked) -> tuple[str, ...]:
        """Return sentences: what an emergency would protect, and what it would end."""

    async def pause(self, actor: str) -> None:
        """Let re-encryption rest; it survives a restart."""

    async def resume(self, actor: str) -> None:
        """Let it go on."""

    async def abort(self, actor: str, reason: str) -> None:
        """End a rotation that has not come into force."""

    async def set_max_rate(self, rate: int, actor: str) -> None:
        """Let at most so many records a second be re-encrypted; 0: as the pace allows."""

    async def rollback(self, reason: str, actor: str) -> Started:
        """Begin to go back to the keys of before, or join the rollback that runs."""

    async def finalize(self, actor: str) -> str:
        """End the way back and destroy what was replaced; return the rotation's id."""

    def view(self) -> RotationView | None:
        """Return the rotation in progress or in its rollback window, else the last that ended since the start."""


class RotationCalls:
    """Handlers bound to the rotations of one vault."""

    def __init__(self, rotations: Rotations) -> None:
        self._rotations = rotations

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            # Also while writes of secrets are stopped: a leaked key is replaced, and a rotation paused, all the same.
            call.KEY_ROTATE.name: OnKey(self.rotate),
            call.KEY_PAUSE.name: OnKey(self.pause),
            call.KEY_RESUME.name: OnKey(self.resume),
            call.KEY_PACE.name: OnKey(self.pace),
            call.KEY_ABORT.name: OnKey(self.abort),
            call.KEY_ROLLBACK.name: OnKey(self.rollback),
            call.KEY_FINALIZE.name: OnKey(self.finalize),
        }

    async def rotate(self, grant: Grant, message: KeyRotateRequest) -> KeyRotateAnswer:
        """Begin a rotation or join the same one; as a dry run only look.

        Raises:
            InputError: it contradicts itself.
            RefusalError: ROTATION, PREFLIGHT or BUSY; nothing was changed.
        """
        asked, actor = asked_of(message), str(grant.peer)
        try:
            if not message.dry_run:
                return _started(await self._rotations.start(asked, actor))
            checks = await self._rotations.check(asked, actor)
            exposure = () if asked.emergency is None else await self._rotations.exposure(asked)
        except NotFoundError as error:
            # Said by name: the answer 404 has no words, and who may replace keys may know what there is.
            raise RefusalError(Reason.ROTATION, error.message, error.next_step) from error
        return KeyRotateAnswer("", False, [*_checks(checks)], [*exposure])

    async def pause(self, grant: Grant, _message: Empty) -> KeyRotationAnswer:
        """Let re-encryption rest."""
        await self._rotations.pause(str(grant.peer))
        return self._told()

    async def resume(self, grant: Grant, _message: Empty) -> KeyRotationAnswer:
        """Let it go on."""
        await self._rotations.resume(str(grant.peer))
        return self._told()

    async def pace(self, grant: Grant, message: KeyPaceRequest) -> KeyRotationAnswer:
        """Set the greatest rate."""
        await self._rotations.set_max_rate(_rate(message.max_rate), str(grant.peer))
        return self._told()

    async def abort(self, grant: Grant, message: KeyReasonRequest) -> KeyRotationAnswer:
        """End what has not come into force."""
        check_reason(message.reason)
        await self._rotations.abort(str(grant.peer), message.reason)
        return self._told()

    async def rollback(self, grant: Grant, message: KeyReasonRequest) -> KeyRotateAnswer:
        """Begin to go back to the keys of before."""
        check_reason(message.reason)
        return _started(await self._rotations.rollback(message.reason, str(grant.peer)))

    async def finalize(self, grant: Grant, _message: Empty) -> KeyRotationAnswer:
        """End the way back and destroy what was replaced."""
        await self._rotations.finalize(str(grant.peer))
        return self._told()

    def _told(self) -> KeyRotationAnswer:
        view = self._rotations.view()
        return KeyRotationAnswer(None if view is None else rotation_of(view))


def asked_of(message: KeyRotateRequest) -> Asked:
    """Return what a request asks for.

    Raises:
        InputError: a value is none that it can have.
    """
    if message.scope not in ("", *Scope):
        raise InputError(f"the scope is none of {', '.join(Scope)}")
    if message.window_s is not None and not 0 <= message.window_s <= WINDOW_LIMIT_S:
        raise InputError(f"the windowS is not 0 to {WINDOW_LIMIT_S}")
    check_reason(message.reason)
    check_leaked(message.leaked)
    check_keeper_names(message.without)
    if message.leaked and not message.reason:
        raise InputError("an emergency has no reason")
    return Asked(
        scope=Scope(message.scope or Scope.FULL),
        reason=message.reason,
        window_s=message.window_s,
        max_rate=_rate(message.max_rate),
        emergency=Emergency(tuple(message.leaked)) if message.leaked else None,
        without=tuple(message.without),
        without_keepers=message.without_keepers,
        force=message.force,
    )


def _rate(asked: int) -> int:
    if not 0 <= asked <= RATE_LIMIT_PER_S:
        raise InputError(f"the maxRate is not 0 to {RATE_LIMIT_PER_S}")
    return asked


def _started(started: Started) -> KeyRotateAnswer:
    return KeyRotateAnswer(started.id, started.started, [*_checks(started.checks)])


def _checks(checks: Iterable[Check]) -> Iterable[RotationCheck]:
    for each in checks:
        yield RotationCheck(each.name, str(each.result), each.detail, each.next_step)


def rotation_of(view: RotationView) -> Rotation:
    """Return a rotation as it is told on the wire."""
    return Rotation(
        id=view.id,
        kind=str(view.kind),
        scope=str(view.scope),
        phase=str(view.phase),
        started_at=GoTime(view.started_at),
        started_by=view.actor,
        reason=view.reason,
        attempt=view.attempt,
        root=rotation.Succession(view.root.before, view.root.after),
        record=rotation.Succession(view.record.before, view.record.after),
        cipher=rotation.Succession(view.cipher.before, view.cipher.after),
        max_rate=view.max_rate,
        leaked=[] if view.emergency is None else [*view.emergency.leaked],
        flipped_at=_moment(view.flipped_at),
        verified_at=_moment(view.verified_at),
        window_ends_at=_moment(view.window_ends_at),
        paused=view.paused,
        fault=view.fault,
        ways=[*view.ways],
        impact=[*view.impact],
        progress=None if view.progress is None else _progress(view.progress),
        verification=RotationVerification(view.verified, view.to_verify)
        if view.to_verify
        else None,
        replaces=view.replaces,
    )


def in_short(view: RotationView | None) -> StatusRotation | None:
    """Return what the status of Nexus says of a rotation that is not over; None of one that is."""
    if view is None or view.phase not in set(Phase):
        return None
    return StatusRotation(
        id=view.id,
        kind=str(view.kind),
        phase=str(view.phase),
        started_at=GoTime(view.started_at),
        started_by=view.actor,
        paused=view.paused,
        fault=view.fault,
        scanned=0 if view.progress is None else view.progress.scanned,
        expected=0 if view.progress is None else view.progress.expected,
        replaces=view.replaces,
    )


def _moment(text: str) -> GoTime | None:
    return GoTime(text) if text else None


def _progress(progress: Progress) -> RotationProgress:
    return RotationProgress(
        scanned=progress.scanned,
        expected=progress.expected,
        re_encrypted=progress.re_encrypted,
        already_current=progress.already_current,
        skipped=progress.skipped_total,
        vanished=progress.vanished,
        failed=progress.failed,
        size_bytes=progress.size_bytes,
        rate_per_s=progress.rate_per_s,
        left_s=None if progress.left_s is None else round(progress.left_s),
        records=[
            RotationRecord(str(each.outcome), str(each.reason), each.kind, each.key, each.version)
            for each in progress.named
        ],
    )
