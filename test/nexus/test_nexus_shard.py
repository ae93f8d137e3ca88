"""Recovery shards over real TLS sockets, with the real child: handed out, brought back, refused, never shown."""

from __future__ import annotations

import asyncio
import base64
import itertools
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lost_kit import PASSWORD, SECRETS, put
from nexus_kit import RECOVER, RESTORE, SUPERUSER, WORKLOAD, RunningNexus, running
from size import record, size
from spike.error import StoreUnavailableError
from spike.lifecycle import keyring, recovery_shard
from spike.lifecycle.keyring import Keyring, SlotKind
from spike.lifecycle.state import State
from spike.memory.key_memory import KeyMemory
from spike.nexus import shard_flow
from spike.nexus.keeper_setting import NO_KEEPERS
from spike.nexus.vault import KEYRING_ID
from spike.storage.memory import MemoryStore
from spike.storage.protocol import Change, Kind, Put, Revision

RECOVERY = "/v1/operator/recover"
RESTORATION = "/v1/operator/restore"
Shards = Mapping[int, list[int]]


class Kept:
    """A Nexus that has handed out shards and is gone: its files, and the shards in their holders' hands."""

    def __init__(self, directory: Path, shares: int = 3, threshold: int = 2) -> None:
        self.data = directory / "data"
        self.place = directory / "backup"
        self.setting = replace(NO_KEEPERS, shares=shares, threshold=threshold)
        self.shards: Shards = {}
        self.set_id = ""
        self.root = b""

    def running(self, *, born: bool = False) -> Any:
        password = PASSWORD if born else None
        return running(
            self.data, place=self.place, born=born, password=password, keepers=self.setting
        )


async def handed_out(nexus: RunningNexus, **more: object) -> dict[str, Any]:
    status, told = await nexus.call(RECOVER, RECOVERY, more)
    assert status == 200, told
    assert isinstance(told, dict)
    return told


async def kept(directory: Path, shares: int = 3, threshold: int = 2) -> Kept:
    made = Kept(directory, shares, threshold)
    async with made.running(born=True) as nexus:
        await put(nexus, "a", "1")
        told = await handed_out(nexus)
        await put(nexus, "b", "2")
        made.shards = {int(index): shard for index, shard in told["shards"].items()}
        made.set_id = told["setId"]
        assert told["threshold"] == threshold
        with nexus.vault.opened.ring.root.view() as view:
            made.root = bytes(view)
    return made


async def bring(nexus: RunningNexus, index: int, shard: list[int], **more: object) -> Any:
    return await nexus.call(RESTORE, RESTORATION, {"id": index, "shard": shard, **more})


async def refused(nexus: RunningNexus, name: str, index: int, shard: object, **more: object) -> str:
    status, told = await nexus.call(RESTORE, RESTORATION, {"id": index, "shard": shard, **more})
    assert (status, told["err"]) == (400, name), told
    return str(told.get("message", ""))


async def got(nexus: RunningNexus, path: str) -> object:
    return await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": path})


def flipped(shard: list[int]) -> list[int]:
    return [shard[0] ^ 1, *shard[1:]]


async def test_shards_bring_back_what_was_lost(tmp_path: Path) -> None:
    held = await kept(tmp_path)
    async with held.running() as nexus:
        assert await bring(nexus, 3, held.shards[3]) == (
            200,
            {"collected": 1, "remaining": 1, "restored": False},
        )
        assert await bring(nexus, 3, held.shards[3]) == (
            200,
            {"collected": 1, "remaining": 1, "restored": False},
        ), "the same shard again changes nothing"
        assert await got(nexus, "a") == (503, {"err": "state_not_ready"})
        status, told = await bring(nexus, 1, held.shards[1])
        assert (status, told["collected"], told["remaining"], told["restored"]) == (200, 2, 0, True)
        assert base64.b64decode(told["anchor"]) == nexus.vault.opened.anchor_raw()
        for path, value in (("a", "1"), ("b", "2")):
            assert await got(nexus, path) == (200, {"data": {"k": value}})
        with nexus.vault.opened.ring.root.view() as view:
            assert bytes(view) == held.root
        document = nexus.vault.opened.document
        assert document.epoch == 3, "init, recover and restore are an epoch each"
        await refused(nexus, "refused_already_open", 2, held.shards[2])


