"""Attacks on Nexus by whoever can write the store and the backup places, and by callers with few rights."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import signal
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

import lifecycle_kit
from lost_kit import PASSWORD, POLICIES, SECRETS, WEB, Lost, anchor_now, lose, put
from nexus_kit import RESTORE, SUPERUSER, Answer, RunningNexus, give_birth, running
from spike.crypto.slot import Argon2Setting, seal_to
from spike.error import SettingError, StoreUnavailableError
from spike.lifecycle import backup, keyring
from spike.lifecycle.history import record_key
from spike.lifecycle.refusal import Reason, RefusalError
from spike.nexus.birth_flow import Birth, initialize
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.opened import Stop
from spike.nexus.password_child import Derive
from spike.nexus.password_desk import PasswordDesk, PasswordSession
from spike.nexus.place import Place
from spike.nexus.policy_book import ACCESS_LIST_ID
from spike.nexus.setting import read_setting
from spike.nexus.vault import KEYRING_ID, Vault
from spike.nexus.watch import MemoryWatch
from spike.storage.memory import MemoryStore
from spike.storage.protocol import (
    HISTORY,
    MUST_NOT_EXIST,
    POLICY,
    Change,
    Delete,
    Kind,
    Put,
    RecordId,
    Revision,
    SetFence,
    Store,
)
from spike.wire.go_time import UnixNs
from spike.wire.own import PASSWORD_INFO


@pytest.fixture
def lost(tmp_path: Path) -> Lost:
    return lose(tmp_path)


async def got(nexus: RunningNexus, caller: str = SUPERUSER) -> Answer:
    return await nexus.call(caller, f"{SECRETS}?action=get", {"path": "a"})


async def write(store: Store, *changes: Change) -> tuple[Revision, ...]:
    """Write as a storage writer does: past every rule."""
    return await store.apply(changes, fence=None)


async def blob_of(store: Store, record_id: RecordId) -> bytes:
    record = await store.get(record_id)
    assert record is not None
    return record.blob


async def overwrite(store: Store, record_id: RecordId, blob: bytes) -> None:
    record = await store.get(record_id)
    expected = MUST_NOT_EXIST if record is None else record.revision
    await write(store, Put(record_id, blob, 1, expected))


def name_of(answer: Answer) -> str:
    status, told = answer
    assert status == 400, told
    return str(told["err"])


# What stands in the way of a restore must be named, and must not be something anyone can put there.


async def test_an_aside_record_planted_beforehand_does_not_lock_a_backup_out(lost: Lost) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await overwrite(nexus.store, KEYRING_ID, b"damaged")
        record = await nexus.store.get(KEYRING_ID)
        assert record is not None
        aside = RecordId(KEYRING_ID.kind, f"replaced-{record.revision}")
        await write(nexus.store, Put(aside, b"planted", 1, MUST_NOT_EXIST))
        status, told = await nexus.restore(PASSWORD, backup=lost.backup_path.read_bytes())
        assert (status, told["restored"]) == (200, True)
        kept = await nexus.store.scan(Kind("keyring"), "replaced-", None, 10)
        assert b"damaged" in [each.blob for each in kept.items]


async def test_another_stores_keyring_planted_does_not_lock_a_backup_out(lost: Lost) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await overwrite(nexus.store, KEYRING_ID, lifecycle_kit.born("intruder").raw)
        assert (await nexus.restore(PASSWORD, backup=lost.backup_path.read_bytes()))[0] == 200
        assert await got(nexus) == (200, {"data": {"k": "1"}})


@pytest.mark.parametrize("planted", [b"planted", b"\1\1\0\0\0\1" + b"\0" * 200])
async def test_a_planted_history_entry_does_not_keep_the_vault_from_opening(
    lost: Lost, planted: bytes
) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await overwrite(nexus.store, RecordId(HISTORY, record_key(2)), planted)
        assert (await nexus.restore(PASSWORD))[0] == 200
        entry = await nexus.vault.opened.sealed.read(RecordId(HISTORY, record_key(2)))
        assert entry is not None
        assert b'"kind":"restore"' in entry.plaintext


async def test_a_history_entry_of_another_life_is_replaced_and_the_chain_holds(lost: Lost) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        sealed = nexus.vault.opened.sealed
        other = sealed.put(RecordId(HISTORY, record_key(3)), b"of another life", MUST_NOT_EXIST)
        await write(nexus.store, other)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        entry = await nexus.vault.opened.sealed.read(RecordId(HISTORY, record_key(3)))
        assert entry is not None
        assert b'"kind":"restore"' in entry.plaintext


@pytest.mark.parametrize(
    ("fence", "name"), [(99, "refused_stale_store"), (2**62, "refused_damaged")]
)
async def test_a_fence_that_a_storage_writer_raised_is_named_and_commits_nothing(
    lost: Lost, fence: int, name: str
) -> None:
    """As of an old copy, or, further than any store comes, as set by somebody."""
    async with running(lost.data, place=lost.place, born=False) as nexus:
        before = await blob_of(nexus.store, KEYRING_ID)
        await write(nexus.store, SetFence(fence))
        assert name_of(await nexus.restore(PASSWORD)) == name
        assert await blob_of(nexus.store, KEYRING_ID) == before


@pytest.fixture
def meddled(lost: Lost, request: pytest.FixtureRequest) -> Lost:
    """Write to the store's file past the engine, whose checks are no hindrance then."""
    with contextlib.closing(sqlite3.connect(lost.data / "store.sqlite")) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        connection.execute(request.param)
        connection.commit()
    return lost


