"""A store that had been further: who says so stops a restore, and a person can go on in spite of it."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import lifecycle_kit
from keeper_kit import running_keeper
from lost_kit import PASSWORD, POLICIES, SECRETS, WEB, Lost, anchor_now, lose, put
from nexus_kit import RECOVER, RESTORE, SUPERUSER, WORKLOAD, RunningNexus, running
from spiffe_kit import Ca
from spike.lifecycle import anchor, keyring, staleness
from spike.lifecycle.anchor import Anchor
from spike.lifecycle.witness import Claim, Witness
from spike.nexus.examination import Witnesses
from spike.nexus.keeper_setting import KeeperSetting, parse_peers
from spike.nexus.vault import KEYRING_ID
from spike.storage.protocol import Kind, Put, RecordId, SetFence

OTHER = "f" * 32
TARGET = "/v1/operator/restore?action=password"


class Stale(Lost):
    """A store of yesterday, and what was seen of it since: epoch 2, with a right revoked and another given."""

    newest: Anchor

    @classmethod
    def of(cls, directory: Path) -> Stale:
        lost = lose(directory)
        made = cls(directory)
        made.store_id = lost.store_id
        return made

    def claim(self, **changed: Any) -> Claim:
        seen = self.newest
        return Claim(seen.store_id, seen.lineage, 1, 1, "a" * 32)._replace(**changed)


@pytest.fixture
async def stale(tmp_path: Path) -> Stale:
    """Yesterday's copy of the store stands where the store was; the newest anchor is Pilot's alone."""
    made = await asyncio.to_thread(Stale.of, tmp_path)
    yesterday = tmp_path / "yesterday"
    shutil.copytree(made.data, yesterday)
    async with running(made.data, place=made.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        assert await nexus.call(SUPERUSER, f"{POLICIES}?action=delete", {"id": "web"}) == (200, {})
        await put(nexus, "since", "x")
        made.anchor = await anchor_now(nexus)
        made.newest = anchor.decode_untrusted(made.anchor)
    shutil.rmtree(made.data)
    shutil.move(yesterday, made.data)
    made.empty_places()
    return made


async def previewed(nexus: RunningNexus, **more: object) -> tuple[int, dict[str, Any]]:
    asked = await nexus.seal(RESTORE, PASSWORD)
    status, told = await nexus.call(RESTORE, TARGET, {**asked, **more})
    assert isinstance(told, dict)
    return status, told


async def bring_back(nexus: RunningNexus, **more: object) -> tuple[int, dict[str, Any]]:
    status, told = await previewed(nexus, **more)
    if status != 200:
        return status, told
    status, told = await nexus.call(RESTORE, TARGET, {"confirm": told["confirm"]})
    return status, told


def stands(*witnesses: Witness) -> Witnesses:
    async def ask() -> Sequence[Witness]:
        return witnesses

    return ask


CLAIMS: dict[str, tuple[str, dict[str, Any]]] = {
    "a later epoch": ("stale_store", {"epoch": 7}),
    "a newer root key": ("stale_store", {"generation": 2}),
    "another lineage": ("foreign", {"lineage": OTHER, "epoch": 9}),
    "another store": ("foreign", {"store_id": OTHER, "epoch": 9}),
}


@pytest.mark.parametrize("kind", CLAIMS)
async def test_one_keepers_word_stops_a_restore_until_the_person_goes_on(
    stale: Stale, kind: str
) -> None:
    name, changed = CLAIMS[kind]
    lying = Witness("keeper 3", None, stale.claim(**changed))
    honest = Witness("keeper 1", None, stale.claim())
    empty = Witness("keeper 2", None, None)
    told_by = stands(honest, empty, lying)
    async with running(stale.data, place=stale.place, born=False, witnesses=told_by) as nexus:
        status, told = await bring_back(nexus)
        assert (status, told["err"]) == (400, f"refused_{name}")
        assert "keeper 3" in str(told["message"])
        assert "--accept-older-store" in str(told["nextStep"])
        status, told = await previewed(nexus, acceptOlderStore=True)
        preview = told["preview"]
        assert isinstance(preview, dict)
        assert [("keeper 3" in each) for each in preview["objections"]] == [True]
        assert not nexus.vault.is_open
        assert (await bring_back(nexus, acceptOlderStore=True))[0] == 200
        followed = changed.get("epoch", 1) if name == "stale_store" else 1
        assert nexus.vault.opened.document.epoch == int(followed) + 1


async def test_a_message_says_which_of_two_lineages_is_the_older_one(stale: Stale) -> None:
    for epoch, word in ((1, "cannot be told"), (2, "this copy is the older"), (0, "the newer")):
        claim = stale.claim(lineage=OTHER, epoch=epoch)
        told_by = stands(Witness("keeper 1", None, claim))
        async with running(stale.data, place=stale.place, born=False, witnesses=told_by) as nexus:
            _, told = await bring_back(nexus)
            assert word in str(told["message"])


async def test_a_keepers_anchor_counts_like_every_other(stale: Stale) -> None:
    kept = Witness("keeper 1", stale.anchor, None)
    async with running(stale.data, born=False, witnesses=stands(kept)) as nexus:
        status, told = await bring_back(nexus)
        assert (status, told["err"]) == (400, "refused_stale_store")
        assert "keeper 1's anchor" in str(told["message"])
    forged = stale.anchor.replace(b'"epoch":2', b'"epoch":9')
    assert forged != stale.anchor
    told_by = stands(Witness("keeper 1", forged, None))
    async with running(stale.data, born=False, witnesses=told_by) as nexus:
        status, told = await previewed(nexus)
        assert status == 200, "an anchor that is not authentic is named and counts for nothing"
        assert any("keeper 1" in remark for remark in told["remarks"])


async def test_an_accepted_older_store_serves_and_every_old_anchor_holds_against_it(
    stale: Stale,
) -> None:
    pilots = base64.b64encode(stale.anchor).decode()
    told_by = stands(Witness("keeper 2", stale.anchor, stale.claim(epoch=40)))
    async with running(stale.data, place=stale.place, born=False, witnesses=told_by) as nexus:
        status, told = await bring_back(nexus, anchor=pilots)
        assert (status, told["err"]) == (400, "refused_stale_store")
        status, told = await bring_back(nexus, anchor=pilots, acceptOlderStore=True)
        assert (status, told["restored"]) == (200, True), told
        for path in ("a", "b"):
            asked = {"path": path}
            assert (await nexus.call(SUPERUSER, f"{SECRETS}?action=get", asked))[0] == 200
        assert (await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "since"}))[0] == 404
        assert (await nexus.call(WORKLOAD, f"{SECRETS}?action=get", {"path": "a"}))[0] == 200
        opened = nexus.vault.opened
        assert opened.document.epoch == 41
        assert opened.document.revision > stale.newest.revision
        assert opened.policies.access_generation == stale.newest.access_generation + 1
        assert (await nexus.store.health()).fence == 41
        await put(nexus, "a", "2")
        assert await nexus.call(SUPERUSER, POLICIES, {**WEB, "name": "again"}) == (200, {})
        entries = [plain async for _, plain in opened.sealed.scan(Kind("history"))]
        detail = json.loads(entries[-1])["event"]["detail"]
        assert "epoch 40" in detail["accepted_older_store"]
        assert "handed in" in detail["accepted_older_store"]
    async with running(stale.data, place=stale.place, born=False, witnesses=told_by) as nexus:
        assert (await bring_back(nexus, anchor=pilots))[0] == 200, "no objection is left"


async def test_an_accepted_older_store_is_refused_in_its_turn_when_it_is_put_back(
    stale: Stale, tmp_path: Path
) -> None:
    old = tmp_path / "older"
    shutil.copytree(stale.data, old)
    pilots = base64.b64encode(stale.anchor).decode()
    async with running(stale.data, place=stale.place, born=False) as nexus:
        assert (await bring_back(nexus, anchor=pilots, acceptOlderStore=True))[0] == 200
    async with running(old, place=stale.place, born=False) as nexus:
        status, told = await bring_back(nexus)
        assert (status, told["err"]) == (400, "refused_stale_store")


async def test_going_on_needs_no_objection(stale: Stale) -> None:
    async with running(stale.data, place=stale.place, born=False) as nexus:
        status, told = await previewed(nexus, acceptOlderStore=True)
        assert status == 200
        assert told["preview"]["objections"] == []


async def test_nothing_that_is_not_ours_is_accepted(stale: Stale) -> None:
    async with running(stale.data, place=stale.place, born=False) as nexus:
        status, told = await nexus.restore(PASSWORD + b"!", accept_older=True)
        assert (status, told["err"]) == (400, "refused_wrong_password")
    async with running(stale.data, place=stale.place, born=False) as nexus:
        stored = await nexus.store.get(KEYRING_ID)
        assert stored is not None
        head, _, tail = stored.blob.split(b"\n", 2)
        held = keyring.decode_untrusted(stored.blob).hint
        body = msgspec.json.encode(msgspec.structs.replace(held, revision=held.revision + 1))
        forged = b"\n".join([head, body, tail])
        put_ = Put(stored.id, forged, stored.generation, stored.revision)
        (revision,) = await nexus.store.apply([put_], fence=None)
        status, told = await nexus.restore(PASSWORD, accept_older=True)
        assert (status, told["err"]) == (400, "refused_planted")
        await nexus.store.apply(
            [Put(stored.id, stored.blob, stored.generation, revision)], fence=None
        )
        row = await nexus.store.get(RecordId(Kind("policy"), "web"))
        assert row is not None
        moved = Put(row.id, row.blob[:-1] + b"\0", row.generation, row.revision)
        await nexus.store.apply([moved], fence=None)
        status, told = await nexus.restore(PASSWORD, accept_older=True)
        assert (status, told["err"]) == (400, "refused_foreign")
        assert not nexus.vault.is_open


async def test_yesterdays_keyring_under_todays_records_can_be_accepted(tmp_path: Path) -> None:
    """The store's own fence is beyond the keyring, so the next epoch has to be beyond the fence."""
    lost = await asyncio.to_thread(lose, tmp_path)
    async with running(lost.data, place=lost.place, born=False) as nexus:
        yesterday = await nexus.store.get(KEYRING_ID)
        assert yesterday is not None
        for _ in range(2):
            assert (await nexus.restore(PASSWORD))[0] == 200
            await nexus.vault.close()
        stored = await nexus.store.get(KEYRING_ID)
        assert stored is not None
        back = Put(stored.id, yesterday.blob, stored.generation, stored.revision)
        await nexus.store.apply([back], fence=None)
    lost.empty_places()
    async with running(lost.data, place=lost.place, born=False) as nexus:
        status, told = await nexus.restore(PASSWORD)
        assert (status, told["err"]) == (400, "refused_stale_store")
        assert (await nexus.restore(PASSWORD, accept_older=True))[0] == 200
        assert nexus.vault.opened.document.epoch == 4
        await put(nexus, "a", "2")


