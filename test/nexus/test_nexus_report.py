"""Remarks and reports by call: from the history as it is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from nexus_kit import SUPERUSER, WORKLOAD, RunningNexus, running
from spike.lifecycle.history import record_key
from spike.lifecycle.keyring import Event, Keyring
from spike.storage.protocol import HISTORY, Delete, RecordId

NOTE, REPORT = "/v1/key?action=note", "/v1/key?action=report"
ID = "ab" * 16
STARTED = {"id": ID, "kind": "rotation", "scope": "data-only", "reason": "a test"}


@pytest_asyncio.fixture
async def nexus(tmp_path: Path) -> AsyncIterator[RunningNexus]:
    async with running(tmp_path) as made:
        yield made


async def tell(nexus: RunningNexus, *events: tuple[str, dict[str, str]]) -> None:
    """Let the history tell of events."""

    def told(document: Keyring) -> Keyring:
        first = document.next_event
        return msgspec.structs.replace(
            document,
            revision=document.revision + 1,
            next_event=first + len(events),
            outbox=tuple(
                Event(first + n, "2026-11-27T12:00:00Z", kind, SUPERUSER, detail)
                for n, (kind, detail) in enumerate(events)
            ),
        )

    await nexus.vault.change(lambda ring: ring.replaced(told(ring.document)))


async def call(nexus: RunningNexus, target: str, **asked: str) -> tuple[int, Any]:
    return await nexus.call(SUPERUSER, target, asked)


async def test_a_report_is_made_of_the_stored_history(nexus: RunningNexus) -> None:
    await tell(
        nexus,
        ("rotation-started", STARTED),
        ("rotation-checked", {"id": ID, "when": "before", "disk": "ok: room enough"}),
    )
    status, answer = await call(nexus, REPORT)
    assert status == 200
    report = answer["report"]
    assert (report["id"], report["reason"], report["madeFor"]) == (ID, "a test", SUPERUSER)
    assert report["checks"] == [
        {"when": "before", "name": "disk", "result": "ok", "detail": "room enough"}
    ]
    assert (report["missing"], report["breaks"], report["events"]) == ([], [], 3)
    assert report["head"] == nexus.vault.opened.document.audit_head
    assert answer["markdown"].startswith(f"# Report of rotation {ID}\n")
    assert (await call(nexus, REPORT, id=ID))[1]["report"]["id"] == ID


async def test_a_remark_stands_in_the_history_and_in_the_report(nexus: RunningNexus) -> None:
    await tell(nexus, ("rotation-started", STARTED))
    status, noted = await call(nexus, NOTE, id=ID, text="approved: OPS-1423")
    assert status == 200
    _, history = await call(nexus, "/v1/key?action=history")
    last = history["events"][-1]
    assert (last["sequence"], last["kind"], last["actor"]) == (
        noted["sequence"], "rotation-note", SUPERUSER,
    )  # fmt: skip
    _, answer = await call(nexus, REPORT)
    assert [note["detail"]["text"] for note in answer["report"]["notes"]] == ["approved: OPS-1423"]
    assert "approved: OPS-1423" in answer["markdown"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"id": "cd" * 16, "text": "x"}, "refused_unknown_rotation"),
        ({"id": "", "text": "x"}, "refused_unknown_rotation"),
        ({"id": ID, "text": ""}, "refused_remark"),
        ({"id": ID, "text": "x" * 501}, "refused_remark"),
        ({"id": ID, "text": "two\nlines"}, "refused_remark"),
    ],
)
async def test_a_remark_on_nothing_and_one_that_is_none_change_nothing(
    nexus: RunningNexus, asked: dict[str, str], why: str
) -> None:
    await tell(nexus, ("rotation-started", STARTED))
    before = nexus.vault.opened.document
    status, told = await call(nexus, NOTE, **asked)
    assert (status, told["err"]) == (400, why)
    assert nexus.vault.opened.document == before


async def test_without_a_rotation_there_is_no_report(nexus: RunningNexus) -> None:
    for asked in ({}, {"id": ID}):
        status, told = await call(nexus, REPORT, **asked)
        assert (status, told["err"]) == (400, "refused_unknown_rotation")


async def test_an_entry_that_was_taken_out_of_the_history_is_told(nexus: RunningNexus) -> None:
    await tell(nexus, ("rotation-started", STARTED))
    await tell(nexus, ("rotation-flipped", {"id": ID}))
    gone = RecordId(HISTORY, record_key(2))
    record = await nexus.vault.store.get(gone)
    assert record is not None
    await nexus.vault.store.apply([Delete(gone, record.revision)], fence=None)
    _, answer = await call(nexus, REPORT, id=ID)
    assert answer["report"]["breaks"]
    assert "its start: who, why, which keys" in answer["report"]["missing"]
    assert "BROKEN" in answer["markdown"]


async def test_both_are_for_the_superuser(nexus: RunningNexus) -> None:
    for target in (NOTE, REPORT):
        assert (await nexus.call(WORKLOAD, target, {}))[0] == 401
