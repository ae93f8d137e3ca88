"""The copies of the key backup: looked at without a password, opened with one, written again, exported."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import lifecycle_kit
from around_kit import eventually
from lost_kit import PASSWORD, POLICIES, WEB, put
from nexus_kit import RECOVER, SUPERUSER, RunningNexus, running
from slot_kit import ALICE, OTHER, ask, give_slot, wait_a_minute
from spike.error import StoreUnavailableError
from spike.lifecycle import anchor, backup
from spike.lifecycle.backup_check import Present, judge_backup_untrusted
from spike.lifecycle.slot_due import DUE_AFTER
from spike.nexus.backup_watch import BackupWatch
from spike.nexus.place import Place
from spike.nexus.vault import KEYRING_ID
from spike.nexus.watch import MemoryWatch
from spike.storage.protocol import Put

VERIFY = "/v1/backup?action=verify"
EXPORT = "/v1/backup?action=export"


@contextlib.asynccontextmanager
async def living(
    tmp_path: Path, password: bytes | None = None
) -> AsyncIterator[tuple[RunningNexus, Path]]:
    """Run a Nexus with a backup place; give it and the place's one key backup."""
    place = tmp_path / "backup"
    at = lifecycle_kit.AT
    async with running(tmp_path / "data", place=place, password=password, born_at=at) as nexus:
        await put(nexus, "a", "1")
        yield nexus, place / f"spike-{nexus.vault.opened.document.store_id}.key-backup"


async def verified(nexus: RunningNexus, password: bytes | None = None, slot: str = "") -> Any:
    asked: dict[str, object] = {"slot": slot}
    if password is not None:
        asked |= await nexus.seal(SUPERUSER, password)
    return await nexus.call(SUPERUSER, VERIFY, asked)


async def test_every_copy_is_good_and_status_says_when_that_was_seen(tmp_path: Path) -> None:
    async with living(tmp_path) as (nexus, path):
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert "verifiedAt" not in told["backup"]
        status, answer = await verified(nexus)
        assert (status, answer["good"]) == (200, True)
        assert [(copy["place"], copy["state"]) for copy in answer["copies"]] == [
            ("", "good"),
            (str(path), "good"),
        ]
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert told["backup"]["verifiedAt"] == answer["at"]
        assert told["backup"]["copies"] == answer["copies"]


def of_another_store(_raw: bytes) -> bytes:
    other = lifecycle_kit.born()
    document, root = other.ring.document, other.ring.root
    statement = anchor.encode(anchor.anchor_of(document, 0), root)
    return backup.encode(other.raw, statement, lifecycle_kit.AT, document, root)


def alarms(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "spike.nexus.backup"]


