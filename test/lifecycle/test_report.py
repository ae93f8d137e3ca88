"""The report of a rotation: all that its history says, nothing more, and what it lacks by name."""

from __future__ import annotations

from typing import Any

import pytest

from spike.lifecycle import report as rules
from spike.lifecycle.keyring import Event
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.remark import check_remark
from spike.lifecycle.report import Report, newest_id
from spike.lifecycle.report_markdown import Source, markdown, plain

ID, OTHER = "ab" * 16, "cd" * 16
ADMIN = "spiffe://spike.ist/spike/pilot/role/superuser"
SOURCE = Source("0" * 32, "f" * 32, "2026-12-01T00:00:00Z", ADMIN, 12, (), "e" * 64)
STARTED: dict[str, str] = {
    "kind": "rotation", "scope": "full", "root_from": "1", "root_to": "2", "record_from": "3",
    "record_to": "4", "cipher_from": "3", "cipher_to": "4", "reason": "the yearly one",
    "window_s": "86400",
}  # fmt: skip
RECORDS = {
    "scanned": "1000", "re_encrypted": "990", "already_current": "7", "skipped": "0", "vanished": "3",
    "failed": "0", "size_bytes": "123456", "seconds": "2.5",
}  # fmt: skip
WHOLE: list[tuple[str, str, dict[str, str]]] = [
    ("12:00:00", "rotation-started", STARTED),
    ("12:00:01", "rotation-checked", {"when": "before", "keepers": "ok: 3 of 3", "disk": "warn: 80 MiB free"}),
    ("12:00:02", "rotation-distributed", {"set": "aa", "threshold": "2", "members": "1, 2, 3"}),
    ("12:00:03", "rotation-backed-up", {"slots": "admin", "places": "1"}),
    ("12:00:04", "rotation-flipped", {"epoch": "5"}),
    ("12:00:10", "rotation-re-encrypted", RECORDS),
    ("12:00:20", "rotation-verified", {"scanned": "997", "good": "996", "bad": "0", "vanished": "1", "seconds": "9"}),
    ("18:00:00", "rotation-finalized", {"destroyed": "root 1, record 3", "purged_bytes": "4096"}),
    ("18:00:01", "rotation-checked", {"when": "after", "storage": "ok: it answers"}),
]  # fmt: skip


def history(
    *told: tuple[str, str, dict[str, str]], rotation_id: str = ID, first: int = 2
) -> list[Event]:
    return [
        Event(number, f"2026-11-27T{at}Z", kind, ADMIN, {"id": rotation_id, **detail})
        for number, (at, kind, detail) in enumerate(told, first)
    ]


def made(events: list[Event], rotation_id: str = ID) -> Report:
    found = rules.report(rotation_id, events)
    assert found is not None
    return found


def without(*kinds: str) -> list[Event]:
    return history(*(each for each in WHOLE if each[1] not in kinds))


def test_a_whole_history_makes_a_whole_report() -> None:
    init = Event(1, "2026-11-23T12:00:00Z", "init", ADMIN, {})
    report = made([init, *history(*WHOLE)])
    assert (report.kind, report.scope, report.actor) == ("rotation", "full", ADMIN)
    assert report.reason == "the yearly one"
    assert (report.started_at, report.ended_at) == ("2026-11-27T12:00:00Z", "2026-11-27T18:00:00Z")
    assert report.outcome.startswith("finalized")
    assert [(k.purpose, k.before, k.after) for k in report.keys] == [
        ("root", "1", "2"), ("record", "3", "4"), ("cipher", "3", "4"),
    ]  # fmt: skip
    assert [(c.when, c.name, c.result, c.detail) for c in report.checks] == [
        ("before", "keepers", "ok", "3 of 3"),
        ("before", "disk", "warn", "80 MiB free"),
        ("after", "storage", "ok", "it answers"),
    ]
    assert [step.what for step in report.steps][:3] == ["started", "checked", "distributed"]
    assert len(report.steps) == len(WHOLE)
    assert report.records is not None
    assert dict(report.records.numbers)["re_encrypted"] == "990"
    assert report.records.adds_up
    assert report.verification is not None
    assert report.verification.adds_up
    assert dict(report.durations) == {
        "from the start until the new keys were in force": "4",
        "re-encryption, as measured": "2.5",
        "verification, as measured": "9",
        "from the new keys in force until verified": "16",
        "from verified until the end": "21580",
        "the whole": "21600",
    }
    assert (report.destroyed, report.purged_bytes) == ("root 1, record 3", "4096")
    assert report.missing == ()


