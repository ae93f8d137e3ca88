"""Messages of remarks on rotations, and of their reports."""

from __future__ import annotations

from spike.wire.message import GoInt, GoTime, Message


class KeyNoteRequest(Message, frozen=True):
    """Add a remark to the rotation `id`: 1 to 500 characters on one line."""

    id: str = ""
    text: str = ""


class KeyNoteAnswer(Message, frozen=True):
    """The remark is in the history under this number."""

    sequence: GoInt


class KeyReportRequest(Message, frozen=True):
    """Report on the rotation `id`; empty is the one that began last."""

    id: str = ""


class ReportKey(Message, frozen=True):
    """A key's generations before and after; empty where that is not told."""

    purpose: str
    before: str
    after: str


class ReportCheck(Message, frozen=True):
    """A check. `when`: before or after; `result`: ok, warn or fail."""

    when: str
    name: str
    result: str
    detail: str


class ReportStep(Message, frozen=True):
    """An event of the history."""

    sequence: GoInt
    at: GoTime
    what: str
    actor: str
    detail: dict[str, str]


class ReportCount(Message, frozen=True):
    """Numbers of records by outcome; `adds_up`: the parts make the whole that was scanned."""

    numbers: dict[str, str]
    adds_up: bool


class KeyReport(Message, frozen=True, omit_defaults=True):
    """All that the history says of a rotation; fields that are empty are not told.

    `missing` names steps that the history should tell and does not, `breaks` where its chain does not hold,
    `never_erased` what no rotation erases, `copies` the exported backups that SPIKE knows of.
    """

    id: str
    outcome: str
    made_at: GoTime
    made_for: str
    store_id: str
    lineage: str
    events: GoInt
    head: str
    keys: list[ReportKey]
    checks: list[ReportCheck]
    steps: list[ReportStep]
    durations_s: dict[str, str]
    notes: list[ReportStep]
    copies: list[ReportStep]
    never_erased: list[str]
    missing: list[str]
    breaks: list[str]
    kind: str = ""
    scope: str = ""
    actor: str = ""
    reason: str = ""
    started_at: str = ""
    ended_at: str = ""
    leaked: str = ""
    records: ReportCount | None = None
    verification: ReportCount | None = None
    destroyed: str = ""
    purged_bytes: str = ""


class KeyReportAnswer(Message, frozen=True):
    """The report, and the same as Markdown."""

    report: KeyReport
    markdown: str
