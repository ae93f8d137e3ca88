"""A factory reset: by one phrase for one reset, all of it or nothing, and no other store's share is touched."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from around_kit import states, surroundings
from killer_kit import NEXUS, Dead, MortalStore, Victim
from nexus_kit import RESTORE, SUPERUSER, RunningNexus, running
from size import record
from spike.lifecycle.refusal import RefusalError
from spike.lifecycle.supply import KeeperState
from spike.nexus import factory_reset
from spike.nexus.factory_reset import ResetDesk
from spike.nexus.opened import Phase
from spike.storage.memory import MemoryStore

TARGET = "/v1/operator/factory-reset"
SECRET = "/v1/store/secrets"


async def asked(nexus: RunningNexus, **more: str) -> dict[str, Any]:
    status, answer = await nexus.call(SUPERUSER, TARGET, more)
    assert status == 200, answer
    return dict(answer)


async def put(nexus: RunningNexus) -> None:
    message = {"path": "a", "values": {"k": "v"}}
    assert (await nexus.call(SUPERUSER, SECRET, message))[0] == 200


async def test_the_store_is_empty_and_a_new_one_can_be_made(tmp_path: Path) -> None:
    place = tmp_path / "place"
    async with running(tmp_path / "data", place=place) as nexus:
        await put(nexus)
        store_id = nexus.vault.opened.document.store_id
        told = await asked(nexus)
        assert (told["done"], told["storeId"], told["records"]["secret"]) == (False, store_id, 1)
        done = await asked(nexus, phrase=told["phrase"])
        assert (done["done"], done["state"]) == (True, "uninitialized")
        assert await nexus.store.census() == {}
        assert (await nexus.call(SUPERUSER, SECRET + "?action=get", {"path": "a"}))[0] == 503
        note = json.loads((place / f"spike-{store_id}.factory-reset").read_bytes())
        assert (note["store_id"], note["actor"]) == (store_id, SUPERUSER)
        assert note["ended_at"]
        # What brings it back is not taken away.
        assert (place / f"spike-{store_id}.key-backup").is_file()
        sealed = await nexus.seal(SUPERUSER, b"zebra lamp orbit cactus 71 violin")
        status, born = await nexus.call(
            SUPERUSER, "/v1/operator/init", {**sealed, "slotName": "admin"}
        )
        assert status == 200, born
        assert born["storeId"] != store_id
        await put(nexus)


async def test_a_phrase_is_good_once_for_who_asked_and_for_this_store() -> None:
    async with running() as nexus:
        assert (await nexus.call(RESTORE, TARGET))[0] == 401
        told = await asked(nexus)
        assert (await asked(nexus))["phrase"] == told["phrase"]
        for who, phrase in (
            (f"{SUPERUSER}/two", told["phrase"]),
            (SUPERUSER, told["phrase"]),  # the wrong one has used it up
            (SUPERUSER, "erase store"),
        ):
            status, answer = await nexus.call(
                SUPERUSER if who == SUPERUSER else who, TARGET, {"phrase": phrase}
            )
            assert (status, answer["err"]) == (400, "refused_expired")
        assert nexus.vault.is_open
        assert await nexus.store.census()


async def test_a_phrase_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running() as nexus:
        desk = ResetDesk(nexus.keepers, nexus.rotation_loop)
        monkeypatch.setattr(factory_reset, "PHRASE_LIFE_S", -1.0)
        _, phrase = await desk.ask("somebody", "")
        with pytest.raises(RefusalError, match="not the phrase"):
            await desk.carry_out("somebody", phrase, "")
        assert nexus.vault.is_open


async def test_an_empty_store_has_nothing_to_reset() -> None:
    async with running(store=MemoryStore(), born=False) as nexus:
        status, answer = await nexus.call(SUPERUSER, TARGET)
        assert (status, answer["err"]) == (400, "refused_not_initialized")


async def test_a_locked_store_can_be_reset_when_nothing_brings_it_back(tmp_path: Path) -> None:
    async with running(tmp_path / "data") as nexus:
        await put(nexus)
    async with running(tmp_path / "data", born=False) as nexus:
        told = await asked(nexus)
        assert told["state"] == "locked"
        await asked(nexus, phrase=told["phrase"])
        assert await nexus.vault.phase() is Phase.UNINITIALIZED


async def test_nothing_is_told_any_more_of_the_keepers_of_a_store_that_is_gone(
    tmp_path: Path,
) -> None:
    async with surroundings(tmp_path, 2, 2) as around, around.nexus(born=True) as nexus:
        await nexus.keepers.look()
        assert states(nexus) == [KeeperState.CURRENT] * 2
        nexus.keepers.waits_for = "what it waited for when it was started"
        told = await asked(nexus)
        done = await asked(nexus, phrase=told["phrase"])
        assert [each["state"] for each in done["keepers"]] == ["erased", "erased"]
        assert states(nexus) == [KeeperState.UNKNOWN] * 2
        _, status = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert status["state"] == "uninitialized"
        assert status.get("recovery") is None
        assert status.get("rehearsal") is None


@contextlib.asynccontextmanager
async def after(store: MortalStore) -> AsyncIterator[RunningNexus]:
    store.killer.rest()
    async with running(store=store, born=False) as nexus:
        yield nexus


@pytest.mark.parametrize("victim", NEXUS, ids=["before", "after"])
async def test_killed_at_its_one_durable_step_it_was_or_was_not(victim: Victim) -> None:
    store = MortalStore()
    async with running(store=store) as nexus:
        await put(nexus)
        census = await store.census()
        desk = ResetDesk(nexus.keepers, nexus.rotation_loop)
        _, phrase = await desk.ask("somebody", "")
        store.killer.aim(0, victim)
        with pytest.raises(Dead):
            await desk.carry_out("somebody", phrase, "")
        assert [step.name for step in store.killer.steps] == ["erase"]
    async with after(store) as nexus:
        if victim is Victim.NEXUS_AFTER:
            assert await store.census() == {}
            return
        assert await store.census() == census
        told = await asked(nexus)
        await asked(nexus, phrase=told["phrase"])
        assert await store.census() == {}
    record("a factory reset killed at its write", 1, "not begun, or done")