@pytest.mark.parametrize(
    ("kinds", "missing"),
    [
        (("rotation-started",), ["its start: who, why, which keys"]),
        (("rotation-backed-up",), ["its backup"]),
        (("rotation-flipped",), ["the moment in which its keys came into force"]),
        (("rotation-re-encrypted",), ["the re-encryption"]),
        (("rotation-verified",), ["the verification"]),
        (("rotation-checked",), ["the checks before it", "the checks after it"]),
        (
            ("rotation-re-encrypted", "rotation-verified"),
            ["the re-encryption", "the verification"],
        ),
    ],
)
def test_what_the_history_lacks_is_named(kinds: tuple[str, ...], missing: list[str]) -> None:
    report = made(without(*kinds))
    assert list(report.missing) == missing
    text = markdown(report, SOURCE)
    for each in missing:
        assert f"* {each}" in text


def test_what_has_not_come_yet_is_not_missing() -> None:
    for length in range(2, len(WHOLE) - 1):
        report = made(history(*WHOLE[:length]))
        assert report.missing == (), length
        assert (report.ended_at == "") == (length < 8)


def test_what_a_scope_does_not_have_is_not_missing() -> None:
    data_only = [(at, k, {**d, "scope": "data-only"} if "scope" in d else d) for at, k, d in WHOLE]
    told = [
        each for each in data_only if each[1] not in ("rotation-distributed", "rotation-backed-up")
    ]
    assert made(history(*told)).missing == ()
    root_only = [(at, k, {**d, "scope": "root-only"} if "scope" in d else d) for at, k, d in WHOLE]
    told = [e for e in root_only if e[1] not in ("rotation-re-encrypted", "rotation-verified")]
    assert made(history(*told)).missing == ()


@pytest.mark.parametrize(
    ("length", "outcome"),
    [
        (2, "begun, its keys are not in force"),
        (5, "its keys are in force, records are being sealed again"),
        (7, "verified, in its rollback window"),
        (8, "finalized: what was replaced is destroyed"),
    ],
)
def test_the_outcome_says_how_far_it_is(length: int, outcome: str) -> None:
    assert made(history(*WHOLE[:length])).outcome == outcome


def test_a_rotation_that_was_dropped_says_why() -> None:
    dropped = (
        "12:00:09",
        "rotation-dropped",
        {"phase": "distributed", "why": "a Keeper went away"},
    )
    report = made(history(*WHOLE[:3], dropped))
    assert report.outcome == "dropped before its keys came into force: a Keeper went away"
    assert report.missing == ()
    assert report.destroyed == ""


def test_a_rotation_that_was_rolled_back_names_the_rollback_and_its_steps() -> None:
    first = history(*WHOLE[:7])
    back = history(
        ("13:00:00", "rotation-started", {**STARTED, "kind": "rollback", "of": ID}),
        ("13:00:05", "rotation-flipped", {"epoch": "6"}),
        rotation_id=OTHER,
        first=20,
    )
    report = made([*first, *back])
    assert report.outcome == f"rolled back by {OTHER}"
    assert report.ended_at == "2026-11-27T13:00:05Z"
    assert [step.what for step in report.steps][-2:] == ["started", "flipped"]
    # A rollback that never came into force took nothing back.
    assert made([*first, back[0]]).outcome == "verified, in its rollback window"


def superseded(by: str = OTHER) -> tuple[str, str, dict[str, str]]:
    detail = {
        "by": by,
        "phase": "verified",
        "why": f"superseded by emergency {by}",
        "old_keys": "root 1 compromised, record 3 compromised, cipher 3 compromised",
    }
    return "13:00:05", "rotation-superseded", detail


