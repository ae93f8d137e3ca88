"""Rotations as calls and commands see them, without keys: a small keeper of the rules that a test steps along.

It knows the phases, refuses what does not fit, and counts records as a walk would. What a rotation really does to keys
and records is not its matter: that is tested against `spike.nexus`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from spike.error import NotFoundError
from spike.lifecycle.keyring import Emergency, RotationKind, Scope, Succession
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.rotation_view import Asked, Check, RotationView, Started

ID = "0123456789abcdef0123456789abcdef"
BACK = "b" * 32
MOMENT = "2026-11-23T12:00:00Z"
RECORDS = 1000
BEFORE_FLIP = ("prepared", "distributed", "backed-up")
BLOCKING = (*BEFORE_FLIP, "re-encrypting", "finalizing")
ENDED = ("finalized", "dropped", "failed")


@dataclass(frozen=True)
class Looked:
    """A check of a preflight."""

    name: str
    result: str
    detail: str
    next_step: str = ""


@dataclass(frozen=True)
class Record:
    """A record that was not simply re-encrypted."""

    outcome: str
    reason: str
    kind: str
    key: str
    version: str = ""


@dataclass(frozen=True)
class Walk:
    """How far the re-encryption is."""

    scanned: int = 0
    expected: int = RECORDS
    skipped_total: int = 0
    vanished: int = 0
    failed: int = 0
    already_current: int = 0
    rate_per_s: int = 100
    named: Sequence[Record] = ()

    @property
    def re_encrypted(self) -> int:
        others = self.skipped_total + self.vanished + self.failed + self.already_current
        return self.scanned - others

    @property
    def size_bytes(self) -> int:
        return self.scanned * 1024

    @property
    def left_s(self) -> float | None:
        return (self.expected - self.scanned) / self.rate_per_s if self.rate_per_s else None


@dataclass
class SmallRotations:
    """One rotation at a time; `step` brings it one phase, or a quarter of the records, further."""

    now: RotationView | None = None
    checks: list[Looked] = field(default_factory=lambda: [Looked("disk", "ok", "900 MiB free")])
    asked: list[Asked] = field(default_factory=list)
    actors: list[str] = field(default_factory=list)
    undone: RotationView | None = None
    stride: int = 0
    """So many steps further does every look at it bring it."""

    # What the calls need

    async def start(self, asked: Asked, actor: str) -> Started:
        self.asked.append(asked)
        self.actors.append(actor)
        if "nobody" in asked.without:
            raise NotFoundError("there is no Keeper 'nobody'", "see spike keeper status")
        self._require_checks()
        if self.now is not None and self.now.phase in BLOCKING:
            if self.now.scope is not asked.scope or self.now.kind is RotationKind.ROLLBACK:
                raise RefusalError(Reason.BUSY, f"{self.now.kind} {self.now.id} is in progress")
            return Started(self.now.id, False, ())
        if self.now is not None and self.now.phase == "verified":
            raise RefusalError(Reason.ROTATION, f"rotation {self.now.id} can still be rolled back")
        root = 1 if asked.scope is Scope.DATA_ONLY else 2
        data = 1 if asked.scope is Scope.ROOT_ONLY else 2
        self.now = RotationView(
            id=ID,
            kind=RotationKind.ROTATION,
            scope=asked.scope,
            phase="prepared",
            started_at=MOMENT,
            actor=actor,
            reason=asked.reason,
            attempt=1,
            root=Succession(1, root),
            record=Succession(1, data),
            cipher=Succession(1, data),
            max_rate=asked.max_rate,
            emergency=asked.emergency,
            ways=("any 2 of 3 Keepers", "slot admin (password)"),
        )
        return Started(ID, True, tuple(self.checks))

    async def check(self, asked: Asked, actor: str) -> tuple[Check, ...]:
        self.asked.append(asked)
        self.actors.append(actor)
        return tuple(self.checks)

    async def exposure(self, asked: Asked) -> tuple[str, ...]:
        leaked = ", ".join(asked.emergency.leaked if asked.emergency else ())
        return (f"leaked: {leaked}", "the old key protects 1000 records since 2026-11-01")

    async def pause(self, actor: str) -> None:
        self.actors.append(actor)
        self.now = replace(self._in("re-encrypting"), paused=True)

    async def resume(self, actor: str) -> None:
        self.actors.append(actor)
        self.now = replace(self._in("re-encrypting"), paused=False)

    async def abort(self, actor: str, reason: str) -> None:
        self.actors.append(actor)
        found = self._in(*BEFORE_FLIP)
        self.now = replace(found, phase="dropped", fault=f"aborted: {reason or 'no reason given'}")

    async def set_max_rate(self, rate: int, actor: str) -> None:
        self.actors.append(actor)
        self.now = replace(self._in(*BLOCKING), max_rate=rate)

    async def rollback(self, reason: str, actor: str) -> Started:
        self.actors.append(actor)
        if self.now is not None and self.now.kind is RotationKind.ROLLBACK:
            return Started(self.now.id, False, ())
        found = self._in("re-encrypting", "verified")
        self.undone = found
        self.now = replace(
            found,
            id=BACK,
            kind=RotationKind.ROLLBACK,
            phase="prepared",
            actor=actor,
            reason=reason,
            root=Succession(found.root.after, found.root.before),
            record=Succession(found.record.after, found.record.before),
            cipher=Succession(found.cipher.after, found.cipher.before),
            flipped_at="",
            verified_at="",
            window_ends_at="",
            progress=None,
            impact=(),
            replaces=found.id,
        )
        return Started(BACK, True, ())

    async def finalize(self, actor: str) -> str:
        self.actors.append(actor)
        self.now = replace(self._in("verified"), phase="finalizing")
        return self.now.id

    def view(self) -> RotationView | None:
        told = self.now
        for _ in range(self.stride):
            self.step()
        return told

    # What a test does

    def step(self) -> None:
        """Go one step on, as far as the rollback window; a paused one and one with a fault stay."""
        now = self.now
        if now is None or now.paused or now.fault or now.phase in ENDED:
            return
        match now.phase:
            case "prepared":
                self.now = replace(now, phase="distributed")
            case "distributed":
                self.now = replace(now, phase="backed-up")
            case "backed-up":
                self.now = replace(
                    now,
                    phase="re-encrypting",
                    flipped_at=MOMENT,
                    progress=Walk(),
                    impact=("everything since is written under the new keys",),
                )
            case "re-encrypting" if isinstance(now.progress, Walk):
                self._walk(now, now.progress)
            case "finalizing":
                self.now = replace(now, phase="finalized")

    def _walk(self, now: RotationView, walk: Walk) -> None:
        if walk.scanned < walk.expected:
            self.now = replace(now, progress=replace(walk, scanned=walk.scanned + RECORDS // 4))
        elif now.verified < RECORDS:
            self.now = replace(now, verified=RECORDS, to_verify=RECORDS)
        else:
            ends = "2026-11-24T12:00:00Z"
            self.now = replace(now, phase="verified", verified_at=MOMENT, window_ends_at=ends)

    def steps(self, phase: str) -> None:
        """Go on until it is in this phase."""
        for _ in range(20):
            if self.now is not None and self.now.phase == phase:
                return
            self.step()
        raise AssertionError(f"it never came to {phase}: {self.now}")

    def supersede(self) -> None:
        """Let an emergency be in force in the place of the one that is verified."""
        found = self._in("verified")
        self.now = replace(
            found,
            id=BACK,
            phase="re-encrypting",
            emergency=Emergency(("root",)),
            reason="stolen",
            root=Succession(2, 3),
            record=Succession(2, 3),
            cipher=Succession(2, 3),
            verified_at="",
            window_ends_at="",
            replaces=found.id,
        )

    def fail_a_record(self) -> None:
        """One record cannot be re-encrypted, and so it does not go on."""
        now = self._in("re-encrypting")
        assert isinstance(now.progress, Walk)
        bad = Record("failed", "does-not-open", "secret", "tenant/acme/database", "3f")
        self.now = replace(
            now,
            progress=replace(now.progress, failed=1, scanned=RECORDS, named=(bad,)),
            fault="1 record does not open under the old key",
        )

    def _require_checks(self) -> None:
        failed = [check for check in self.checks if check.result == "fail"]
        if failed:
            told = "; ".join(f"{check.name}: {check.detail}" for check in failed)
            raise RefusalError(Reason.PREFLIGHT, f"not begun: {told}", failed[0].next_step)

    def _in(self, *phases: str) -> RotationView:
        if self.now is None:
            raise RefusalError(
                Reason.ROTATION, "no rotation is in progress", "see spike key history"
            )
        if self.now.phase not in phases:
            told = f"{self.now.kind} {self.now.id} is {self.now.phase} now"
            raise RefusalError(Reason.ROTATION, told, "see spike key status")
        return self.now
