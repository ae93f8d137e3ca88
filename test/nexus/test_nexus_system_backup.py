"""A system backup out of a running Nexus: one moment, by those who may, and never for longer than it is read."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import pytest

from nexus_kit import RESTORE, SUPERUSER, WORKLOAD, RunningNexus, running
from spike.lifecycle.refusal import RefusalError
from spike.nexus import system_backup_desk
from spike.nexus.system_backup_desk import SystemBackupDesk
from spike.secret.encoding import decode_values_untrusted
from spike.storage.protocol import SECRET, Record, RecordId, Revision
from system_backup_kit import parsed

TARGET = "/v1/system-backup?action="


async def begun(nexus: RunningNexus) -> dict[str, Any]:
    status, answer = await nexus.call(SUPERUSER, TARGET + "create")
    assert status == 200, answer
    return dict(answer)


async def read(nexus: RunningNexus, session: str, part: int) -> tuple[int, Any]:
    return await nexus.call(SUPERUSER, TARGET + "read", {"session": session, "part": part})


async def rest(nexus: RunningNexus, session: str, part: int = 0) -> bytes:
    pieces: list[bytes] = []
    while True:
        status, answer = await read(nexus, session, part)
        assert status == 200, answer
        pieces.append(base64.b64decode(answer["data"]))
        part += 1
        if answer["last"]:
            return b"".join(pieces)


async def put(nexus: RunningNexus, path: str, value: str) -> None:
    asked = {"path": path, "values": {"k": value}}
    assert (await nexus.call(SUPERUSER, "/v1/store/secrets", asked))[0] == 200


async def test_what_was_acknowledged_before_is_in_it_and_nothing_later(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as nexus:
        for number in range(40):
            await put(nexus, f"before/{number}", "x" * 20_000)
        started = await begun(nexus)
        status, first = await read(nexus, started["session"], 0)
        assert status == 200
        for number in range(40):
            await put(nexus, f"before/{number}", "changed")
            await put(nexus, f"later/{number}", "x")
        whole = base64.b64decode(first["data"]) + await rest(nexus, started["session"], 1)
        summary, records = parsed(whole)
        values = [
            _opened(nexus, record.id, record.blob) for record in records if record.id.kind == SECRET
        ]
        assert len(values) == 40
        assert {len(each["k"]) for each in values} == {20_000}
        told = summary.manifest.hint
        document = nexus.vault.opened.document
        assert summary.manifest.confirmed_by(nexus.vault.opened.ring.root, document) == told
        assert told.fence == document.epoch
        # Sealed alone: nothing of a value is in the file.
        assert b"xxxxxxxx" not in whole


def _opened(nexus: RunningNexus, record_id: RecordId, blob: bytes) -> dict[str, str]:
    plaintext = nexus.vault.opened.sealed.open(Record(record_id, blob, 1, Revision(1)))
    return dict(decode_values_untrusted(plaintext))


async def test_writers_beside_it_leave_it_one_moment(tmp_path: Path) -> None:
    """Each writer writes the same number to two paths in turn: the second is never ahead of the first."""
    async with running(tmp_path / "data") as nexus:
        stop = asyncio.Event()
        all_write = asyncio.Event()
        acknowledged: dict[int, int] = {}

        async def write(writer: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                await put(nexus, f"w{writer}/first", str(number))
                await put(nexus, f"w{writer}/second", str(number))
                acknowledged[writer] = number
                if len(acknowledged) == 3:
                    all_write.set()

        writers = [asyncio.create_task(write(each)) for each in range(3)]
        for _ in range(3):
            await all_write.wait()
            before = dict(acknowledged)
            started = await begun(nexus)
            _, records = parsed(await rest(nexus, started["session"]))
            newest: dict[str, int] = {}
            for record in records:
                if record.id.kind == SECRET:
                    value = int(_opened(nexus, record.id, record.blob)["k"])
                    newest[record.id.key] = max(newest.get(record.id.key, 0), value)
            for writer, number in before.items():
                first, second = newest[f"w{writer}/first"], newest[f"w{writer}/second"]
                assert first >= second >= number
                assert first - second <= 1
        stop.set()
        await asyncio.gather(*writers)


async def test_a_part_can_be_read_once_more_and_none_is_left_out() -> None:
    async with running() as nexus:
        session = (await begun(nexus))["session"]
        status, first = await read(nexus, session, 0)
        assert (status, await read(nexus, session, 0)) == (200, (200, first))
        assert (await read(nexus, session, 2))[0] == 400
        assert (await read(nexus, session, 1))[0] == 200
        assert (await read(nexus, session, 0))[0] == 400
        end = await rest(nexus, session, 2)
        last = 2
        assert end
        status, again = await read(nexus, session, last)
        assert status == 200
        assert again["last"]
        assert (await read(nexus, session, last + 1))[0] == 400


async def test_only_a_superuser_makes_one_and_only_his_own_is_his() -> None:
    async with running() as nexus:
        for other in (WORKLOAD, RESTORE):
            assert (await nexus.call(other, TARGET + "create"))[0] == 401
        session = (await begun(nexus))["session"]
        colleague = f"{SUPERUSER}/two"
        asked = {"session": session, "part": 0}
        status, answer = await nexus.call(colleague, TARGET + "read", asked)
        assert (status, answer["err"]) == (400, "refused_expired")
        status, answer = await nexus.call(colleague, TARGET + "create")
        assert (status, answer["err"]) == (400, "refused_busy")
        again = (await begun(nexus))["session"]
        assert (await read(nexus, session, 0))[1]["err"] == "refused_expired"
        assert (await read(nexus, again, 0))[0] == 200


async def test_one_that_is_not_read_ends_and_lets_go_of_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_backup_desk, "IDLE_S", 0.05)
    async with running(tmp_path / "data") as nexus:
        desk = SystemBackupDesk(nexus.vault)
        started = await desk.begin("somebody")
        await desk.read("somebody", started.session, 0)
        with pytest.raises(RefusalError, match="is being made for somebody"):
            await desk.begin("another")
        async with asyncio.timeout(30):
            while await _is_busy(desk):  # noqa: ASYNC110  (it ends by a timer of its own)
                await asyncio.sleep(0.01)
        await desk.close()
        assert await nexus.store.purge(1 << 30) == 0


async def _is_busy(desk: SystemBackupDesk) -> bool:
    try:
        await desk.begin("another")
    except RefusalError:
        return True
    return False


async def test_a_reader_that_is_too_slow_is_sent_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system_backup_desk, "LEAST_RATE_BYTES_S", 1 << 40)
    async with running(tmp_path / "data") as nexus:
        session = (await begun(nexus))["session"]
        assert (await read(nexus, session, 0))[0] == 200
        monkeypatch.setattr(system_backup_desk, "IDLE_S", 0.0)
        status, answer = await read(nexus, session, 1)
        assert (status, answer["err"]) == (400, "refused_expired")


async def test_who_is_made_to_wait_by_nexus_is_no_slow_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (
        ("PART_BYTES", 1),
        ("REST", 10**6),
        ("_LONGEST_REST_S", 0.15),
        ("IDLE_S", 2.0),
        ("LEAST_RATE_BYTES_S", 1 << 40),
    ):
        monkeypatch.setattr(system_backup_desk, name, value)

    async def others() -> None:
        while True:
            time.sleep(0.000_5)  # noqa: ASYNC251  (as a request that is served takes the loop)
            await asyncio.sleep(0)

    async with running(tmp_path / "data") as nexus:
        for number in range(8):
            asked: dict[str, object] = {"path": f"a/{number}", "values": {"k": "v"}}
            assert (await nexus.call(SUPERUSER, "/v1/store/secrets", asked))[0] == 200
        desk = SystemBackupDesk(nexus.vault)
        busy = asyncio.create_task(others())
        begun_s, part = time.monotonic(), 0
        started = await desk.begin("somebody")
        while not (await desk.read("somebody", started.session, part)).last:
            part += 1
        busy.cancel()
        assert time.monotonic() - begun_s > 2.0, "it was not made to wait"