def test_a_rotation_that_an_emergency_replaced_says_so_and_what_became_of_its_old_keys() -> None:
    first = history(*WHOLE[:7], superseded())
    report = made(first)
    assert report.outcome == (
        f"superseded by emergency {OTHER}; its old keys then: "
        "root 1 compromised, record 3 compromised, cipher 3 compromised"
    )
    assert report.ended_at == "2026-11-27T13:00:05Z"
    assert dict(report.durations)["the whole"] == "3605"
    assert report.steps[-1].what == "superseded"
    assert (report.missing, report.destroyed) == ((), "")
    done = ("14:00:00", "rotation-finalized", {"destroyed": "root 1, root 2, record 3, record 4"})
    taker = history(("13:00:00", "rotation-started", STARTED), done, rotation_id=OTHER, first=20)
    report = made([*first, *taker])
    assert report.outcome.endswith("; destroyed since: root 1, record 3")
    assert report.destroyed == "root 1, record 3"
    assert f"| Outcome | superseded by emergency {OTHER}; its old keys" in markdown(report, SOURCE)


def test_old_keys_are_followed_through_one_emergency_after_the_other() -> None:
    third = "ef" * 16
    done = ("14:00:00", "rotation-finalized", {"destroyed": "root 1, root 2, record 3"})
    events = [
        *history(*WHOLE[:7], superseded()),
        *history(superseded(third), rotation_id=OTHER, first=20),
        *history(done, rotation_id=third, first=30),
    ]
    assert made(events).destroyed == "root 1, record 3"
    circle = [events[7], *history(superseded(ID), rotation_id=OTHER, first=20)]
    assert made(circle).destroyed == ""


def test_a_rotation_tells_its_own_end_when_it_was_rolled_back() -> None:
    detail = {"by": OTHER, "why": f"rolled back by {OTHER}", "old_keys": "root 1 active"}
    first = history(*WHOLE[:7], ("13:00:05", "rotation-rolled-back", detail), first=2)
    report = made(first)
    assert report.outcome == f"rolled back by {OTHER}; its old keys then: root 1 active"
    assert report.ended_at == "2026-11-27T13:00:05Z"


def test_a_try_that_was_dropped_is_not_the_end_of_what_began_again() -> None:
    dropped = ("12:00:02", "rotation-dropped", {"phase": "prepared", "why": "it was interrupted"})
    again = [WHOLE[0], WHOLE[1], dropped, *WHOLE[:1], *WHOLE[2:7]]
    for length, outcome in (
        (3, "dropped before its keys came into force: it was interrupted"),
        (4, "begun, its keys are not in force"),
        (len(again), "verified, in its rollback window"),
    ):
        report = made(history(*again[:length]))
        assert report.outcome == outcome
        assert bool(report.ended_at) == (length == 3)
    assert [step.what for step in made(history(*again)).steps].count("dropped") == 1


def test_a_finalization_that_found_a_record_is_no_longer_told_as_one() -> None:
    ending = [
        ("18:00:00", "rotation-finalizing", {}),
        ("18:00:01", "rotation-reopened", {"why": "1 record under an old key turned up"}),
    ]
    report = made(history(*WHOLE[:7], *ending))
    assert report.outcome == "its keys are in force, records are being sealed again"
    report = made(history(*WHOLE[:7], *ending, WHOLE[6]))
    assert report.outcome == "verified, in its rollback window"


def test_passes_add_up_and_a_sum_that_does_not_is_told() -> None:
    again = ("12:00:11", "rotation-re-encrypted", {**RECORDS, "seconds": "1.0"})
    report = made(history(*WHOLE[:6], again))
    assert report.records is not None
    assert dict(report.records.numbers)["scanned"] == "2000"
    assert report.records.adds_up
    wrong = ("12:00:10", "rotation-re-encrypted", {**RECORDS, "vanished": "4"})
    report = made(history(*WHOLE[:5], wrong))
    assert report.records is not None
    assert not report.records.adds_up
    assert "**The parts do not make the whole.**" in markdown(report, SOURCE)


