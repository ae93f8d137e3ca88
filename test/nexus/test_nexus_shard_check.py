"""Recovery shards checked in by their digest: what is right is noted, what is not is named, nothing is revealed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

import lifecycle_kit
from nexus_kit import RECOVER, RESTORE, SUPERUSER, RunningNexus, running
from spike.error import FormatError
from spike.lifecycle import keyring
from spike.lifecycle.recovery_shard import digest_of
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_setting import NO_KEEPERS

CHECK = "/v1/operator/shard?action=check"
SETTING = replace(NO_KEEPERS, shares=3, threshold=2)


def digest(store_id: str, set_id: str, index: int, octets: list[int]) -> str:
    with KeyMemory.allocate(32) as value:
        with value.view() as view:
            view[:] = bytes(octets)
        return digest_of(store_id, set_id, index, value)


async def handed_out(nexus: RunningNexus) -> dict[str, Any]:
    status, told = await nexus.call(RECOVER, "/v1/operator/recover", {})
    assert status == 200, told
    return dict(told)


async def check(nexus: RunningNexus, **asked: object) -> tuple[int, Any]:
    return await nexus.call(SUPERUSER, CHECK, asked)


async def roster(nexus: RunningNexus) -> dict[str, Any]:
    _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
    return dict(told["shards"])


async def test_a_right_shard_is_noted_with_its_date(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place", keepers=SETTING) as nexus:
        told = await handed_out(nexus)
        set_id = told["setId"]
        assert [each.get("checkedAt") for each in (await roster(nexus))["shards"]] == [None] * 3
        status, of = await check(nexus, id=2, setId=set_id)
        assert (status, of["checked"], of["setId"], of["threshold"]) == (200, False, set_id, 2)
        seen = digest(of["storeId"], set_id, 2, told["shards"]["2"])
        status, done = await check(nexus, id=2, setId=set_id, digest=seen)
        assert (status, done["checked"], done["shares"]) == (200, True, 3)
        held = await roster(nexus)
        assert (held["setId"], held["threshold"]) == (set_id, 2)
        assert [bool(each.get("checkedAt")) for each in held["shards"]] == [False, True, False]
        _, history = await nexus.call(SUPERUSER, "/v1/key?action=history", {})
        event = history["events"][-1]
        assert (event["kind"], event["detail"]) == ("shard-checked", {"set": set_id, "index": "2"})
        # Without a set in its text, as the three-part form of Go: the one in force is meant.
        assert (await check(nexus, id=2, digest=seen))[0] == 200
    async with running(
        tmp_path / "data", place=tmp_path / "place", born=False, keepers=SETTING
    ) as nexus:
        for index in ("1", "2"):
            shard = {"id": int(index), "shard": told["shards"][index]}
            status, back = await nexus.call(RESTORE, "/v1/operator/restore", shard)
            assert status == 200, back
        assert back["restored"] is True


async def test_what_is_not_right_is_named_and_not_noted(tmp_path: Path) -> None:
    async with running(tmp_path / "data", place=tmp_path / "place", keepers=SETTING) as nexus:
        status, told = await check(nexus, id=1)
        assert (status, told["err"]) == (400, "refused_unknown_slot")
        old = await handed_out(nexus)
        new = await handed_out(nexus)
        before = nexus.vault.opened.document
        store_id = before.store_id
        good = digest(store_id, new["setId"], 1, new["shards"]["1"])
        cases = [
            ({"id": 1, "setId": old["setId"]}, "an older set of this store"),
            ({"id": 1, "setId": "0" * 32}, "another store"),
            ({"id": 2, "setId": new["setId"], "digest": good}, "this is not shard 2"),
            ({"id": 4, "setId": new["setId"], "digest": good}, "this is not shard 4"),
            ({"id": 0, "digest": good}, "this is not shard 0"),
            (
                {"id": 1, "digest": digest(store_id, old["setId"], 1, old["shards"]["1"])},
                "an older set or another store",
            ),
        ]
        for asked, said in cases:
            status, told = await check(nexus, **asked)
            assert (status, told["err"]) == (400, "refused_wrong_shard"), asked
            assert said in told["message"]
        assert (await check(nexus, id=1, digest="xyz"))[0] == 400
        assert nexus.vault.opened.document == before
        assert (await nexus.call(RESTORE, CHECK, {"id": 1}))[0] == 401


def test_a_roster_that_is_not_its_slots_is_damage() -> None:
    born = lifecycle_kit.born()
    document = born.ring.document
    shards = keyring.RecoveryShards(threshold=1, digests=("0" * 64,), checked=("", ""))
    slot = msgspec.structs.replace(
        document.slots[0], kind=keyring.SlotKind.SHARDS, shards=shards, argon2="", salt=b""
    )
    with pytest.raises(FormatError, match="roster"):
        keyring.encode(msgspec.structs.replace(document, slots=(slot,)), born.ring.root)