Damage = Callable[[bytes], bytes | None]
DAMAGES: dict[str, tuple[str, Damage]] = {
    "gone": ("missing", lambda _: None),
    "empty": ("unreadable", lambda _: b""),
    "cut short": ("unreadable", lambda raw: raw[:-1]),
    "made longer": ("unreadable", lambda raw: raw + b"\n"),
    "of a newer format": ("unreadable", lambda raw: raw.replace(b"backup 1\n", b"backup 9\n")),
    "of another store": ("foreign", of_another_store),
    "another date": ("planted", lambda raw: raw.replace(b'"written_at":"2', b'"written_at":"3')),
}


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_copy_that_is_not_what_it_was_is_named_written_again_and_alarmed(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    state, damage = DAMAGES[how]
    async with living(tmp_path) as (nexus, path):
        good = path.read_bytes()
        bad, opened = damage(good), nexus.vault.opened
        present = Present(opened.document, opened.ring.root, opened.ring.auth)
        assert judge_backup_untrusted(bad, present).state == state
        assert judge_backup_untrusted(good, present).is_good
        path.unlink()
        if bad is not None:
            path.write_bytes(bad)
        watch = BackupWatch(nexus.vault)
        with caplog.at_level(logging.CRITICAL, "spike.nexus.backup"):
            report = await watch.verify()
        assert report.is_good
        assert [(copy.name, copy.rewritten) for copy in report.copies] == [
            ("", False),
            (str(path), True),
        ]
        (alarm,) = alarms(caplog)
        assert str(path) in alarm
        assert (
            backup.decode_untrusted(path.read_bytes()).keyring.raw == nexus.vault.opened.keyring_raw
        )
        with caplog.at_level(logging.CRITICAL, "spike.nexus.backup"):
            again = await watch.verify()
        assert again.is_good
        assert not any(copy.rewritten for copy in again.copies)
        assert len(alarms(caplog)) == 1


async def test_an_older_copy_put_back_is_noticed_and_says_whose_password_it_wants(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with living(tmp_path) as (nexus, path):
        await give_slot(nexus, "alice", ALICE)
        older = path.read_bytes()
        assert (await ask(nexus, "change", "alice", OTHER))[0] == 200
        await give_slot(nexus, "bob", ALICE)
        path.write_bytes(older)
        with caplog.at_level(logging.CRITICAL, "spike.nexus.backup"):
            _, answer = await verified(nexus)
        assert answer["good"]
        assert answer["copies"][1]["rewritten"]
        (alarm,) = alarms(caplog)
        assert "an older one took its place" in alarm
        assert "still wants the old password of slot 'alice'" in alarm


async def test_a_place_that_fails_is_named_with_the_password_that_its_old_copy_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(tmp_path) as (nexus, _):
        await give_slot(nexus, "alice", ALICE)

        def full(self: Place, store_id: str, raw: bytes) -> None:
            raise StoreUnavailableError(
                "the backup place cannot be written: No space left on device"
            )

        monkeypatch.setattr(Place, "write_backup", full)
        nexus.vault.guard.has_keepers = (
            True  # somebody else keeps the anchor: the change is not held up
        )
        nexus.vault.guard.note_keepers(nexus.vault.guard.turn, hold_anchor=True)
        status, told = await ask(nexus, "change", "alice", OTHER)
        assert status == 200, told
        bad = told["copies"][1]
        assert bad["state"] == "older"
        assert "still wants the old password of slot 'alice'" in bad["detail"]
        _, seen = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert seen["backup"]["copies"] == told["copies"]
        assert seen["places"][0]["state"] == "failed"
        monkeypatch.undo()
        _, answer = await verified(nexus)
        assert answer["good"]


async def test_an_older_anchor_beside_a_good_backup_is_noticed(tmp_path: Path) -> None:
    async with living(tmp_path) as (nexus, path):
        anchor_path = path.with_suffix(".anchor")
        older = anchor_path.read_bytes()
        assert await nexus.call(SUPERUSER, POLICIES, WEB) == (200, {})
        newest = anchor_path.read_bytes()
        assert older != newest
        anchor_path.write_bytes(older)
        _, answer = await verified(nexus)
        assert answer["copies"][1]["rewritten"]
        assert anchor_path.read_bytes() == newest


async def test_a_store_s_keyring_that_was_put_back_is_named_and_not_written_over(
    tmp_path: Path,
) -> None:
    async with living(tmp_path) as (nexus, _):
        record = await nexus.store.get(KEYRING_ID)
        assert record is not None
        older = record.blob
        await give_slot(nexus, "alice", ALICE)
        record = await nexus.store.get(KEYRING_ID)
        assert record is not None
        await nexus.store.apply([Put(KEYRING_ID, older, 1, record.revision)], fence=None)
        _, answer = await verified(nexus)
        assert not answer["good"]
        assert [copy["state"] for copy in answer["copies"]] == ["older", "good"]
        record = await nexus.store.get(KEYRING_ID)
        assert record is not None
        assert record.blob == older


async def test_each_change_is_looked_at_by_itself(tmp_path: Path) -> None:
    async with living(tmp_path) as (nexus, path):
        watch = BackupWatch(nexus.vault)
        looks: list[str] = []
        verify = watch.verify

        async def noted() -> Any:
            report = await verify()
            looks.append(report.at)
            return report

        watch.verify = noted  # type: ignore[method-assign]
        task = asyncio.create_task(watch.run())
        try:
            await eventually(lambda: len(looks) == 1)
            await ask(nexus, "add", "alice", ALICE)
            await eventually(lambda: len(looks) >= 2)
            assert watch.last is not None
            assert watch.last.is_good
            before = len(looks)
            path.unlink()
            await nexus.vault.renew_anchor()  # no key has changed: the next look is tomorrow's
            await asyncio.sleep(0)
            assert len(looks) == before
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_events_that_leave_the_keyring_later_leave_no_older_backup_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with living(tmp_path) as (nexus, path):

        async def later() -> None:
            """Do as if the store had failed at the history alone."""

        with monkeypatch.context() as patched:
            patched.setattr(nexus.vault, "drain", later)
            await give_slot(nexus, "alice", ALICE)
        assert nexus.vault.opened.document.outbox
        await nexus.vault.drain()
        assert not nexus.vault.opened.document.outbox

        def held() -> bytes:
            return backup.decode_untrusted(path.read_bytes()).keyring.raw

        assert held() != nexus.vault.opened.keyring_raw
        task = asyncio.create_task(MemoryWatch(nexus.vault, interval_s=0.01).run())
        await eventually(lambda: held() == nexus.vault.opened.keyring_raw)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_with_a_password_each_copy_is_really_opened_and_the_date_is_kept(
    tmp_path: Path,
) -> None:
    async with living(tmp_path, PASSWORD) as (nexus, path):
        clock = nexus.vault.clock
        assert nexus.vault.opened.document.slots[0].verified_at == lifecycle_kit.AT
        epoch = nexus.vault.opened.document.epoch
        status, answer = await verified(nexus, PASSWORD, "admin")
        assert (status, answer["good"], answer["slot"]) == (200, True, "admin")
        document = nexus.vault.opened.document
        assert document.slots[0].verified_at != lifecycle_kit.AT
        assert document.epoch == epoch, "a date may be lost again: it is no epoch"
        held = backup.decode_untrusted(path.read_bytes()).keyring
        assert held.hint.slots[0].verified_at == document.slots[0].verified_at
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert told["slots"][0]["dueAt"] == answer["dueAt"]
        assert told["slots"][0]["overdue"] is False
        later = int(DUE_AFTER.total_seconds() + 60) * 1_000_000_000
        nexus.vault.clock = lambda: type(clock())(clock() + later)
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert told["slots"][0]["overdue"] is True


async def test_a_wrong_password_or_a_copy_that_does_not_open_keeps_no_date(tmp_path: Path) -> None:
    async with living(tmp_path, PASSWORD) as (nexus, _):
        raw = nexus.vault.opened.keyring_raw
        status, told = await verified(nexus, OTHER, "admin")
        assert (status, told["err"]) == (400, "refused_wrong_password")
        wait_a_minute(nexus, "admin")
        status, told = await verified(nexus, PASSWORD, "admin")
        assert (status, told["err"]) == (400, "refused_too_soon")
        status, told = await verified(nexus, PASSWORD, "nobody")
        assert (status, told["err"]) == (400, "refused_unknown_slot")
        assert nexus.vault.opened.keyring_raw == raw


async def test_an_export_opens_with_any_slot_s_password(tmp_path: Path) -> None:
    async with living(tmp_path, PASSWORD) as (nexus, _):
        await give_slot(nexus, "alice", ALICE)
        status, told = await nexus.call(SUPERUSER, EXPORT)
        assert status == 200
        exported = base64.b64decode(told["backup"])
        document = nexus.vault.opened.document
        assert (told["storeId"], told["epoch"]) == (document.store_id, document.epoch)
        answer = await nexus.call(RECOVER, EXPORT)
        assert answer == (401, {"err": "access_unauthorized"})
    for slot, password in (("admin", PASSWORD), ("alice", ALICE)):
        async with running(tmp_path / "data", born=False) as nexus:
            status, told = await nexus.restore(password, slot=slot, backup=exported)
            # The first restore is an epoch, and makes the export an old one.
            assert status == 200 or told["err"] == "refused_old", told


async def test_nothing_is_exported_with_a_root_key_that_is_not_the_right_one(
    tmp_path: Path,
) -> None:
    async with living(tmp_path) as (nexus, _):
        with nexus.vault.opened.ring.root.view() as view:
            view[0] ^= 1
        status, _ = await nexus.call(SUPERUSER, EXPORT)
        assert status == 503
        with nexus.vault.opened.ring.root.view() as view:
            view[0] ^= 1


def test_a_vault_without_places_has_the_store_s_copy_alone() -> None:
    async def look() -> None:
        async with running() as nexus:
            report = await BackupWatch(nexus.vault).verify()
            assert [copy.name for copy in report.copies] == [""]
            assert report.is_good

    asyncio.run(look())
