"""Messages of `/v1/drill`: a recovery into a throw-away instance, what came of it, and when the next one is due."""

from __future__ import annotations

import msgspec

from spike.wire.message import ConfidentialMessage, GoInt, GoTime, Message
from spike.wire.own import DrillDue, Rehearsal

NAME_LIMIT = 100
NOTE_LIMIT = 500
"""Characters of the name and the note of a practised runbook."""


class DrillBeginRequest(ConfidentialMessage, frozen=True):
    """Begin a drill. With a session and a password sealed to it, it is a person's; `full` opens every record."""

    session: str = ""
    sealed_password: bytes = b""
    slot_name: str = ""
    full: bool = False


class DrillStep(Message, frozen=True):
    """One step of a drill and how long it took."""

    name: str
    duration_ms: GoInt


class Drill(Message, frozen=True, omit_defaults=True):
    """One drill. `kind`: drill (by itself), person-drill (with a password), practised (a runbook, `name` and `note`).

    `outcome`: running, succeeded, failed, timed-out or interrupted. `key_ms` is how long it took until every key was
    there. Of `scanned` records `opened` were opened, and `secrets` read as clients read them. `wrong` counts what
    would not have come back; `problems` name the first of it.
    """

    kind: str
    outcome: str
    at: GoTime
    actor: str
    name: str = ""
    note: str = ""
    full: bool = False
    source: str = ""
    slot: str = ""
    generation: GoInt = 0
    epoch: GoInt = 0
    duration_ms: GoInt = 0
    key_ms: GoInt = 0
    steps: list[DrillStep] = msgspec.field(default_factory=list)
    keys: GoInt = 0
    slots: GoInt = 0
    policies: GoInt = 0
    expected: GoInt = 0
    scanned: GoInt = 0
    opened: GoInt = 0
    secrets: GoInt = 0
    size_bytes: GoInt = 0
    wrong: GoInt = 0
    problems: list[str] = msgspec.field(default_factory=list)


class DrillReportAnswer(Message, frozen=True, omit_defaults=True):
    """All that is known of drills: the one that runs or ran last, when the next are due, and the newest of the history.

    `drill` are those Nexus makes by itself, `person` those with a password.
    """

    at: GoTime
    store_id: str
    lineage: str
    epoch: GoInt
    root_generation: GoInt
    drill: DrillDue
    person: DrillDue
    drills: list[Drill]
    last: Drill | None = None
    rehearsal: Rehearsal | None = None


class DrillRecordRequest(Message, frozen=True):
    """Note that people practised the runbook `name`, and how it ended: succeeded, failed or timed-out."""

    name: str = ""
    outcome: str = ""
    note: str = ""