async def test_every_subset_of_enough_shards_brings_the_key_back(tmp_path: Path) -> None:
    shares, threshold = size(test=3, proof=5), size(test=2, proof=3)
    held = await kept(tmp_path, shares, threshold)
    subsets = list(itertools.combinations(held.shards, threshold))
    for number, subset in enumerate(subsets):
        copy = Kept(tmp_path / str(number))
        copy.setting = held.setting
        shutil.copytree(held.data, copy.data)
        async with copy.running() as nexus:
            for index in reversed(subset):
                status, told = await bring(nexus, index, held.shards[index])
                assert status == 200, told
            assert told["restored"] is True
            assert await got(nexus, "a") == (200, {"data": {"k": "1"}})
    name = f"restores from recovery shards, every {threshold} of {shares}"
    record(name, len(subsets), "each brought the root key back")


async def test_recovery_is_one_step_that_every_backup_place_has(tmp_path: Path) -> None:
    held = await kept(tmp_path)
    async with running(held.data, place=held.place, born=False) as nexus:
        path = held.place / f"spike-{(await keyring_of(nexus)).store_id}.key-backup"
        raw = path.read_bytes()
        assert (await bring(nexus, 1, held.shards[1], backup=base64.b64encode(raw).decode()))[
            0
        ] == 200
        status, told = await bring(nexus, 2, held.shards[2], backup=base64.b64encode(raw).decode())
        assert (status, told["restored"]) == (200, True)
        history = await nexus.store.scan(Kind("history"), "", None, 10)
        assert len(history.items) == 3
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert [(slot["name"], slot["kind"], slot["state"]) for slot in told["slots"]] == [
            ("admin", "password", "usable"),
            ("shards", "shards", "usable"),
        ]
    async with held.running() as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200, "the password still does, too"


async def keyring_of(nexus: RunningNexus) -> Keyring:
    stored = await nexus.store.get(KEYRING_ID)
    assert stored is not None
    return keyring.decode_untrusted(stored.blob).hint


async def test_only_the_recover_role_gets_shards_and_only_the_restore_role_brings_them(
    tmp_path: Path,
) -> None:
    denied = (401, {"err": "access_unauthorized"})
    shard = {"id": 1, "shard": [1] * 32}
    catch_all = {
        "name": "all",
        "spiffeidPattern": "^spiffe://.*$",
        "pathPattern": ".*",
        "permissions": ["super"],
    }
    async with running(tmp_path, born=True) as nexus:
        assert await nexus.call(SUPERUSER, "/v1/acl/policy", catch_all) == (200, {})
        for caller in (SUPERUSER, RESTORE, WORKLOAD):
            assert await nexus.call(caller, RECOVERY) == denied
        for caller in (SUPERUSER, RECOVER, WORKLOAD):
            assert await nexus.call(caller, RESTORATION, shard) == denied
    async with running(tmp_path, born=False) as nexus:
        assert await nexus.call(SUPERUSER, RECOVERY) == denied
        assert await nexus.call(RECOVER, RECOVERY) == (503, {"err": "state_not_ready"})


async def test_a_new_set_makes_the_shards_before_useless_and_says_so_first(tmp_path: Path) -> None:
    held = await kept(tmp_path)
    async with held.running() as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        before = nexus.vault.opened.document
        status, told = await nexus.call(RECOVER, RECOVERY, {"onlyFirst": True})
        assert (status, told["err"]) == (400, "refused_shards_exist")
        assert held.set_id in told["message"]
        assert nexus.vault.opened.document is before
        renewed = await handed_out(nexus)
        document = nexus.vault.opened.document
        assert document.epoch == before.epoch + 1
        assert [slot.kind for slot in document.slots] == [SlotKind.PASSWORD, SlotKind.SHARDS]
        ended = next(key for key in document.keys if key.slot == held.set_id)
        assert (ended.state, ended.wrapped) == (State.DESTROYED, b"")
        await put(nexus, "c", "3")
    async with held.running() as nexus:
        for more in ({}, {"setId": held.set_id}):
            message = await refused(nexus, "refused_wrong_shard", 1, held.shards[1], **more)
            assert "older set" in message
        for index in ("2", "3"):
            status, told = await bring(
                nexus, int(index), renewed["shards"][index], setId=renewed["setId"]
            )
        assert told["restored"] is True
        assert await got(nexus, "c") == (200, {"data": {"k": "3"}})


