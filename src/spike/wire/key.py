"""Messages of `/v1/key`: what keys there are, what happened to them, and whether what is stored opens."""

from __future__ import annotations

import msgspec

from spike.wire.message import GoInt, GoTime, Message
from spike.wire.rotation import Rotation

HISTORY_LIMIT = 1_000
"""The most events one answer of key history has."""
FINDING_PAGE = 100
"""The most findings one answer of key status has."""


class KeyTransition(Message, frozen=True):
    """One step in the life of a key's generation."""

    state: str
    at: GoTime
    actor: str
    reason: str


class KeyGeneration(Message, frozen=True, omit_defaults=True):
    """One generation of one key; the last of `transitions` is its present state.

    `purpose`: root, record, cipher, audit or backup-auth. `wrapped_under` is the root key's generation, and is left
    out for the root key. `slot_id` and `slot` name the slot of a `backup-auth` key; `slot` is left out when that
    slot is no more. `age_s` is left out for a key that never was in force, `sealed` (records it has sealed) where that
    is not counted.
    """

    purpose: str
    generation: GoInt
    state: str
    transitions: list[KeyTransition]
    wrapped_under: GoInt | None = None
    slot_id: str | None = None
    slot: str | None = None
    age_s: GoInt | None = None
    sealed: GoInt | None = None


class KeyListAnswer(Message, frozen=True):
    """Every generation of every key: the root key first, each in the order of its generations."""

    keys: list[KeyGeneration]


class KeyCipherOldestRequest(Message, frozen=True):
    """Accept no cipher generation older than `oldest`, and destroy the keys below it. Without `confirm` only tell.

    `oldest` 0 asks how it is.
    """

    oldest: GoInt = 0
    confirm: bool = False


class KeyCipherOldestAnswer(Message, frozen=True):
    """Which generations are accepted, and which are destroyed by what was asked for; `done`: they are now."""

    oldest: GoInt
    active: GoInt
    destroyed: list[KeyGeneration]
    done: bool
    epoch: GoInt


class KeyHistoryRequest(Message, frozen=True):
    """The newest `limit` events, 1 to 1,000; 0 is 100."""

    limit: GoInt = 0


class KeyEvent(Message, frozen=True, omit_defaults=True):
    """One lifecycle event. `waiting`: it stands in the keyring and not yet in the history."""

    sequence: GoInt
    at: GoTime
    kind: str
    actor: str
    detail: dict[str, str] = msgspec.field(default_factory=dict)
    waiting: bool = False


class HistoryBreak(Message, frozen=True):
    """Where the history is not what was written, and how."""

    sequence: GoInt
    detail: str


class KeyHistoryAnswer(Message, frozen=True):
    """Events, newest last, of `total`; `breaks` are the first places at which the chain does not hold.

    The whole chain was checked, however few events were asked for.
    """

    total: GoInt
    events: list[KeyEvent]
    breaks: list[HistoryBreak]


class KeyVerifyRequest(Message, frozen=True):
    """Begin a verification, or join the one that runs. `stop`: end the one that runs instead."""

    stop: bool = False


class KeyStatusRequest(Message, frozen=True):
    """`findings_after`: how many findings the caller has; those that follow are in the answer."""

    findings_after: GoInt = 0


class CensusLine(Message, frozen=True):
    """How many records of a kind say that they are under a generation; 0 = one that the keyring does not know."""

    kind: str
    generation: GoInt
    records: GoInt


class VerificationFinding(Message, frozen=True):
    """One record that is not as it must be. `reason` is a name; see docs/guide/operation.md."""

    kind: str
    key: str
    version: str
    reason: str
    detail: str


class Verification(Message, frozen=True, omit_defaults=True):
    """A verification of everything stored, running or ended.

    `state`: running, good (everything opens and fits together), bad (something does not), stopped or failed (then
    `detail` says why, and nothing follows about what was not looked at). `scanned` = `good` + `bad` + `vanished`;
    `bad` is the sum of `bad_by_reason`. `expected` is how many records there were when it began. `findings` begin
    behind those the caller has; `unnamed` is how many bad records were counted and not kept by name. `round` grows
    when keys changed under it and it began to look at everything anew: then counts and findings begin anew, too.
    """

    id: str
    state: str
    started_at: GoTime
    started_by: str
    scanned: GoInt
    expected: GoInt
    good: GoInt
    bad: GoInt
    vanished: GoInt
    size_bytes: GoInt
    rate_per_s: GoInt
    round: GoInt
    bad_by_reason: dict[str, GoInt] = msgspec.field(default_factory=dict)
    ended_at: GoTime | None = None
    left_s: GoInt | None = None
    detail: str = ""
    census: list[CensusLine] = msgspec.field(default_factory=list)
    findings: list[VerificationFinding] = msgspec.field(default_factory=list)
    findings_total: GoInt = 0
    unnamed: GoInt = 0


class KeyVerifyAnswer(Message, frozen=True):
    """The verification that runs now; `started`: by this very call."""

    started: bool
    verification: Verification


class KeyStatusAnswer(Message, frozen=True, omit_defaults=True):
    """What goes on with keys: the verification that runs, or the last one since Nexus has started; the rotation that
    is not over yet, or the last one that has ended since."""

    verification: Verification | None = None
    rotation: Rotation | None = None
