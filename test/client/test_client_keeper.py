"""The client of a Keeper against a real one: every call, every refusal, identities on both sides."""

from __future__ import annotations

import asyncio

import pytest

from keeper_kit import BOOTSTRAP, KEEPER, NEXUS, running_keeper
from spiffe_kit import Ca, material
from spike.client.keeper import KeeperClient, KeeperRefusedError
from spike.client.setting import Address
from spike.error import (
    AnswerError,
    DeniedError,
    IdentityError,
    NotFoundError,
    UnreachableError,
)
from spike.spiffe.source import HeldSource
from spike.wire import keeper as wire
from spike.wire.keeper import KeeperReason, KeeperStatusRequest, Place
from spike.wire.message import Empty

STORE, LINEAGE, SET, TAG = "a" * 32, "b" * 32, "c" * 32, "d" * 64
SHARD = list(range(1, 33))
STAGE = wire.StageRequest(STORE, LINEAGE, SET, 1, 2, 2, SHARD, TAG)
COMMIT = wire.CommitRequest(STORE, LINEAGE, SET, 5)
NONCE = bytes(32)
STATUS = KeeperStatusRequest(NONCE)


async def test_every_call_comes_back_as_its_answer() -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        client = keeper.client()
        empty = await client.ask(wire.STATUS, STATUS)
        assert (empty.committed, empty.staged, empty.anchor) == (None, None, None)
        with pytest.raises(NotFoundError):
            await client.ask(wire.SHARD, Empty())
        with pytest.raises(NotFoundError):
            await client.ask(wire.GET, wire.SetRequest(SET))
        assert await client.ask(wire.STAGE, STAGE) == Empty()
        assert (await client.ask(wire.GET, wire.SetRequest(SET))).place is Place.STAGED
        assert await client.ask(wire.COMMIT, COMMIT) == Empty()
        got = await client.ask(wire.GET, wire.SetRequest(SET))
        assert (got.place, got.shard, got.tag, got.epoch) == (Place.COMMITTED, SHARD, TAG, 5)
        assert (await client.ask(wire.SHARD, Empty())).shard == SHARD
        assert await client.ask(wire.CONTRIBUTE, wire.ContributeRequest([9] * 32)) == Empty()
        assert await client.ask(wire.ERASE, wire.SetRequest(SET)) == Empty()
        assert (await client.ask(wire.SHARD, Empty())).shard == [9] * 32


async def test_a_refusal_says_why_and_what_is_held() -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        client = keeper.client()
        await client.ask(wire.STAGE, STAGE)
        await client.ask(wire.COMMIT, COMMIT)
        other = wire.StageRequest("e" * 32, LINEAGE, SET, 1, 2, 2, SHARD, TAG)
        with pytest.raises(KeeperRefusedError) as caught:
            await client.ask(wire.STAGE, other)
        assert caught.value.reason is KeeperReason.FOREIGN
        assert caught.value.held == wire.HeldLabel(STORE, LINEAGE, SET, 1, 2, 2, 5)
        with pytest.raises(KeeperRefusedError) as caught:
            await client.ask(wire.COMMIT, wire.CommitRequest(STORE, LINEAGE, "f" * 32, 9))
        assert (caught.value.reason, caught.value.held) == (KeeperReason.NOT_STAGED, None)


async def test_many_calls_at_once_are_answered() -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        client = keeper.client()
        answers = await asyncio.gather(*(client.ask(wire.STATUS, STATUS) for _ in range(20)))
        assert len(answers) == 20


async def test_a_server_with_another_identity_is_not_spoken_to() -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        client = keeper.client(accept=lambda peer: str(peer) == "spiffe://spike.ist/spike/keeper/2")
        with pytest.raises(IdentityError, match="not a Keeper to trust"):
            await client.ask(wire.STAGE, STAGE)
        assert keeper.state.staged is None


async def test_a_server_of_another_authority_is_not_spoken_to() -> None:
    ca = Ca("spike.ist")
    async with running_keeper(Ca("spike.ist")) as keeper:
        own = HeldSource(material(ca.svid(NEXUS), ca))
        client = KeeperClient(keeper.address, own, lambda _: True, 5.0)
        with pytest.raises(IdentityError):
            await client.ask(wire.STATUS, STATUS)


@pytest.mark.parametrize("who", [KEEPER, "spiffe://spike.ist/workload/web"])
async def test_who_is_not_let_in_is_told_so(who: str) -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        with pytest.raises((DeniedError, UnreachableError)):
            await keeper.client(who).ask(wire.STATUS, STATUS)


async def test_who_may_not_make_a_call_is_told_so() -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        with pytest.raises(DeniedError):
            await keeper.client(BOOTSTRAP).ask(wire.STATUS, STATUS)


async def test_a_request_that_the_keeper_does_not_understand_is_an_answer_error() -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        with pytest.raises(AnswerError, match="does not understand"):
            await keeper.client().ask(wire.STATUS, KeeperStatusRequest(b"short"))


async def test_where_nobody_listens_the_keeper_is_unreachable() -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        client = keeper.client()
    with pytest.raises(UnreachableError, match="nobody listens"):
        await client.ask(wire.STATUS, STATUS)


@pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 64 + ".invalid", "ä"])
async def test_a_name_that_is_none_is_unreachable(host: str) -> None:
    ca = Ca("spike.ist")
    own = HeldSource(material(ca.svid(NEXUS), ca))
    client = KeeperClient(Address(host, 1), own, lambda _: True, 5.0)
    with pytest.raises(UnreachableError):
        await client.ask(wire.STATUS, STATUS)
