"""Whom Nexus takes for its Keepers: whom the keyring names; before that is authentic, whom else the environment has."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from around_kit import PASSWORD, Around, keeper_id, put, states, surroundings, value
from nexus_kit import SUPERUSER
from spike.lifecycle.keyring import ShareMember, ShareSet
from spike.lifecycle.supply import KeeperState
from spike.nexus.keeper_recovery import recover
from spike.nexus.keeper_roster import Roster
from spike.nexus.keeper_setting import KeeperSetting, parse_peers


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    async with surroundings(tmp_path, 3, 2) as made:
        yield made


async def test_an_environment_that_names_others_is_told_and_does_not_count(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    await around.start(4)
    other = around.setting_of(4, 2, 3, threshold=3)
    async with around.nexus(setting=other) as nexus:
        assert await recover(nexus.keepers)
        await nexus.keepers.look()
        assert states(nexus) == [KeeperState.CURRENT] * 3
        assert [view.link.peer.url for view in nexus.keepers.views] == [
            f"https://127.0.0.1:{around.keepers[index].server.port}" for index in (1, 2, 3)
        ]
        (remark,) = nexus.keepers.remarks
        ports = {index: str(keeper.server.port) for index, keeper in around.keepers.items()}
        told, known = remark.split("the keyring, which counts,")
        assert ports[4] in told
        assert ports[4] not in known
        assert "threshold 3" in told
        assert f"SPIKE_NEXUS_KEEPER_PEERS=https://127.0.0.1:{ports[1]}#{keeper_id(1)}," in known
        assert "SPIKE_NEXUS_SHAMIR_SHARES=3 SPIKE_NEXUS_SHAMIR_THRESHOLD=2" in known
        assert "spike keeper reshape" in known
        assert around.keepers[4].committed_set is None


async def test_the_same_keepers_in_environment_and_keyring_are_no_difference(
    around: Around,
) -> None:
    async with around.nexus(born=True) as nexus:
        await nexus.keepers.look()
        assert nexus.keepers.remarks == ()


async def test_the_key_comes_back_from_keepers_the_environment_no_longer_names(
    around: Around,
) -> None:
    """None of them is named; the backup place vouches for the root key."""
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    for index in (4, 5, 6):
        await around.start(index)
    async with around.nexus(setting=around.setting_of(4, 5, 6)) as nexus:
        assert await recover(nexus.keepers)
        assert await value(nexus, "a") == "a"


async def test_keepers_that_the_store_alone_names_do_not_vouch_for_themselves(
    around: Around,
) -> None:
    async with around.nexus(born=True, place=False):
        pass
    for index in (4, 5, 6):
        await around.start(index)
    async with around.nexus(place=False, setting=around.setting_of(4, 5, 6)) as nexus:
        assert not await recover(nexus.keepers)
        assert "the stored keyring alone names" in nexus.keepers.waits_for
        assert "SPIKE_NEXUS_KEEPER_PEERS" in nexus.keepers.waits_for
    async with around.nexus(place=False, setting=around.setting_of(4, 5, 1)) as nexus:
        assert await recover(nexus.keepers)


async def test_a_store_cannot_ask_for_fewer_keepers_than_the_environment(around: Around) -> None:
    async with around.nexus(born=True):
        pass
    await around.start(4)
    await around.stop(3)
    four = around.setting_of(1, 2, 3, 4, threshold=3)
    async with around.nexus(setting=four) as nexus:
        assert not await recover(nexus.keepers)
        assert "2 Keepers stand for the root key" in nexus.keepers.waits_for
        assert "SPIKE_NEXUS_SHAMIR_THRESHOLD" in nexus.keepers.waits_for
    await around.start(3, around.keepers[3].server.port)
    async with around.nexus(setting=around.setting_of(1, 2, 3)) as nexus:
        assert await recover(nexus.keepers)


async def test_one_keeper_and_a_storage_writer_do_not_plant_a_root_key(
    around: Around, tmp_path: Path
) -> None:
    """The store is replaced by one whose keyring names the hostile Keeper as each of its members."""
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
    hostile = Around(around.ca, tmp_path / "hostile", 2)
    for index in (1, 2):
        await hostile.start(index, identity=keeper_id(1))
    ports = [keeper.server.port for keeper in hostile.keepers.values()]
    loose = ",".join(f"https://127.0.0.1:{port}" for port in ports)
    setting = KeeperSetting(parse_peers(loose), 2, 2, 0.05)
    async with hostile.nexus(born=True, setting=setting) as nexus:
        opened = nexus.vault.opened
        (share_set,) = opened.document.share_sets
        here = f"https://127.0.0.1:{around.keepers[1].server.port}"
        one, two = (
            msgspec.structs.replace(each, identity=keeper_id(1)) for each in share_set.members
        )
        members = (msgspec.structs.replace(one, url=here), two)
        planted = msgspec.structs.replace(share_set, members=members)
        document = msgspec.structs.replace(
            opened.document, revision=opened.document.revision + 1, share_sets=(planted,)
        )
        async with nexus.vault.lock:
            await nexus.vault.advance(opened.ring.replaced(document))
    around.keepers[1].safe.become(hostile.keepers[1].safe.holding)
    shutil.rmtree(around.directory / "data")
    shutil.copytree(hostile.directory / "data", around.directory / "data")
    try:
        async with around.nexus() as nexus:
            assert not await recover(nexus.keepers)
            assert "2 of 2 Keepers have to give their shares" in nexus.keepers.waits_for
    finally:
        for index in hostile.keepers:
            await hostile.stop(index)


async def test_an_environment_without_keepers_speaks_with_none(around: Around) -> None:
    async with around.nexus(born=True):
        pass
    before = len(around.calls)
    alone = replace(around.setting, peers=())
    async with around.nexus(setting=alone) as nexus:
        assert not await recover(nexus.keepers)
        assert nexus.keepers.links == ()
        assert (await nexus.restore(PASSWORD))[0] == 200
        await nexus.keepers.look()
        _, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert "keepers" not in told
        (remark,) = told["remarks"]
        assert remark.startswith("the environment names no Keepers, threshold 2; the keyring")
    assert len(around.calls) == before


def test_a_set_that_names_what_is_no_keeper_stops_nobody(around: Around) -> None:
    made: list[str] = []

    def connect(peer: object) -> object:
        made.append(str(peer))
        return object.__new__(object)

    bad = ShareMember(index=1, identity="spiffe://x/y", url="no address", digest="00" * 32)
    loose = ShareMember(index=2, identity="", url="https://h:1", digest="00" * 32)
    hint = ShareSet("00" * 16, 1, 2, staged=False, members=(bad, loose))
    roster = Roster(around.setting, connect)  # type: ignore[arg-type]
    asked = roster.candidates(hint)
    assert [each.named for each in asked] == [True] * 3