async def test_a_newer_backup_on_an_older_store_can_be_accepted(
    stale: Stale, tmp_path: Path
) -> None:
    newer = tmp_path / "newer.key-backup"
    async with running(stale.data, place=stale.place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        stored = await nexus.store.get(KEYRING_ID)
        assert stored is not None
        old = stored.blob
        await nexus.vault.close()
        assert (await nexus.restore(PASSWORD))[0] == 200
        shutil.copy(stale.backup_path, newer)
        stored = await nexus.store.get(KEYRING_ID)
        assert stored is not None
        back = Put(stored.id, old, stored.generation, stored.revision)
        await nexus.store.apply([back], fence=None)
    stale.empty_places()
    async with running(stale.data, place=stale.place, born=False) as nexus:
        status, told = await nexus.restore(PASSWORD, backup=newer.read_bytes())
        assert (status, told["err"]) == (400, "refused_stale_store")
        status, _ = await nexus.restore(PASSWORD, backup=newer.read_bytes(), accept_older=True)
        assert status == 200
        assert nexus.vault.opened.document.epoch == 4


@pytest.mark.parametrize("epoch", [(1 << 32) + 2, 1 << 62, (1 << 63) - 1])
@pytest.mark.parametrize("store_id", [None, OTHER])
async def test_a_keeper_cannot_use_the_epochs_up(
    stale: Stale, epoch: int, store_id: str | None
) -> None:
    """The copy could never be brought back again, not even from its key backup."""
    liar = Witness("keeper 1", None, stale.claim(epoch=epoch))
    if store_id is not None:
        liar = Witness("keeper 1", None, stale.claim(epoch=epoch, store_id=store_id))
    async with running(stale.data, place=stale.place, born=False, witnesses=stands(liar)) as nexus:
        assert (await bring_back(nexus, acceptOlderStore=True))[0] == 200
        assert nexus.vault.opened.document.epoch == 2


async def test_a_lie_that_was_accepted_leaves_a_store_that_can_be_brought_back(
    stale: Stale,
) -> None:
    epoch = (1 << 32) + 1
    liar = Witness("keeper 1", None, stale.claim(epoch=epoch))
    async with running(stale.data, place=stale.place, born=False, witnesses=stands(liar)) as nexus:
        _, told = await bring_back(nexus)
        assert f"epoch {epoch}" in str(told["message"])
        assert (await bring_back(nexus, acceptOlderStore=True))[0] == 200
        assert nexus.vault.opened.document.epoch == epoch + 1
    for _ in range(2):
        async with running(stale.data, place=stale.place, born=False) as nexus:
            assert (await bring_back(nexus))[0] == 200
    async with running(stale.data, place=stale.place, born=False) as nexus:
        backup = base64.b64encode(stale.backup_path.read_bytes()).decode()
        assert (await bring_back(nexus, backup=backup))[0] == 200


async def test_a_fence_that_nothing_explains_is_refused_before_a_phrase_is_typed(
    stale: Stale,
) -> None:
    async with running(stale.data, place=stale.place, born=False) as nexus:
        await nexus.store.apply([SetFence(1 << 40)], fence=None)
        for accept in (False, True):
            status, told = await previewed(nexus, acceptOlderStore=accept)
            assert (status, told["err"]) == (400, "refused_damaged")
            assert f"epoch {1 << 40}" in str(told["message"])
            assert "another copy of the store" in str(told["nextStep"])


async def test_shards_stop_at_a_stale_store_keep_what_was_collected_and_go_on(
    tmp_path: Path,
) -> None:
    data, place, old = tmp_path / "data", tmp_path / "backup", tmp_path / "old"
    async with running(data, place=place, password=PASSWORD) as nexus:
        _, told = await nexus.call(RECOVER, "/v1/operator/recover")
        await put(nexus, "a", "1")
    shutil.copytree(data, old)
    async with running(data, place=place, born=False) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
    target = "/v1/operator/restore"
    first, second = ({"id": index, "shard": told["shards"][str(index)]} for index in (1, 2))
    async with running(old, place=place, born=False) as nexus:
        assert (await nexus.call(RESTORE, target, first))[0] == 200
        status, answer = await nexus.call(RESTORE, target, second)
        assert (status, answer["err"]) == (400, "refused_stale_store")
        status, answer = await nexus.call(RESTORE, target, {**second, "acceptOlderStore": True})
        assert (status, answer["restored"]) == (200, True), answer
        assert nexus.vault.opened.document.epoch == 4


async def test_a_store_beside_the_keepers_of_another_one_is_refused(tmp_path: Path) -> None:
    """Real Keepers: they hold shares of the store they were born with."""
    ca = Ca("spike.ist")
    async with running_keeper(ca) as one, running_keeper(ca, one.spiffe_id[:-3] + "two") as two:
        peers = ",".join(f"{each.url}#{each.spiffe_id}" for each in (one, two))
        setting = KeeperSetting(parse_peers(peers), 2, 2, 0.05)
        async with running(
            tmp_path / "one", place=tmp_path / "p1", ca=ca, password=PASSWORD, keepers=setting
        ) as nexus:
            living = nexus.vault.opened.document.store_id
        async with running(tmp_path / "two", place=tmp_path / "p2", ca=ca, password=PASSWORD):
            pass
        async with running(
            tmp_path / "two", place=tmp_path / "p2", ca=ca, born=False, keepers=setting
        ) as nexus:
            status, told = await nexus.restore(PASSWORD)
            assert (status, told["err"]) == (400, "refused_foreign")
            assert living in told["message"]
            assert (await nexus.restore(PASSWORD, accept_older=True))[0] == 200
        async with running(
            tmp_path / "one", place=tmp_path / "p1", ca=ca, born=False, keepers=setting
        ) as nexus:
            assert (await nexus.restore(PASSWORD))[0] == 200, "the living store is not objected to"


def test_what_was_seen_is_gone_beyond_in_each_number_alone() -> None:
    born = lifecycle_kit.born()
    held = msgspec.structs.replace(born.ring.document, epoch=5, revision=9)
    seen = anchor.anchor_of(held, 3)
    objections = [
        staleness.by_anchor(held, 1, seen, "x"),
        staleness.by_claim(held, "k", Claim(held.store_id, held.lineage, 8, 1, "")),
        staleness.by_fence(held, 6),
    ]
    assert staleness.above(held, [each for each in objections if each]) == (8, 9, 3)
    assert staleness.above(held, []) == (5, 9, 0)