def test_an_emergency_says_what_had_leaked() -> None:
    told: dict[str, Any] = {**STARTED, "emergency": "yes", "leaked": "slot:admin, root"}
    report = made(history(("12:00:00", "rotation-started", told)))
    assert report.leaked == "slot:admin, root"
    assert "| Emergency | yes; leaked: slot:admin, root |" in markdown(report, SOURCE)


def test_copies_that_left_before_its_end_are_listed_and_later_ones_not() -> None:
    events = history(*WHOLE)
    before = Event(
        1,
        "2026-11-01T00:00:00Z",
        "system-backup-created",
        ADMIN,
        {"place": "host:/mnt/b", "root": "1"},
    )
    after = Event(99, "2026-12-01T00:00:00Z", "key-backup-exported", ADMIN, {"epoch": "6"})
    report = made([before, *events, after])
    assert [copy.at for copy in report.copies] == ["2026-11-01T00:00:00Z"]
    text = markdown(report, SOURCE)
    assert f"| 2026-11-01T00:00:00Z | system-backup-created | host:/mnt/b | 1 | {ADMIN} |" in text
    for each in rules.NEVER_ERASED:
        assert f"* {each}" in text


def test_remarks_are_in_the_report_and_cannot_form_anything_in_it() -> None:
    text = "<script>alert(1)</script> | *bold* [x](javascript:1) `code` _a_ & \\"
    note = ("19:00:00", "rotation-note", {"text": text})
    report = made(history(*WHOLE, note))
    assert [dict(step.detail)["text"] for step in report.notes] == [text]
    told = markdown(report, SOURCE)
    (line,) = [line for line in told.splitlines() if "script" in line]
    assert line.count("|") - line.count("\\|") == 4  # the cells alone
    for character in "<>*[`_&":
        assert f"\\{character}" in line
        assert character not in line.replace(f"\\{character}", "")


def test_plain_text_stays_on_one_line() -> None:
    assert plain("a\nb\r\n# c") == "a b # c"


def test_a_broken_chain_is_told_first_of_all_in_the_part_on_the_history() -> None:
    report = made(history(*WHOLE))
    assert "All 12 events are there and chained" in markdown(report, SOURCE)
    text = markdown(report, SOURCE._replace(breaks=("event 4: missing",)))
    assert "BROKEN" in text
    assert "* event 4: missing" in text


def test_there_are_lines_to_sign() -> None:
    text = markdown(made(history(*WHOLE)), SOURCE)
    for role in ("Carried out by", "Checked by", "Approved by"):
        assert f"| {role} |  |  |  |" in text


def test_a_rotation_that_the_history_does_not_know_has_no_report() -> None:
    assert rules.report(OTHER, history(*WHOLE)) is None
    assert newest_id([]) is None
    assert newest_id([*history(*WHOLE), *history(WHOLE[0], rotation_id=OTHER, first=30)]) == OTHER


def test_a_history_of_nonsense_makes_a_report_all_the_same() -> None:
    nonsense = [
        ("12:00:00", "rotation-started", {}),
        ("12:00:01", "rotation-checked", {"odd": "without a result", "bare": ""}),
        ("12:00:02", "rotation-re-encrypted", {"scanned": "-1", "failed": "many"}),
        ("12:00:03", "rotation-finalized", {}),
        ("12:00:04", "rotation-unheard-of", {"x": "y"}),
    ]
    report = made(history(*nonsense))
    assert "what was destroyed" in report.missing
    assert [check.result for check in report.checks] == ["", ""]
    text = markdown(report, SOURCE)
    assert "not told" in text
    assert "unheard-of" in text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "x" * 501,
        "two\nlines",
        "tab\there",
        "bell\a",
        "\u202eturned",
        "\u200b",
        "a\u2028b",
    ],
)
def test_what_is_no_remark_is_refused(text: str) -> None:
    with pytest.raises(RefusalError) as refused:
        check_remark(text)
    assert refused.value.reason is Reason.REMARK


@pytest.mark.parametrize("text", ["x", "x" * 500, "Freigabe: Müller (OPS-1423) | ok", "承認"])
def test_what_a_person_writes_is_a_remark(text: str) -> None:
    check_remark(text)