async def test_a_bad_shard_is_named_at_once_and_keeps_no_right_one_out(tmp_path: Path) -> None:
    held = await kept(tmp_path, shares=3, threshold=2)
    async with held.running() as nexus:
        await refused(nexus, "refused_wrong_shard", 1, flipped(held.shards[1]))
        await refused(nexus, "refused_wrong_shard", 1, held.shards[2])
        await refused(nexus, "refused_wrong_shard", 4, held.shards[1])
        assert (await bring(nexus, 1, held.shards[1]))[1]["collected"] == 1
        await refused(nexus, "refused_wrong_shard", 2, flipped(held.shards[2]))
        await refused(nexus, "refused_wrong_shard", 1, flipped(held.shards[1]))
        assert (await bring(nexus, 2, held.shards[2]))[1]["restored"] is True


@pytest.mark.parametrize(
    ("index", "shard"),
    [
        (0, [1] * 32),
        (-1, [1] * 32),
        (256, [1] * 32),
        (1, [0] * 32),
        (1, [1] * 31),
        (1, [1] * 33),
        (1, None),
        (1, [256] * 32),
        (1, [-1] * 32),
        (1, "AQ=="),
    ],
)
async def test_what_cannot_be_a_shard_is_a_bad_request(
    tmp_path: Path, index: int, shard: object
) -> None:
    async with running(tmp_path, born=True):
        pass
    async with running(tmp_path, born=False) as nexus:
        await refused(nexus, "api_bad_request", index, shard)


async def test_without_shards_the_password_is_named(tmp_path: Path) -> None:
    async with running(tmp_path, born=True):
        pass
    async with running(tmp_path, born=False) as nexus:
        await refused(nexus, "refused_unknown_slot", 1, [1] * 32)
    async with running(tmp_path / "empty", born=False) as nexus:
        await refused(nexus, "refused_not_initialized", 1, [1] * 32)


async def test_shards_of_another_store_are_refused(tmp_path: Path) -> None:
    held, other = await kept(tmp_path / "one"), await kept(tmp_path / "two")
    async with held.running() as nexus:
        for index in other.shards:
            await refused(nexus, "refused_wrong_shard", index, other.shards[index])
            await refused(
                nexus, "refused_wrong_shard", index, held.shards[index], setId=other.set_id
            )


async def test_a_restart_in_the_middle_begins_again(tmp_path: Path) -> None:
    held = await kept(tmp_path, shares=4, threshold=3)
    async with held.running() as nexus:
        for index in (1, 2):
            assert (await bring(nexus, index, held.shards[index]))[0] == 200
    async with held.running() as nexus:
        assert (await bring(nexus, 3, held.shards[3]))[1]["collected"] == 1
        assert (await bring(nexus, 4, held.shards[4]))[1]["collected"] == 2
        assert (await bring(nexus, 2, held.shards[2]))[1]["restored"] is True


async def test_collected_shards_expire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = await kept(tmp_path)
    monkeypatch.setattr(shard_flow, "COLLECTION_LIFE_S", 0)
    async with held.running() as nexus:
        assert (await bring(nexus, 1, held.shards[1]))[1]["collected"] == 1
        assert (await bring(nexus, 2, held.shards[2]))[1]["collected"] == 1
        assert not nexus.vault.is_open


def backup_of(held: Kept) -> str:
    (path,) = held.place.glob("*.key-backup")
    return base64.b64encode(path.read_bytes()).decode()


async def test_a_backup_of_another_store_does_not_drop_what_others_have_brought(
    tmp_path: Path,
) -> None:
    held, other = await kept(tmp_path / "one"), await kept(tmp_path / "two")
    made_up = backup_of(other)
    async with held.running() as nexus:
        assert (await bring(nexus, 1, held.shards[1]))[1]["collected"] == 1
        await refused(nexus, "refused_wrong_shard", 1, [7] * 32, backup=made_up)
        # Whoever makes a backup up makes shards that fit it, too.
        assert (await bring(nexus, 1, other.shards[1], backup=made_up))[1]["collected"] == 1
        assert (await bring(nexus, 2, held.shards[2]))[1]["restored"] is True


async def test_a_shard_that_does_not_fit_drops_none_of_another_backup(tmp_path: Path) -> None:
    held, other = await kept(tmp_path / "one"), await kept(tmp_path / "two")
    held_backup, made_up = backup_of(held), backup_of(other)
    async with held.running() as nexus:
        assert (await bring(nexus, 1, held.shards[1], backup=held_backup))[1]["collected"] == 1
        await refused(nexus, "refused_wrong_shard", 1, [7] * 32, backup=made_up)
        assert (await bring(nexus, 2, held.shards[2], backup=held_backup))[1]["restored"] is True