@pytest.mark.parametrize(
    "meddled",
    [
        "UPDATE record SET revision = -1 WHERE kind = 'keyring'",
        "UPDATE record SET generation = -1 WHERE kind = 'keyring'",
    ],
    indirect=True,
)
async def test_a_row_that_cannot_be_ends_a_restore_by_name(meddled: Lost) -> None:
    async with running(meddled.data, place=meddled.place, born=False) as nexus:
        for backup_raw in (None, meddled.backup_path.read_bytes()):
            assert name_of(await nexus.restore(PASSWORD, backup=backup_raw)) == "refused_damaged"


@pytest.mark.parametrize(
    "meddled", ["INSERT INTO record VALUES (NULL, 'No Kind', '', '', 1, 1, x'00')"], indirect=True
)
async def test_a_row_that_nothing_asks_for_keeps_no_store_away_and_is_told_of(
    meddled: Lost,
) -> None:
    async with running(meddled.data, place=meddled.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert told["storage"]["healthy"] is False


async def test_a_store_that_was_emptied_under_a_later_epoch_is_not_initialized_again(
    lost: Lost,
) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
    async with running(lost.data, place=lost.place, born=False) as nexus:
        for kind, _ in await nexus.store.census():
            for record in (await nexus.store.scan(kind, "", None, 100)).items:
                await write(nexus.store, Delete(record.id, record.revision))
        asked = await nexus.seal(SUPERUSER, PASSWORD)
        answer = await nexus.call(SUPERUSER, "/v1/operator/init", {**asked, "slotName": "x"})
        assert name_of(answer) == "refused_store_not_empty"


def _put_pipe_at(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("path", ["anchor_path", "backup_path"])
async def test_a_pipe_in_a_backup_place_does_not_hold_a_restore_up(lost: Lost, path: str) -> None:
    _put_pipe_at(getattr(lost, path))
    async with running(lost.data, place=lost.place, born=False) as nexus:
        # A wrong password makes Nexus look into the place's backup; a right one weighs its anchor.
        wrong = await asyncio.wait_for(nexus.restore(PASSWORD + b"!"), 30)
        assert name_of(wrong) == "refused_wrong_password"
        assert not nexus.vault.is_open
    async with running(lost.data, place=lost.place, born=False) as nexus:
        status, _ = await asyncio.wait_for(nexus.restore(PASSWORD), 30)
        assert status == 200


# Old copies.


async def test_a_revoked_right_does_not_come_back_when_the_anchor_is_older_than_the_keyring(
    lost: Lost,
) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        old_list = await blob_of(nexus.store, ACCESS_LIST_ID)
        old_row = await blob_of(nexus.store, RecordId(POLICY, "web"))
        assert await nexus.call(SUPERUSER, f"{POLICIES}?action=delete", {"id": "web"}) == (200, {})
        lost.anchor = await anchor_now(nexus)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        # Restored once more, by somebody whose Pilot's anchor is not at hand the next time.
        assert (await nexus.restore(PASSWORD))[0] == 200
    lost.empty_places()
    async with running(lost.data, place=lost.place, born=False) as nexus:
        await overwrite(nexus.store, ACCESS_LIST_ID, old_list)
        await overwrite(nexus.store, RecordId(POLICY, "web"), old_row)
        answer = await nexus.restore(PASSWORD, anchor=lost.anchor)
        assert name_of(answer) == "refused_stale_store"


async def test_the_backup_in_a_place_is_an_anchor_too(lost: Lost, tmp_path: Path) -> None:
    """A crash between writing the backup and the anchor, or a storage writer, leaves the backup alone."""
    old = tmp_path / "old"
    shutil.copytree(lost.data, old)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
    lost.anchor_path.unlink()
    async with running(old, place=lost.place, born=False) as nexus:
        assert name_of(await nexus.restore(PASSWORD)) == "refused_stale_store"


async def test_a_restore_that_no_anchor_confirms_says_so(lost: Lost) -> None:
    target = "/v1/operator/restore?action=password"
    lost.empty_places()
    async with running(lost.data, place=lost.place, born=False) as nexus:
        _, told = await nexus.call(RESTORE, target, await nexus.seal(RESTORE, PASSWORD))
        assert any("no anchor" in remark for remark in told["remarks"])
        asked = await nexus.seal(RESTORE, PASSWORD)
        asked["anchor"] = base64.b64encode(lost.anchor).decode()
        _, told = await nexus.call(RESTORE, target, asked)
        assert told.get("remarks") is None


# A running Nexus.


@pytest.mark.parametrize("action", ["", "?action=delete", "?action=undelete"])
async def test_a_fence_moved_under_a_running_nexus_ends_a_write_with_an_answer(
    lost: Lost, action: str
) -> None:
    async with running(lost.data, place=lost.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        await put(nexus, "a", "2")
        if action.endswith("=undelete"):
            target = f"{SECRETS}?action=delete"
            assert (await nexus.call(SUPERUSER, target, {"path": "a"}))[0] == 200
        await write(nexus.store, SetFence(99))
        asked = {"path": "a", "values": {"k": "3"}, "versions": [2]}
        status, _ = await asyncio.wait_for(nexus.call(SUPERUSER, SECRETS + action, asked), 10)
        assert status == 503


async def test_get_many_does_not_grow_without_bound() -> None:
    async with running() as nexus:
        await put(nexus, "a", "x" * 900_000)
        asked = {"items": [{"path": "a"}] * 1000}
        status, told = await nexus.call(SUPERUSER, f"{SECRETS}?action=get-many", asked)
        assert (status, told) == (400, {"err": "api_bad_request"})
        asked = {"items": [{"path": "a"}] * 5}
        status, told = await nexus.call(SUPERUSER, f"{SECRETS}?action=get-many", asked)
        assert (status, len(told["items"])) == (200, 5)


async def test_get_many_lets_others_through() -> None:
    """A long call gives way at each item: it is not the only one that is served."""
    async with running() as nexus:
        await put(nexus, "a", "x")
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        before = turns
        asked = {"items": [{"path": "a"}] * 1000}
        status, _ = await nexus.call(SUPERUSER, f"{SECRETS}?action=get-many", asked)
        counting.cancel()
        assert status == 200
        assert turns - before >= 1000


# Backup places while Nexus runs.


def born_vault(store: Store, *places: Place) -> Vault:
    for each in places:
        each.prepare()
    return Vault(store, places, lambda: UnixNs(1_800_000_000_000_000_000), 10)


def blocked(place: Path) -> Path:
    """Make every write to a place fail, also for root: a directory stands where the file is written first."""
    in_the_way = next(place.glob("*.anchor")).with_suffix(".anchor.new")
    (in_the_way / "x").mkdir(parents=True)
    return in_the_way


async def test_an_anchor_that_cannot_be_renewed_is_a_fault_of_the_place_and_stops_writes(
    tmp_path: Path,
) -> None:
    place = tmp_path / "backup"
    async with running(tmp_path / "data", place=place) as nexus:
        in_the_way = blocked(place)
        # Done and not acknowledged: a right that was taken away could come back.
        assert (await nexus.call(SUPERUSER, POLICIES, WEB))[0] == 503
        assert nexus.vault.opened.policies.find("web") is not None
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert [each["state"] for each in told["places"]] == ["failed"]
        assert told["stops"] == [Stop.NO_ANCHOR]
        status, _ = await nexus.call(SUPERUSER, SECRETS, {"path": "a", "values": {}})
        assert status == 503
        shutil.rmtree(in_the_way)
        await nexus.vault.renew_places()
        await put(nexus, "a", "1")
        assert next(place.glob("*.anchor")).read_bytes() == nexus.vault.opened.anchor_raw()


async def test_policies_written_at_once_leave_the_newest_anchor_and_a_whole_file(
    tmp_path: Path,
) -> None:
    place = tmp_path / "backup"
    async with running(tmp_path / "data", place=place) as nexus:
        asked = [{**WEB, "name": f"p{number}"} for number in range(24)]
        answers = await asyncio.gather(*(nexus.call(SUPERUSER, POLICIES, a) for a in asked))
        assert {status for status, _ in answers} == {200}
        assert nexus.vault.places[0].fault == ""
        assert next(place.glob("*.anchor")).read_bytes() == nexus.vault.opened.anchor_raw()


async def test_a_root_key_that_changed_in_memory_never_replaces_a_good_backup(
    tmp_path: Path,
) -> None:
    place = tmp_path / "backup"
    vault = born_vault(MemoryStore(), Place(place))
    born = await give_birth(vault)
    path = next(place.glob("*.key-backup"))
    good = path.read_bytes()
    with born.ring.root.view() as view:
        view[0] ^= 1
    await vault.renew_places()
    assert path.read_bytes() == good
    assert Stop.WRONG_KEY in vault.stops
    with born.ring.root.view() as view:
        view[0] ^= 1
    assert backup.decode_untrusted(good).confirmed_by(born.ring.root) is not None
    await vault.close()


async def test_a_watch_that_fails_once_goes_on(tmp_path: Path) -> None:
    vault = born_vault(MemoryStore(), Place(tmp_path / "backup"))
    watch = MemoryWatch(vault, interval_s=0.001)
    watching = asyncio.create_task(watch.run())
    await give_birth(vault)
    look, looks = watch.look, 0

    enough = asyncio.Event()

    def failing() -> object:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise OSError("too many open files")
        if looks == 3:
            enough.set()
        return look()

    watch.look = failing  # type: ignore[method-assign, assignment]  # the disk's failure, not ours
    async with asyncio.timeout(20):
        await enough.wait()
    assert not watching.done()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await vault.close()


def test_a_nexus_without_any_backup_place_is_a_setting_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="SPIKE_NEXUS_BACKUP_DIR"):
        read_setting({"SPIKE_NEXUS_BACKUP_DIR": ":"}, tmp_path)


@pytest.mark.parametrize("name", ["SPIKE_NEXUS_DATA_DIR", "SPIKE_NEXUS_BACKUP_DIR"])
def test_a_home_directory_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=name):
        read_setting({name: "~nobody-has-this-name/x"}, tmp_path)
    given = dict.fromkeys(("SPIKE_NEXUS_DATA_DIR", "SPIKE_NEXUS_BACKUP_DIR"), "/s")
    assert read_setting(given, Path("~nobody-has-this-name")).data_directory == Path("/s")


# Init, with a store that fails.


class FailingStore(MemoryStore):
    """A real store of which one write fails, or whose answer to it is lost."""

    def __init__(self, fails_at: int, *, acted: bool) -> None:
        super().__init__()
        self._left = fails_at
        self._acted = acted

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        self._left -= 1
        if self._left == 0 and not self._acted:
            raise StoreUnavailableError("the disk is full")
        revisions = await super().apply(changes, fence=fence)
        if self._left == 0:
            raise StoreUnavailableError("the answer was lost")
        return revisions


async def session_with_password(desk: PasswordDesk) -> tuple[PasswordSession, bytes]:
    session = await desk.begin(SUPERUSER)
    desk.take(session.id, SUPERUSER)
    return session, seal_to(session.public, PASSWORD_INFO, memoryview(PASSWORD))


@pytest.mark.parametrize("acted", [False, True])
@pytest.mark.parametrize("fails_at", [1, 2])
async def test_an_init_that_fails_leaves_a_store_that_can_be_initialized(
    tmp_path: Path, fails_at: int, acted: bool
) -> None:
    store, desk = FailingStore(fails_at, acted=acted), PasswordDesk()
    vault = born_vault(store, Place(tmp_path / "backup"))
    session, sealed = await session_with_password(desk)
    try:
        with pytest.raises(StoreUnavailableError):
            await initialize(KeeperDesk(vault), session, Birth(sealed, "ada", SUPERUSER))
    finally:
        await session.close()
    assert not vault.is_open
    assert await store.census() == {}
    await give_birth(vault)
    await vault.close()


class RacedStore(MemoryStore):
    """Another Nexus initializes the same store a moment earlier."""

    def __init__(self, theirs: bytes) -> None:
        super().__init__()
        self._theirs = theirs

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        if self._theirs:
            first, self._theirs = self._theirs, b""
            await super().apply((Put(KEYRING_ID, first, 1, MUST_NOT_EXIST),), fence=None)
        return await super().apply(changes, fence=fence)


async def test_an_init_that_lost_a_race_deletes_nothing_of_the_winners(tmp_path: Path) -> None:
    winner = lifecycle_kit.born("winner")
    store, desk = RacedStore(winner.raw), PasswordDesk()
    vault = born_vault(store, Place(tmp_path / "backup"))
    session, sealed = await session_with_password(desk)
    try:
        with pytest.raises(RefusalError) as caught:
            await initialize(KeeperDesk(vault), session, Birth(sealed, "ada", SUPERUSER))
    finally:
        await session.close()
    assert caught.value.reason is Reason.ALREADY_INITIALIZED
    assert await blob_of(store, KEYRING_ID) == winner.raw
    assert keyring.decode_untrusted(winner.raw).confirmed_by(winner.ring.root) is not None


# The password's way.


async def test_more_passwords_than_the_limit_are_not_begun_at_once() -> None:
    desk = PasswordDesk()
    asked = [desk.begin(f"{RESTORE}/{number}") for number in range(8)]
    begun = await asyncio.gather(*asked, return_exceptions=True)
    refused = [each for each in begun if isinstance(each, RefusalError)]
    await desk.close()
    assert len(refused) == 4
    assert {each.reason for each in refused} == {Reason.BUSY}


async def test_one_actor_has_two_sessions_however_often_it_asks_at_once() -> None:
    """Two, because a change of a slot takes an old password and a new one."""
    desk = PasswordDesk()
    begun = await asyncio.gather(*(desk.begin(RESTORE) for _ in range(5)))
    taken = 0
    for session in begun:
        try:
            await desk.take(session.id, RESTORE).close()
            taken += 1
        except RefusalError:
            pass
    await desk.close()
    assert taken == 2


def children() -> set[int]:
    """Return the processes this one has started and not yet seen end."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for each in tasks for pid in each.read_text().split()}


async def test_a_child_that_never_answers_does_not_hold_the_vault_for_ever() -> None:
    before = children()
    desk = PasswordDesk(life_s=1.0)
    session, sealed = await session_with_password(desk)
    (child,) = children() - before
    os.kill(child, signal.SIGSTOP)
    job = Derive(
        sealed_password=sealed,
        argon2=Argon2Setting().phc(),
        salt=bytes(16),
        store_id=bytes(16),
        slot_id=bytes(16),
        judge=None,
    )
    with pytest.raises(RefusalError) as caught:
        await asyncio.wait_for(session.derive(job), 30)
    assert caught.value.reason is Reason.EXPIRED
    await session.close()
    assert child not in children()
