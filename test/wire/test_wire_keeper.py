"""The messages of a Keeper, spelled from the contract: Go's two calls to the letter, ours field by field."""

from __future__ import annotations

import pytest

from spike.error import FormatError
from spike.wire import go_json, keeper
from spike.wire.call import CALLS
from spike.wire.keeper import KEEPER_CALLS, KeeperReason, Place, keeper_call_at
from spike.wire.message import ConfidentialMessage, Empty, Message

STORE, LINEAGE, SET, TAG = "a" * 32, "b" * 32, "c" * 32, "d" * 64
LABEL = f'"storeId":"{STORE}","lineage":"{LINEAGE}","setId":"{SET}"'
NUMBERS = '"generation":1,"index":2,"threshold":3'
SHARD = list(range(32))
SHARD_TEXT = "[" + ",".join(map(str, SHARD)) + "]"
HELD = keeper.HeldLabel(STORE, LINEAGE, SET, 1, 2, 3, 4)

REQUESTS: list[tuple[str, str, str, Message]] = [
    ("/v1/store/contribute", "", '{"shard":[1,2]}', keeper.ContributeRequest([1, 2])),
    ("/v1/store/contribute", "", '{"shard":null}', keeper.ContributeRequest(None)),
    ("/v1/store/shard", "", "{}", Empty()),
    (
        "/v1/store/shard",
        "stage",
        f'{{{LABEL},{NUMBERS},"shard":{SHARD_TEXT},"tag":"{TAG}"}}',
        keeper.StageRequest(STORE, LINEAGE, SET, 1, 2, 3, SHARD, TAG),
    ),
    ("/v1/store/shard", "stage", "{}", keeper.StageRequest()),
    (
        "/v1/store/shard",
        "commit",
        f'{{{LABEL},"epoch":4}}',
        keeper.CommitRequest(STORE, LINEAGE, SET, 4),
    ),
    ("/v1/store/shard", "erase", f'{{"setId":"{SET}"}}', keeper.SetRequest(SET)),
    ("/v1/store/shard", "get", f'{{"setId":"{SET}"}}', keeper.SetRequest(SET)),
    (
        "/v1/store/shard",
        "status",
        '{"nonce":"AAE=","anchor":null}',
        keeper.KeeperStatusRequest(b"\0\1"),
    ),
    ("/v1/store/shard", "status", '{"anchor":"AA=="}', keeper.KeeperStatusRequest(anchor=b"\0")),
]


@pytest.mark.parametrize("number", range(len(REQUESTS)))
def test_a_request_is_read_as_the_contract_spells_it(number: int) -> None:
    path, action, body, message = REQUESTS[number]
    call = keeper_call_at(path, action)
    assert call is not None
    assert go_json.decode_untrusted(call.request, body.encode()) == message


ANSWERS: list[tuple[Message, str]] = [
    (keeper.ShardAnswer([1, 2]), '{"shard":[1,2],"Err":""}'),
    (keeper.ShardAnswer(None, "api_not_found"), '{"shard":null,"Err":"api_not_found"}'),
    (
        keeper.ShareAnswer(STORE, LINEAGE, SET, 1, 2, 3, 4, Place.COMMITTED, SHARD, TAG),
        (f'{{{LABEL},{NUMBERS},"epoch":4,"place":"committed","shard":{SHARD_TEXT},"tag":"{TAG}"}}'),
    ),
    (
        keeper.KeeperStatusAnswer(None, None, None, "1"),
        '{"committed":null,"staged":null,"anchor":null,"version":"1"}',
    ),
    (
        keeper.KeeperStatusAnswer(
            keeper.Holding(STORE, LINEAGE, SET, 1, 2, 3, 4, TAG), None, b"\0", "1"
        ),
        (
            f'{{"committed":{{{LABEL},{NUMBERS},"epoch":4,"proof":"{TAG}"}},'
            '"staged":null,"anchor":"AA==","version":"1"}'
        ),
    ),
    (
        keeper.KeeperRefusalAnswer("refused_old", "m", HELD),
        f'{{"err":"refused_old","message":"m","held":{{{LABEL},{NUMBERS},"epoch":4}}}}',
    ),
    (
        keeper.KeeperRefusalAnswer("refused_not_staged", "m"),
        '{"err":"refused_not_staged","message":"m","held":null}',
    ),
]


@pytest.mark.parametrize("number", range(len(ANSWERS)))
def test_an_answer_stands_as_the_contract_spells_it_and_comes_back(number: int) -> None:
    message, text = ANSWERS[number]
    raw = go_json.encode(message)
    assert (raw.decode(), go_json.decode_answer_untrusted(type(message), raw)) == (text, message)


@pytest.mark.parametrize("place", ["Committed", "", "contributed", 1, None])
def test_a_share_is_in_one_of_two_places(place: object) -> None:
    told = {"storeId": STORE, "lineage": LINEAGE, "setId": SET, "generation": 1, "index": 2}
    told |= {"threshold": 3, "epoch": 4, "place": place, "shard": SHARD, "tag": TAG}
    raw = go_json.encode(told)  # type: ignore[arg-type]  # any JSON will do
    with pytest.raises(FormatError):
        go_json.decode_answer_untrusted(keeper.ShareAnswer, raw)


def test_every_call_is_spelled_out_here_and_nexus_has_none_of_them() -> None:
    spelled = {(path, action) for path, action, _, _ in REQUESTS}
    assert spelled == {(call.path, call.action) for call in KEEPER_CALLS}
    assert spelled.isdisjoint((call.path, call.action) for call in CALLS)
    assert len({call.name for call in (*CALLS, *KEEPER_CALLS)}) == len(CALLS) + len(KEEPER_CALLS)


def test_a_call_is_found_by_exact_path_and_action_alone() -> None:
    for path, action in [
        ("/v1/store/shard", "STAGE"),
        ("/v1/store/shard", "contribute"),
        ("/v1/store/contribute", "stage"),
        ("/v1/store/shard/", ""),
        ("", ""),
    ]:
        assert keeper_call_at(path, action) is None


def test_every_refusal_has_its_sentence() -> None:
    assert len({reason.meaning for reason in KeeperReason}) == len(KeeperReason)


CONFIDENTIAL: list[ConfidentialMessage] = [
    keeper.ContributeRequest([77] * 32),
    keeper.ShardAnswer([77] * 32),
    keeper.StageRequest(shard=[77] * 32, tag="77"),
    keeper.ShareAnswer(STORE, LINEAGE, SET, 1, 2, 3, 4, Place.STAGED, [77] * 32, "77"),
]


@pytest.mark.parametrize("message", CONFIDENTIAL, ids=lambda message: type(message).__name__)
def test_a_message_with_a_share_shows_its_type_and_nothing_else(
    message: ConfidentialMessage,
) -> None:
    assert "77" not in f"{message!r} {message} {message.__rich_repr__()}"
