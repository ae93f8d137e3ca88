"""Drills on a real store: what they find, that they touch nothing, and how they are noted."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from around_kit import put
from lost_kit import POLICIES, WEB
from nexus_kit import RESTORE, SUPERUSER, RunningNexus, running
from proxy_store import Proxy
from spike.lifecycle.proof import DrillKind, Outcome
from spike.nexus import drill as drills
from spike.storage.protocol import HISTORY, KEYRING, Kind, Put, Record, RecordId
from spike.storage.registry import open_store

DRILL = "/v1/drill"
PASSWORD = b"the password of a test, no secret"


async def everything(nexus: RunningNexus) -> dict[RecordId, Record]:
    found: dict[RecordId, Record] = {}
    for kind in {kind for kind, _ in await nexus.store.census()}:
        page = await nexus.store.scan(Kind(kind), "", None, 1000)
        found |= {record.id: record for record in page.items}
    return found


async def drill(nexus: RunningNexus, **asked: object) -> dict[str, Any]:
    """Make a drill and return what came of it."""
    status, told = await nexus.call(SUPERUSER, DRILL, asked)
    assert status == 200, told
    await nexus.drills.wait()
    return dict((await report(nexus))["last"])


async def report(nexus: RunningNexus) -> dict[str, Any]:
    status, told = await nexus.call(SUPERUSER, f"{DRILL}?action=report")
    assert status == 200, told
    return dict(told)


async def fill(nexus: RunningNexus) -> None:
    for name in ("a", "b", "c"):
        await put(nexus, name)
    assert (await nexus.call(SUPERUSER, POLICIES, WEB))[0] == 200


async def test_a_drill_brings_everything_back_and_touches_nothing(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        await fill(nexus)
        await nexus.call(SUPERUSER, "/v1/store/secrets?action=delete", {"path": "c"})
        before, opened = await everything(nexus), nexus.vault.opened
        told = await drill(nexus)
        assert (told["outcome"], told["kind"]) == ("succeeded", "drill")
        assert told["source"].startswith(str(tmp_path / "place"))
        assert (told["secrets"], told["policies"], told["slots"]) == (2, 1, 1)
        assert [step["name"] for step in told["steps"]] == [
            *("backup", "open", "authenticate", "key", "record", "serve")
        ]
        assert told["scanned"] == len(before) - 1
        assert "problems" not in told
        after = await everything(nexus)
        changed = {key for key, record in after.items() if before.get(key) != record}
        assert {key.kind for key in changed} == {KEYRING, HISTORY}
        assert set(before) <= set(after)
        assert nexus.vault.opened.ring.root is opened.ring.root
        (noted,) = (await report(nexus))["drills"]
        assert (noted["outcome"], noted["secrets"], noted["keys"]) == ("succeeded", 2, told["keys"])
        assert noted["steps"] == told["steps"]


async def test_a_full_drill_opens_every_record(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        await fill(nexus)
        told = await drill(nexus, full=True)
        assert told["full"] is True
        assert told["opened"] == told["scanned"] == told["expected"]


async def test_a_record_that_does_not_open_is_named(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        await fill(nexus)
        (record, *_) = (await nexus.store.scan(Kind("secret"), "b", None, 1)).items
        blob = bytearray(record.blob)
        blob[-1] ^= 1
        put_back = Put(record.id, bytes(blob), record.generation, record.revision)
        await nexus.store.apply((put_back,), fence=None)
        told = await drill(nexus, full=True)
        assert told["outcome"] == "failed"
        assert told["problems"][0].startswith("secret b: ")
        proof = nexus.vault.opened.document.proof
        assert proof is not None
        assert proof.drill is not None
        assert proof.drill.outcome == "failed"
        assert (await report(nexus))["drill"]["overdue"] is True


async def test_a_persons_password_opens_the_backup_and_is_noted(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place", password=PASSWORD) as nexus:
        await fill(nexus)
        sealed = await nexus.seal(SUPERUSER, PASSWORD)
        told = await drill(nexus, **sealed)
        assert (told["outcome"], told["kind"], told["slot"]) == (
            "succeeded",
            "person-drill",
            "admin",
        )
        document = nexus.vault.opened.document
        assert document.proof is not None
        assert document.proof.person is not None
        assert document.slots[0].verified_at == document.proof.person.at
        assert document.proof.drill is None


async def test_a_wrong_password_is_refused_and_no_drill(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place", password=PASSWORD) as nexus:
        before = nexus.vault.opened.document
        sealed = await nexus.seal(SUPERUSER, b"another password, of nobody")
        status, told = await nexus.call(SUPERUSER, DRILL, sealed)
        assert (status, told["err"]) == (400, "refused_wrong_password")
        await nexus.drills.wait()
        assert nexus.vault.opened.document == before
        assert nexus.drills.last is None
        sealed = await nexus.seal(SUPERUSER, PASSWORD)
        status, told = await nexus.call(SUPERUSER, DRILL, sealed)
        assert (status, told["err"]) == (400, "refused_too_soon")


def _flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("spoil", [Path.unlink, _flipped, _truncated])
async def test_a_backup_that_is_not_whole_fails_it(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        (backup,) = (tmp_path / "place").glob("*.key-backup")
        spoil(backup)
        told = await drill(nexus)
        assert told["outcome"] == "failed"
        assert told["problems"]
        assert (await drill(nexus))["outcome"] == "succeeded"  # the note of it renewed the place


async def test_an_older_backup_in_the_place_of_the_newest_fails_it(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        (backup,) = (tmp_path / "place").glob("*.key-backup")
        old = backup.read_bytes()
        await nexus.drills.record("x", Outcome.SUCCEEDED, "", SUPERUSER)
        assert backup.read_bytes() != old
        backup.write_bytes(old)
        told = await drill(nexus)
        assert told["outcome"] == "failed"
        assert "the key backup is of epoch 1, revision" in told["problems"][0]


class ChangingStore(Proxy):
    """A store whose keyring is replaced while a drill is at it, so many times."""

    def __init__(self, store: Any, times: int) -> None:
        super().__init__(store)
        self.times = times
        self.change: Callable[[], Any] | None = None

    async def census(self) -> Any:
        if self.times and self.change is not None:
            self.times -= 1
            await self.change()
        return await self.real.census()


@pytest.mark.parametrize(("times", "outcome"), [(2, "succeeded"), (9, "interrupted")])
async def test_it_starts_again_when_the_keyring_changes(
    tmp_path: Path, times: int, outcome: str
) -> None:
    store = await open_store("sqlite", tmp_path / "data")
    changing = ChangingStore(store, times)
    try:
        async with running(store=changing, place=tmp_path / "place") as nexus:

            async def change() -> None:
                await nexus.drills.record("x", Outcome.SUCCEEDED, "", SUPERUSER)

            changing.change = change
            told = await drill(nexus)
            assert told["outcome"] == outcome
            kinds = [each["kind"] for each in (await report(nexus))["drills"]]
            assert kinds.count("drill") == (outcome == "succeeded")
    finally:
        await store.close()


async def test_one_that_takes_too_long_is_noted_as_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drills, "SAMPLED_S", 0.0)
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        told = await drill(nexus)
        assert (told["outcome"], told["problems"]) == ("timed-out", ["it took too long"])
        assert (await report(nexus))["drill"]["lastOutcome"] == "timed-out"


async def test_it_is_made_by_itself_once_and_not_again(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        await nexus.drills.run_if_due()
        first = nexus.drills.last
        assert first is not None
        assert (first.outcome, first.actor) == (Outcome.SUCCEEDED, "nexus")
        await nexus.drills.run_if_due()
        assert nexus.drills.last is first


async def test_without_a_place_nothing_would_survive_and_it_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as nexus:
        status, told = await nexus.call(SUPERUSER, DRILL, {})
        assert (status, told["err"]) == (400, "refused_unsupported")
        assert "no backup place" in told["message"]
        assert (await nexus.call(RESTORE, DRILL, {}))[0] == 401


async def test_a_second_one_waits_its_turn(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        answers = await asyncio.gather(*(nexus.call(SUPERUSER, DRILL, {}) for _ in range(3)))
        assert sorted(status for status, _ in answers) == [200, 400, 400]
        await nexus.drills.wait()
        assert nexus.drills.last is not None
        assert nexus.drills.last.outcome is Outcome.SUCCEEDED


async def test_a_practised_runbook_is_noted_and_reported(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        asked = {"name": "restore on a fresh machine", "outcome": "failed", "note": "no network"}
        assert (await nexus.call(SUPERUSER, f"{DRILL}?action=record", asked))[0] == 200
        (noted,) = (await report(nexus))["drills"]
        assert noted["kind"] == DrillKind.PRACTISED
        assert (noted["name"], noted["outcome"], noted["note"]) == tuple(asked.values())
        assert nexus.vault.opened.document.proof is None
        for bad in (
            {"name": "", "outcome": "succeeded"},
            {"name": "a\nb", "outcome": "succeeded"},
            {"name": "x" * 101, "outcome": "succeeded"},
            {"name": "a", "outcome": "running"},
            {"name": "a", "outcome": "succeeded", "note": "x" * 501},
        ):
            status, _ = await nexus.call(SUPERUSER, f"{DRILL}?action=record", bad)
            assert status == 400, bad


async def test_nothing_of_the_keys_is_in_what_it_tells_or_writes(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place") as nexus:
        told = await drill(nexus)
        with nexus.vault.opened.ring.root.view() as view:
            forms = [base64.b64encode(view), bytearray(view)]
        seen = [str(told).encode(), *written_below(tmp_path)]
        assert len(seen) > 3
        assert not any(bytes(form) in text for form in forms for text in seen)


def written_below(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
