"""Messages of `/v1/key` that begin, steer and end a rotation, and how one is told."""

from __future__ import annotations

import msgspec

from spike.wire.message import GoInt, GoTime, Message


class KeyRotateRequest(Message, frozen=True):
    """Begin a rotation, or join the same one that runs. `dry_run`: only look whether it could begin; nothing changes.

    `scope`: full (or empty), root-only or data-only. `window_s`: for how many seconds it can be rolled back; null is
    24 hours. `max_rate`: records a second; 0 leaves it to the pace. `leaked`, if not empty, makes it an emergency: each
    is `root`, `shards`, `slot:NAME` or `keeper:NAME`. `without` names Keepers that need not confirm,
    `without_keepers`: none needs to; `force`: go on with no Keeper to spare.
    """

    scope: str = ""
    reason: str = ""
    window_s: GoInt | None = None
    max_rate: GoInt = 0
    leaked: list[str] = msgspec.field(default_factory=list)
    without: list[str] = msgspec.field(default_factory=list)
    without_keepers: bool = False
    force: bool = False
    dry_run: bool = False


class KeyReasonRequest(Message, frozen=True):
    """Why a rotation is rolled back or aborted; it stands in the history."""

    reason: str = ""


class KeyPaceRequest(Message, frozen=True):
    """At most so many records a second; 0 leaves it to the pace."""

    max_rate: GoInt = 0


class RotationCheck(Message, frozen=True, omit_defaults=True):
    """One thing that was looked at before a rotation. `result`: ok, warn or fail."""

    name: str
    result: str
    detail: str
    next_step: str = ""


class KeyRotateAnswer(Message, frozen=True, omit_defaults=True):
    """The rotation or rollback that runs now; `started`: by this very call. A dry run has no `id`.

    `exposure` tells what an emergency would protect and what it would end.
    """

    id: str
    started: bool
    checks: list[RotationCheck]
    exposure: list[str] = msgspec.field(default_factory=list)


class Succession(Message, frozen=True):
    """The generation that a key had, and the one that takes its place; the same where it stays."""

    before: GoInt
    after: GoInt


class RotationRecord(Message, frozen=True):
    """One record that was not simply re-encrypted. `outcome`: skipped, vanished, failed; `reason` is a name."""

    outcome: str
    reason: str
    kind: str
    key: str
    version: str


class RotationProgress(Message, frozen=True, omit_defaults=True):
    """How far the re-encryption is.

    `scanned` = `re_encrypted` + `already_current` + `skipped` + `vanished` + `failed`. `records` are the first ones by
    name; all are counted.
    """

    scanned: GoInt
    expected: GoInt
    re_encrypted: GoInt
    already_current: GoInt
    skipped: GoInt
    vanished: GoInt
    failed: GoInt
    size_bytes: GoInt
    rate_per_s: GoInt
    left_s: GoInt | None = None
    records: list[RotationRecord] = msgspec.field(default_factory=list)


class RotationVerification(Message, frozen=True):
    """How far the verification of a rotation is."""

    scanned: GoInt
    expected: GoInt


class Rotation(Message, frozen=True, omit_defaults=True):
    """A rotation or a rollback (`kind`).

    `phase`: prepared, distributed, backed-up, re-encrypting, verified, finalizing; or finalized, dropped, failed once
    it has ended. `attempt` grows when it was interrupted before it came into force. `fault` says why it does not go on;
    `ways` by which ways the root key would come back now; `impact` what a rollback would meet: what was written under
    the new keys. `replaces` is the id of the rotation that a rollback takes back, or whose place an emergency takes:
    from the flip on that one is over.
    """

    id: str
    kind: str
    scope: str
    phase: str
    started_at: GoTime
    started_by: str
    reason: str
    attempt: GoInt
    root: Succession
    record: Succession
    cipher: Succession
    max_rate: GoInt = 0
    leaked: list[str] = msgspec.field(default_factory=list)
    flipped_at: GoTime | None = None
    verified_at: GoTime | None = None
    window_ends_at: GoTime | None = None
    paused: bool = False
    fault: str = ""
    ways: list[str] = msgspec.field(default_factory=list)
    impact: list[str] = msgspec.field(default_factory=list)
    progress: RotationProgress | None = None
    verification: RotationVerification | None = None
    replaces: str = ""


class KeyRotationAnswer(Message, frozen=True):
    """The rotation after what was asked of it."""

    rotation: Rotation | None = None
