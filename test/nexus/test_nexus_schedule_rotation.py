"""From a key too old to seal to a signed report: schedule, rotation, cipher generations and history together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clock_kit import clocked
from lifecycle_kit import AT
from nexus_kit import SUPERUSER, RunningNexus, running
from rotating_kit import decrypt, encrypt, get, put, until
from spike.lifecycle.keyring import KeyPurpose, Phase
from spike.nexus.performer import Performer
from spike.nexus.scheduler import Scheduler
from spike.nexus.usage_book import UsageBook


async def call(nexus: RunningNexus, action: str, **asked: Any) -> tuple[int, Any]:
    return await nexus.call(SUPERUSER, f"/v1/key?action={action}", asked)


async def test_an_expired_key_is_replaced_by_itself_and_the_report_tells_all_of_it(
    tmp_path: Path,
) -> None:
    async with running(
        tmp_path / "data", place=tmp_path / "place", performer=Performer(), born_at=AT
    ) as nexus:
        clocks = clocked(nexus)
        await put(nexus, "a", "before")
        blob = await encrypt(nexus, b"for others")
        await call(
            nexus, "schedule-set", windows=[{"days": ["mon"], "begin": "00:00", "end": "00:01"}]
        )
        await nexus.call(SUPERUSER, "/v1/backup?action=export", {"place": "laptop:/mnt/usb"})
        clocks.pass_days(181)
        refused = await nexus.call(SUPERUSER, "/v1/store/secrets", {"path": "b", "values": {}})
        assert refused[0] == 503
        scheduler = Scheduler(
            nexus.vault, UsageBook(nexus.vault), nexus.rotations.begin_due, nexus.rotations.hold
        )
        await scheduler.tick()
        assert scheduler.fault == ""
        view = await until(nexus, Phase.VERIFIED, Phase.RE_ENCRYPTING)
        await put(nexus, "b", "after")
        view = await until(nexus, Phase.VERIFIED)
        assert nexus.vault.opened.document.active_key(KeyPurpose.RECORD).number == 2

        busy = await call(nexus, "cipher-oldest", oldest=2, confirm=True)
        assert busy[1]["err"] == "refused_rotation"
        assert (await call(nexus, "note", id=view.id, text="seen by the board"))[0] == 200
        await nexus.rotations.finalize(SUPERUSER)
        await until(nexus, "finalized")
        assert await decrypt(nexus, blob) == b"for others"
        _, told = await call(nexus, "cipher-oldest", oldest=2, confirm=True)
        assert [each["generation"] for each in told["destroyed"]] == [1]
        assert await get(nexus, "a") == "before"

        _, answer = await call(nexus, "report", id=view.id)
        report = answer["report"]
        assert (report["missing"], report["breaks"]) == ([], [])
        assert report["outcome"].startswith("finalized")
        assert report["reason"] == "schedule: record key 1 is 181 days old"
        assert report["records"]["addsUp"] is True
        assert "record 1" in report["destroyed"]
        assert {check["when"] for check in report["checks"]} == {"before", "after"}
        assert [copy["detail"]["place"] for copy in report["copies"]] == ["laptop:/mnt/usb"]
        assert [note["detail"]["text"] for note in report["notes"]] == ["seen by the board"]
        assert "| record | 1 | 2 |" in answer["markdown"]