async def test_shards_for_one_slot_count_together_with_and_without_its_backup(
    tmp_path: Path,
) -> None:
    held = await kept(tmp_path)
    async with held.running() as nexus:
        assert (await bring(nexus, 1, held.shards[1], backup=backup_of(held)))[0] == 200
        assert (await bring(nexus, 3, held.shards[3]))[1]["restored"] is True


async def test_a_preview_restores_nothing_until_it_is_confirmed(tmp_path: Path) -> None:
    held = await kept(tmp_path)
    async with held.running() as nexus:
        assert (await bring(nexus, 1, held.shards[1], preview=True))[0] == 200
        status, told = await bring(nexus, 3, held.shards[3], preview=True)
        assert (status, told["restored"], told["remaining"]) == (200, False, 0)
        assert told["preview"]["slot"] == "shards"
        assert not nexus.vault.is_open
        target = f"{RESTORATION}?action=password"
        status, done = await nexus.call(RESTORE, target, {"confirm": told["confirm"]})
        assert (status, done["restored"]) == (200, True)


def damaged(raw: bytes, change: Any) -> bytes:
    head, _, tail = raw.split(b"\n", 2)
    held = keyring.decode_untrusted(raw).hint
    slots = tuple(change(slot) if slot.kind is SlotKind.SHARDS else slot for slot in held.slots)
    body = msgspec.json.encode(msgspec.structs.replace(held, slots=slots))
    return b"\n".join([head, body, tail])


def other_digests(slot: keyring.Slot) -> keyring.Slot:
    assert slot.shards is not None
    shards = msgspec.structs.replace(slot.shards, digests=("0" * 64,) * 3)
    return msgspec.structs.replace(slot, shards=shards)


def lower_threshold(slot: keyring.Slot) -> keyring.Slot:
    assert slot.shards is not None
    return msgspec.structs.replace(slot, shards=msgspec.structs.replace(slot.shards, threshold=1))


def other_key(slot: keyring.Slot) -> keyring.Slot:
    return msgspec.structs.replace(slot, public=slot.public[::-1])


@pytest.mark.parametrize("change", [other_digests, lower_threshold, other_key])
@pytest.mark.parametrize("with_place", [True, False])
async def test_a_storage_writer_who_changes_the_slot_gains_a_refusal_and_no_more(
    tmp_path: Path, change: Any, with_place: bool
) -> None:
    held = await kept(tmp_path)
    async with held.running() as nexus:
        stored = await nexus.store.get(KEYRING_ID)
        assert stored is not None
        backup_path = held.place / f"spike-{(await keyring_of(nexus)).store_id}.key-backup"
        backup = base64.b64encode(backup_path.read_bytes()).decode()
        if not with_place:
            backup_path.unlink()
        forged = damaged(stored.blob, change)
        await nexus.store.apply(
            [Put(stored.id, forged, stored.generation, stored.revision)], fence=None
        )
        answers = [await bring(nexus, index, held.shards[index]) for index in (1, 2)]
        names = {told.get("err", "") for _, told in answers}
        assert not nexus.vault.is_open
        expected = {"refused_wrong_shard"} if change is other_digests else {"refused_planted"}
        assert names - {"", "refused_too_soon"} == ({"refused_planted"} if with_place else expected)
        for index in itertools.cycle((1, 2)):
            _, told = await bring(nexus, index, held.shards[index], backup=backup)
            # After a whole set that did not open the slot the next one has to wait a second.
            assert told.get("err") in (None, "refused_too_soon"), told
            if told.get("restored"):
                break


async def test_a_set_that_fits_each_digest_and_not_the_slot_is_dropped_whole_and_delayed(
    tmp_path: Path,
) -> None:
    held = await kept(tmp_path)
    async with held.running() as nexus:
        stored = await nexus.store.get(KEYRING_ID)
        assert stored is not None
        forged = damaged(stored.blob, other_key)
        for place in held.place.iterdir():
            place.unlink()
        await nexus.store.apply(
            [Put(stored.id, forged, stored.generation, stored.revision)], fence=None
        )
        assert (await bring(nexus, 1, held.shards[1]))[1]["collected"] == 1
        await refused(nexus, "refused_planted", 2, held.shards[2])
        assert (await bring(nexus, 2, held.shards[2]))[1]["collected"] == 1, "dropped whole"
        await refused(nexus, "refused_too_soon", 1, held.shards[1])


