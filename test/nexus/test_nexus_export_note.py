"""A copy that leaves is told by the history before it does; trouble with the history keeps no copy back."""

from __future__ import annotations

import base64
import logging
from pathlib import Path

import pytest

from nexus_kit import SUPERUSER, RunningNexus, running
from spike.lifecycle import backup
from spike.nexus.opened import Stop

EXPORT = "/v1/backup?action=export"
CREATE = "/v1/system-backup?action=create"


async def newest(nexus: RunningNexus) -> dict[str, object]:
    _, told = await nexus.call(SUPERUSER, "/v1/key?action=history")
    assert told["breaks"] == []
    event: dict[str, object] = told["events"][-1]
    return event


@pytest.mark.parametrize(
    ("target", "kind"), [(EXPORT, "key-backup-exported"), (CREATE, "system-backup-created")]
)
async def test_the_history_says_who_took_a_copy_where_and_of_which_keys(
    tmp_path: Path, target: str, kind: str
) -> None:
    async with running(tmp_path) as nexus:
        status, answer = await nexus.call(SUPERUSER, target, {"place": "laptop:/mnt/usb"})
        assert status == 200
        event = await newest(nexus)
        assert (event["kind"], event["actor"]) == (kind, SUPERUSER)
        assert event["detail"] == {
            "place": "laptop:/mnt/usb", "epoch": "1", "root": "1", "record": "1",
        }  # fmt: skip
        # What left is the keyring of right after that.
        assert answer["revision"] == nexus.vault.opened.document.revision


async def test_a_place_that_would_spoil_the_history_is_refused_and_nothing_leaves(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as nexus:
        before = nexus.vault.opened.document
        for target in (EXPORT, CREATE):
            for place in ("x" * 301, "two\nlines", "\u202e"):
                status, _ = await nexus.call(SUPERUSER, target, {"place": place})
                assert status == 400
        assert nexus.vault.opened.document == before


async def test_a_copy_is_given_though_the_history_cannot_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as nexus:
        before = nexus.vault.opened.document

        nexus.vault.stop_writes(Stop.UNSURE)
        nexus.vault._uncertain = nexus.vault.opened.ring  # as after an answer that was lost
        with caplog.at_level(logging.CRITICAL, "spike.nexus.export"):
            status, answer = await nexus.call(SUPERUSER, EXPORT, {"place": "laptop:/mnt"})
        nexus.vault._uncertain = None
        assert status == 200
        assert backup.decode_untrusted(base64.b64decode(answer["backup"])) is not None
        assert nexus.vault.opened.document == before
        assert any("is not in the history" in line for line in caplog.messages)
