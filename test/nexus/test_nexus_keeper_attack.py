"""Attacks on recovery, refresh and anchors that once went through, one test each."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from around_kit import PASSWORD, Around, Told, eventually, put, states, surroundings, value
from lost_kit import POLICIES, WEB
from nexus_kit import RECOVER, RESTORE, SUPERUSER, running
from proxy_store import Proxy
from spike.error import SpikeError, StoreUnavailableError
from spike.lifecycle import anchor as anchors
from spike.lifecycle import keyring
from spike.lifecycle.recovery_shard import Collection
from spike.lifecycle.supply import KeeperState
from spike.memory.key_memory import KeyMemory
from spike.nexus.examination import Examined
from spike.nexus.keeper_recovery import recover
from spike.nexus.keeper_refresh import refresh
from spike.nexus.opened import Stop
from spike.nexus.restore_flow import Preview, RestoreDesk
from spike.nexus.vault import KEYRING_ID
from spike.storage.protocol import Change, Put, Revision
from spike.storage.registry import open_store


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    async with surroundings(tmp_path, 3, 2) as made:
        yield made


async def test_a_revoked_right_does_not_come_back_though_the_one_honest_witness_is_late(
    around: Around,
) -> None:
    """One Keeper missed the revocation, one lies about its anchor, and the third answers last."""
    data, place = around.directory / "data", around.directory / "place"
    away: set[int] = set()
    late: set[int] = set()

    async def before(index: int, _action: str) -> None:
        if index in away:
            raise StoreUnavailableError("it is cut off")
        if index in late:
            await asyncio.sleep(0.1)

    around.before = before
    async with around.nexus(born=True) as nexus:
        assert (await nexus.call(SUPERUSER, POLICIES, WEB))[0] == 200
        await nexus.keepers.look()
    for kept in (data, place):
        shutil.copytree(kept, kept.with_suffix(".old"))
    away.add(3)
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert (await nexus.call(SUPERUSER, f"{POLICIES}?action=delete", {"id": "web"}))[0] == 200
        await nexus.keepers.look()
    away.clear()
    for kept in (data, place):
        shutil.rmtree(kept)
        shutil.move(kept.with_suffix(".old"), kept)

    def without_anchor(action: str, told: Told) -> Told:
        return {**told, "anchor": None} if action == "status" else told

    around.lies[1] = without_anchor
    late.add(2)
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        assert "old copy" in nexus.keepers.waits_for


async def test_no_keyring_and_no_anchor_is_made_with_a_root_key_that_is_wrong(
    around: Around,
) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        root = nexus.vault.opened.ring.root
        with root.view() as view:
            view[5] ^= 1
        assert (await nexus.call(SUPERUSER, "/v1/keeper?action=refresh"))[0] == 503
        await nexus.keepers.look()
        assert Stop.WRONG_KEY in nexus.vault.stops
        with root.view() as view:
            view[5] ^= 1
        kept = [keeper.safe.holding.anchor for keeper in around.keepers.values()]
        raws = [each.raw for each in kept if each is not None]
        document = nexus.vault.opened.document
        assert (
            len(anchors.weigh_untrusted(raws, document, nexus.vault.opened.ring.roots).valid) == 3
        )
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "a") == "a"


class ForgetfulStore(Proxy):
    """A store that loses its answer to the keyring that ends a refresh, and to the look for it that follows."""

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.lost = 0

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        revisions: tuple[Revision, ...] = await self.real.apply(changes, fence=fence)
        if self.lost == 0 and any(_ends_refresh(change) for change in changes):
            self.lost = 1
            raise StoreUnavailableError("the answer is lost")
        return revisions

    async def get(self, id: Any) -> Any:  # noqa: A002 - the field's own name
        if self.lost == 1:
            self.lost = 2
            raise StoreUnavailableError("it does not answer")
        return await self.real.get(id)


def _ends_refresh(change: Change) -> bool:
    if not (isinstance(change, Put) and change.id == KEYRING_ID):
        return False
    return keyring.decode_untrusted(change.blob).hint.epoch == 2


async def test_one_lost_answer_is_no_other_nexus(around: Around) -> None:
    async with around.nexus(born=True):
        pass
    store = await open_store("sqlite", around.directory / "data")
    forgetful = ForgetfulStore(store)
    try:
        async with running(
            store=forgetful,
            place=around.directory / "place",
            ca=around.ca,
            born=False,
            keepers=around.setting,
            unattended=True,
        ) as nexus:
            await eventually(lambda: nexus.vault.is_open)
            await nexus.call(SUPERUSER, "/v1/keeper?action=refresh")
            assert forgetful.lost == 2
            await eventually(lambda: not nexus.vault.stops)
            await eventually(lambda: states(nexus) == [KeeperState.CURRENT] * 3)
            await put(nexus, "a")
    finally:
        await store.close()
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "a") == "a"


async def test_a_refresh_that_was_killed_ends_also_where_keepers_are_no_longer_configured(
    around: Around,
) -> None:
    async with around.nexus(born=True) as nexus:

        async def fail(_index: int, action: str) -> None:
            if action == "stage":
                store: Any = nexus.vault.store
                store.apply = _dead
                raise StoreUnavailableError("killed")

        around.before = fail
        with pytest.raises(SpikeError):
            await refresh(nexus.keepers, "nexus", least=3)
        assert nexus.vault.opened.document.operation is not None
    around.before = None
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        assert nexus.vault.opened.document.operation is not None
    place = around.directory / "place"
    data = around.directory / "data"
    async with running(data, place=place, ca=around.ca, born=False, unattended=True) as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        await eventually(lambda: nexus.vault.opened.document.operation is None)


async def _dead(_changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
    raise StoreUnavailableError(f"killed, at fence {fence}")


async def test_one_slow_keeper_holds_up_no_acknowledgement_for_the_whole_of_its_slowness(
    around: Around,
) -> None:
    """Two of three keep the anchor; the third takes its time with every call."""
    answered = asyncio.Event()

    async def before(index: int, _action: str) -> None:
        if index == 3:
            await answered.wait()

    async with around.nexus(born=True) as nexus:
        shutil.rmtree(around.directory / "place")
        await nexus.vault.renew_places()
        assert Stop.NO_ANCHOR in nexus.vault.stops
        around.before = before
        looking = asyncio.create_task(nexus.keepers.look())
        await eventually(lambda: not nexus.vault.stops)
        assert not looking.done()
        answered.set()
        await looking


async def test_a_keeper_whose_answer_breaks_nexus_does_so_alone(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")

    def odd(_action: str, _told: Told) -> Told:
        return {"version": [1.5], "committed": [1.5], "shard": [[1.5]], "x": 0}

    around.lies[3] = odd
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers)
        await nexus.keepers.look()
        assert states(nexus) == [*[KeeperState.CURRENT] * 2, KeeperState.SUSPECT]


async def test_what_waits_to_bring_the_key_back_is_wiped_when_the_keepers_do(
    around: Around, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A preview holds a whole second key ring; collected shards are half of what opens a slot."""
    previewed: list[Examined] = []
    collections: list[Collection] = []
    hold, add = RestoreDesk.hold, Collection.add

    def noted_hold(desk: RestoreDesk, found: Examined) -> Preview:
        previewed.append(found)
        return hold(desk, found)

    def noted_add(collection: Collection, index: int, value: KeyMemory) -> None:
        collections.append(collection)
        add(collection, index, value)

    monkeypatch.setattr(RestoreDesk, "hold", noted_hold)
    monkeypatch.setattr(Collection, "add", noted_add)
    target = "/v1/operator/restore"
    async with around.nexus(born=True) as nexus:
        status, handed_out = await nexus.call(RECOVER, "/v1/operator/recover")
        assert status == 200
    async with around.nexus() as nexus:
        shard = {"id": 1, "shard": handed_out["shards"]["1"]}
        assert (await nexus.call(RESTORE, target, shard))[0] == 200
        asked = await nexus.seal(RESTORE, PASSWORD)
        status, told = await nexus.call(RESTORE, f"{target}?action=password", asked)
        assert status == 200, told
        assert ([each.collected for each in collections], previewed[0].ring.root.wiped) == (
            [1],
            False,
        )
        assert await recover(nexus.keepers)
        assert ([each.collected for each in collections], previewed[0].ring.root.wiped) == (
            [0],
            True,
        )
        confirm = {"confirm": told["confirm"]}
        status, told = await nexus.call(RESTORE, f"{target}?action=password", confirm)
        assert (status, told["err"]) == (400, "refused_already_open")
        await put(nexus, "a")
    async with around.nexus() as nexus:
        assert (await nexus.restore(PASSWORD))[0] == 200
        assert not previewed[1].ring.root.wiped, "what is brought back does not wipe itself"
        assert await value(nexus, "a") == "a"