async def test_what_was_collected_and_what_it_gave_is_wiped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = await kept(tmp_path)
    collections: list[recovery_shard.Collection] = []
    secrets: list[KeyMemory] = []
    give = recovery_shard.Collection.secret

    def watched(collection: recovery_shard.Collection) -> KeyMemory:
        collections.append(collection)
        secrets.append(give(collection))
        return secrets[-1]

    monkeypatch.setattr(recovery_shard.Collection, "secret", watched)
    async with held.running() as nexus:
        for index in (1, 2):
            await bring(nexus, index, held.shards[index])
        assert nexus.vault.is_open
        assert [secret.wiped for secret in secrets] == [True]
        assert [collection.collected for collection in collections] == [0]


async def test_no_shard_is_in_a_log_line_or_an_answer_that_refuses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    held = await kept(tmp_path)
    told = []
    async with held.running() as nexus:
        for index, shard in held.shards.items():
            told.append(str(await bring(nexus, index, flipped(shard))))
            told.append(str(await bring(nexus, index, shard[:-1])))
            told.append(str(await bring(nexus, index, shard, setId="x")))
        told += [str(await bring(nexus, index, held.shards[index])) for index in (1, 2)]
    everything = "\n".join((*told, caplog.text))
    for shard in held.shards.values():
        value = bytes(shard)
        for form in (value.hex(), base64.b64encode(value).decode(), str(shard)[1:-1], repr(value)):
            assert form not in everything


async def test_shards_stay_good_when_a_place_cannot_be_written_and_status_says_so(
    tmp_path: Path,
) -> None:
    held = Kept(tmp_path)
    async with held.running(born=True) as nexus:
        shutil.rmtree(held.place)
        held.place.write_bytes(b"")
        shards = (await handed_out(nexus))["shards"]
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert [place["state"] for place in told["places"]] == ["failed"]
        assert told["stops"]
        assert (await nexus.call(RECOVER, RECOVERY))[0] == 503, "no further set while writes stop"
    held.place.unlink()
    async with held.running() as nexus:
        for index in ("1", "3"):
            _, told = await bring(nexus, int(index), shards[index])
        assert told["restored"] is True


async def test_requests_are_served_while_shards_are_handed_out(tmp_path: Path) -> None:
    """A write that was overtaken by the new epoch is done again inside Nexus."""
    held = Kept(tmp_path)
    async with held.running(born=True) as nexus:
        recovery = asyncio.create_task(nexus.call(RECOVER, RECOVERY))
        number = 0
        while not recovery.done():
            number += 1
            await put(nexus, f"n/{number}", "v")
        assert (await recovery)[0] == 200
        assert nexus.vault.opened.document.epoch == 2
        await put(nexus, "last", "v")


class FailingStore(MemoryStore):
    """A real store of which the next write fails, or whose answer to it is lost."""

    fails = False
    acted = False

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        failing, self.fails = self.fails, False
        if failing and not self.acted:
            raise StoreUnavailableError("the disk is full")
        revisions = await super().apply(changes, fence=fence)
        if failing:
            raise StoreUnavailableError("the answer was lost")
        return revisions


@pytest.mark.parametrize("acted", [False, True])
async def test_a_store_that_fails_leaves_the_old_set_or_the_new_one_and_never_none(
    tmp_path: Path, acted: bool
) -> None:
    store = FailingStore()
    async with running(store=store, place=tmp_path, password=PASSWORD) as nexus:
        older = await handed_out(nexus)
        store.fails, store.acted = True, acted
        status, newer = await nexus.call(RECOVER, RECOVERY)
        in_force = nexus.vault.opened.document.shard_slot
        assert in_force is not None
        if acted:
            assert (status, newer["setId"]) == (200, in_force.id)
        else:
            assert (status, newer) == (503, {"err": "state_not_ready"})
            assert in_force.id == older["setId"]
        assert nexus.vault.opened.ring.mismatches() == ()
        await put(nexus, "a", "1")
    shards = (newer if acted else older)["shards"]
    async with running(store=store, place=tmp_path, born=False) as nexus:
        for index in ("1", "2"):
            _, told = await bring(nexus, int(index), shards[index])
        assert told["restored"] is True
        assert await got(nexus, "a") == (200, {"data": {"k": "1"}})
