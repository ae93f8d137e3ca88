"""Who gets through a Keeper's handshake, and who may make which call behind it."""

from __future__ import annotations

import ssl

import pytest

from keeper_kit import BOOTSTRAP, KEEPER, NEXUS, RunningKeeper, running_keeper
from spiffe_kit import Ca

SHARD = "/v1/store/shard"
CONTRIBUTE = "/v1/store/contribute"


@pytest.mark.parametrize(
    "spiffe_id",
    [
        KEEPER,
        "spiffe://spike.ist/workload/web",
        "spiffe://spike.ist/spike/pilot/role/superuser",
        "spiffe://spike.ist/spike/pilot/role/recover",
        "spiffe://spike.ist/spike/nexus2",
        "spiffe://spike.ist/spike/nexu",
    ],
)
async def test_who_may_make_no_call_does_not_get_through_the_handshake(spiffe_id: str) -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await keeper.call(spiffe_id, SHARD)


async def test_a_nexus_of_another_authority_does_not_get_through_the_handshake() -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        stranger = RunningKeeper(Ca("spike.ist"), KEEPER, keeper.server, keeper.safe)
        with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
            await stranger.call(NEXUS, SHARD)


async def test_bootstrap_may_contribute_and_nothing_else() -> None:
    async with running_keeper(Ca("spike.ist")) as keeper:
        await keeper.call(BOOTSTRAP, CONTRIBUTE, {"shard": [1] * 32})
        for action in ("", "?action=stage", "?action=commit", "?action=erase", "?action=get"):
            answer = await keeper.call(BOOTSTRAP, SHARD + action, raw=b"no json")
            assert answer == (401, {"err": "access_unauthorized"})
        assert (await keeper.call(BOOTSTRAP, f"{SHARD}?action=status"))[0] == 401


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", SHARD),
        ("PUT", CONTRIBUTE),
        ("POST", "/"),
        ("POST", "/v1/store/shards"),
        ("POST", "/v1/store/shard/"),
        ("POST", f"{SHARD}?action=STAGE"),
        ("POST", f"{CONTRIBUTE}?action=stage"),
        ("POST", "/v1/store/secrets?action=get"),
        ("POST", "/v1/operator/status"),
    ],
)
async def test_what_is_no_call_of_a_keeper_is_a_bad_request(method: str, target: str) -> None:
    async with running_keeper(Ca("spike.ist")) as keeper, keeper.connection(NEXUS) as client:
        await client.send(
            f"{method} {target} HTTP/1.1\r\nHost: k\r\nContent-Length: 2\r\n\r\n{{}}".encode()
        )
        answer = await client.answer()
        assert (answer.status, answer.body) == (400, b'{"err":"api_bad_request"}')
