"""A Keeper over real TLS: Go's two calls to the letter, ours, who may make them, and what is wiped."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from keeper_kit import BOOTSTRAP, NEXUS, RunningKeeper, running_keeper
from spiffe_kit import Ca
from spike.crypto.mac import mac
from spike.lifecycle import anchor as anchors
from spike.memory.key_memory import KeyMemory

SHARD = "/v1/store/shard"
CONTRIBUTE = "/v1/store/contribute"
ONE = list(range(1, 33))
TWO = list(range(101, 133))
NONCE = base64.b64encode(bytes(32)).decode()
STORE, OTHER_STORE = "a" * 32, "b" * 32
LINEAGE, OTHER_LINEAGE = "c" * 32, "d" * 32
SET, LATER_SET = "1" * 32, "2" * 32
TAG = "e" * 64


LABEL = {
    "storeId": STORE,
    "lineage": LINEAGE,
    "setId": SET,
    "generation": 1,
    "index": 2,
    "threshold": 2,
}


def staging(**changes: object) -> dict[str, object]:
    """Return a stage request, changed where a test wants it."""
    return {**LABEL, "shard": ONE, "tag": TAG, **changes}


def committing(**changes: object) -> dict[str, object]:
    """Return a commit request, changed where a test wants it."""
    return {"storeId": STORE, "lineage": LINEAGE, "setId": SET, "epoch": 3, **changes}


@contextlib.asynccontextmanager
async def keeping() -> AsyncIterator[RunningKeeper]:
    async with running_keeper(Ca("spike.ist")) as keeper:
        yield keeper


async def ours(keeper: RunningKeeper, action: str, message: object) -> tuple[int, Any]:
    return await keeper.call(NEXUS, f"{SHARD}?action={action}", message)


async def supplied(keeper: RunningKeeper, **changes: object) -> None:
    """Stage and commit a share."""
    assert (await ours(keeper, "stage", staging(**changes)))[0] == 200
    known = {name: value for name, value in changes.items() if name in committing()}
    assert (await ours(keeper, "commit", committing(**known)))[0] == 200


async def exact(keeper: RunningKeeper, target: str, body: bytes) -> tuple[int, bytes]:
    async with keeper.connection(NEXUS) as client:
        answer = await client.ask(target, body)
    return answer.status, answer.body


async def test_go_s_calls_are_answered_to_the_letter() -> None:
    shard = json.dumps(ONE, separators=(",", ":")).encode()
    async with keeping() as keeper:
        empty = await exact(keeper, SHARD, b"{}")
        assert empty == (404, b'{"shard":null,"Err":"api_not_found"}')
        assert await exact(keeper, CONTRIBUTE, b'{"shard":%b}' % shard) == (200, b"{}")
        assert await exact(keeper, SHARD, b"{}") == (200, b'{"shard":%b,"Err":""}' % shard)


async def test_a_contributed_share_is_replaced_by_the_next_and_yields_to_the_committed_one() -> (
    None
):
    async with keeping() as keeper:
        for shard in (TWO, ONE):
            assert (await keeper.call(BOOTSTRAP, CONTRIBUTE, {"shard": shard}))[0] == 200
        assert (await keeper.call(NEXUS, SHARD))[1]["shard"] == ONE
        await supplied(keeper, shard=TWO)
        assert (await keeper.call(NEXUS, SHARD))[1]["shard"] == TWO
        await keeper.call(NEXUS, CONTRIBUTE, {"shard": ONE})
        assert (await keeper.call(NEXUS, SHARD))[1]["shard"] == TWO
        assert (await ours(keeper, "erase", {"setId": SET}))[0] == 200
        assert (await keeper.call(NEXUS, SHARD))[1]["shard"] == ONE


@pytest.mark.parametrize(
    "shard", [None, [], [0] * 32, [1] * 31, [1] * 33, [256] * 32, [-1] * 32, "AA==", {}, [1.5] * 32]
)
async def test_what_is_no_share_is_refused(shard: object) -> None:
    async with keeping() as keeper:
        for target, message in (
            (CONTRIBUTE, {"shard": shard}),
            (f"{SHARD}?action=stage", staging(shard=shard)),
        ):
            status, body = await keeper.call(NEXUS, target, message)
            assert (status, body) == (400, {"err": "api_bad_request"})
        assert keeper.state.values() == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("storeId", ""),
        ("storeId", "A" * 32),
        ("lineage", "c" * 31),
        ("lineage", "c" * 32 + "\n"),
        ("setId", "g" * 32),
        ("generation", 0),
        ("generation", 1 << 32),
        ("index", 0),
        ("index", 256),
        ("threshold", 0),
        ("threshold", 256),
        ("tag", ""),
        ("tag", "e" * 63),
    ],
)
async def test_a_label_that_cannot_be_is_refused(field: str, value: object) -> None:
    async with keeping() as keeper:
        assert (await ours(keeper, "stage", staging(**{field: value})))[0] == 400
        assert keeper.state.staged is None


async def test_a_staged_share_is_got_and_shown_as_what_it_is() -> None:
    async with keeping() as keeper:
        assert await ours(keeper, "get", {"setId": SET}) == (404, {"err": "api_not_found"})
        assert await ours(keeper, "stage", staging()) == (200, {})
        staged = {**LABEL, "epoch": 0}
        assert await ours(keeper, "get", {"setId": SET}) == (
            200,
            {"place": "staged", **staged, "shard": ONE, "tag": TAG},
        )
        assert await ours(keeper, "commit", committing()) == (200, {})
        committed = {**LABEL, "epoch": 3}
        assert await ours(keeper, "get", {"setId": SET}) == (
            200,
            {"place": "committed", **committed, "shard": ONE, "tag": TAG},
        )


async def test_the_status_proves_what_is_held_without_showing_it() -> None:
    async with keeping() as keeper:
        await supplied(keeper)
        await ours(keeper, "stage", staging(setId=LATER_SET, shard=TWO))
        nonces = [bytes(32), bytes(range(32))]
        proofs = []
        for nonce in nonces:
            asked = {"nonce": base64.b64encode(nonce).decode()}
            status, said = await ours(keeper, "status", asked)
            assert status == 200
            assert set(said) == {"committed", "staged", "anchor", "version"}
            assert said["committed"] == {
                **LABEL,
                "epoch": 3,
                "proof": proof(ONE, nonce),
            }
            assert said["staged"]["proof"] == proof(TWO, nonce)
            proofs += [said["committed"]["proof"], said["staged"]["proof"]]
        assert len(set(proofs)) == 4


def proof(shard: list[int], nonce: bytes) -> str:
    with KeyMemory.allocate(32) as value:
        with value.view() as view:
            view[:] = bytearray(shard)
        return mac(value, b"spike/share/v1/proof" + nonce).hex()


@pytest.mark.parametrize("nonce", ["", "AA==", base64.b64encode(bytes(33)).decode(), None, 7])
async def test_a_proof_is_made_over_32_bytes_only(nonce: object) -> None:
    async with keeping() as keeper:
        assert (await ours(keeper, "status", {"nonce": nonce}))[0] == 400


async def test_another_store_s_share_is_refused_with_what_is_held() -> None:
    async with keeping() as keeper:
        await supplied(keeper)
        before = keeper.state
        held = {**LABEL, "epoch": 3}
        for other in ({"storeId": OTHER_STORE}, {"lineage": OTHER_LINEAGE}):
            for action, message in (("stage", staging(**other)), ("commit", committing(**other))):
                status, body = await ours(keeper, action, message)
                assert status == 400
                assert body["err"] == "refused_foreign"
                assert body["held"] == held
        assert keeper.state == before


async def test_an_earlier_epoch_is_refused_and_the_staged_share_stays() -> None:
    async with keeping() as keeper:
        await supplied(keeper)
        await ours(keeper, "stage", staging(setId=LATER_SET, shard=TWO))
        for epoch in (0, 2, 3):
            status, body = await ours(keeper, "commit", committing(setId=LATER_SET, epoch=epoch))
            assert (status, body["err"], body["held"]["epoch"]) == (400, "refused_old", 3)
        assert (await ours(keeper, "commit", committing(setId=LATER_SET, epoch=4)))[0] == 200
        assert (await keeper.call(NEXUS, SHARD))[1]["shard"] == TWO


async def test_a_commit_of_what_was_never_staged_is_refused() -> None:
    async with keeping() as keeper:
        status, body = await ours(keeper, "commit", committing())
        assert (status, body["err"], body["held"]) == (400, "refused_not_staged", None)


def anchored(**changes: object) -> bytes:
    """Return a real anchor, changed where a test wants it."""
    plain: dict[str, Any] = {
        "store_id": STORE,
        "lineage": LINEAGE,
        "epoch": 3,
        "revision": 7,
        "access_generation": 5,
        "audit_head": "",
        "generation": 1,
    }
    with KeyMemory.generate() as root:
        return anchors.encode(anchors.Anchor(**plain | changes), root)


async def shown_anchor(keeper: RunningKeeper, anchor: bytes | None) -> bytes | None:
    """Offer an anchor; return the one that is held then."""
    given = None if anchor is None else base64.b64encode(anchor).decode()
    status, said = await ours(keeper, "status", {"nonce": NONCE, "anchor": given})
    assert status == 200
    return None if said["anchor"] is None else base64.b64decode(said["anchor"])


async def test_the_first_anchor_is_kept_and_then_one_that_is_nowhere_older() -> None:
    async with keeping() as keeper:
        assert await shown_anchor(keeper, None) is None
        kept = anchored()
        assert await shown_anchor(keeper, kept) == kept
        for newer in (
            anchored(),  # the same age, another root key
            anchored(revision=8),
            anchored(epoch=4, revision=1),
            anchored(epoch=4, revision=1, access_generation=6),
        ):
            assert await shown_anchor(keeper, newer) == newer
        assert await shown_anchor(keeper, None) == newer


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 2},
        {"revision": 6},
        {"access_generation": 4},
        {"epoch": 9, "access_generation": 4},
        {"epoch": 2, "access_generation": 9},
        {"store_id": OTHER_STORE, "epoch": 9},
        {"lineage": OTHER_LINEAGE, "epoch": 9},
    ],
)
async def test_an_anchor_older_in_anything_or_of_another_store_is_not_kept(
    changes: dict[str, object],
) -> None:
    async with keeping() as keeper:
        kept = anchored()
        await shown_anchor(keeper, kept)
        assert await shown_anchor(keeper, anchored(**changes)) == kept


@pytest.mark.parametrize("anchor", [b"", b"spike-anchor 1", b"x" * 4097, b"spike-anchor 1\n{}\n"])
async def test_what_is_no_anchor_is_refused(anchor: bytes) -> None:
    async with keeping() as keeper:
        given = {"nonce": NONCE, "anchor": base64.b64encode(anchor).decode()}
        assert (await ours(keeper, "status", given))[0] == 400
        assert keeper.state.anchor is None


async def test_an_anchor_of_a_later_format_is_kept_if_it_says_how_new_it_is() -> None:
    async with keeping() as keeper:
        later = (
            anchored().replace(b"spike-anchor 1", b"spike-anchor 2").replace(b'"audit', b'"more')
        )
        assert await shown_anchor(keeper, later) == later


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}{}", b"\xff", b"[" * 5000, b'{"shard":' + b"1" * 70000]
)
async def test_what_is_no_message_is_a_bad_request_and_the_keeper_lives_on(body: bytes) -> None:
    async with keeping() as keeper:
        for target in (CONTRIBUTE, *(f"{SHARD}?action={a}" for a in ("stage", "commit", "status"))):
            assert (await keeper.call(NEXUS, target, raw=body))[0] == 400
        assert (await ours(keeper, "status", {"nonce": NONCE}))[0] == 200


async def test_names_without_regard_to_case_and_unknown_fields_are_read_as_go_reads_them() -> None:
    async with keeping() as keeper:
        body = json.dumps({"SHARD": ONE, "more": [None]}).encode()
        assert (await keeper.call(NEXUS, CONTRIBUTE, raw=body))[0] == 200


async def test_what_is_replaced_erased_or_left_at_the_end_is_overwritten() -> None:
    async with keeping() as keeper:
        seen: list[KeyMemory] = []

        def live() -> list[KeyMemory]:
            seen.extend(each for each in keeper.state.values() if each not in seen)
            return [each for each in seen if not each.wiped]

        await keeper.call(NEXUS, CONTRIBUTE, {"shard": ONE})
        live()
        await keeper.call(NEXUS, CONTRIBUTE, {"shard": TWO})
        assert live() == [keeper.state.contributed]
        await ours(keeper, "stage", staging())
        live()
        await ours(keeper, "stage", staging(setId=LATER_SET))
        assert len(live()) == 2
        await ours(keeper, "commit", committing(setId=LATER_SET))
        await ours(keeper, "stage", staging())
        live()
        await ours(keeper, "commit", committing(epoch=4))
        assert len(live()) == 2
        await ours(keeper, "erase", {"setId": SET})
        assert live() == [keeper.state.contributed]
    assert len(seen) == 5
    assert live() == []


async def test_a_refused_share_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[KeyMemory] = []
    allocate = KeyMemory.allocate.__func__  # type: ignore[attr-defined]  # a bound class method
    async with keeping() as keeper:
        await supplied(keeper)

        def noting(kind: type[KeyMemory], size_bytes: int) -> KeyMemory:
            made.append(allocate(kind, size_bytes))
            return made[-1]

        monkeypatch.setattr(KeyMemory, "allocate", classmethod(noting))
        assert (await ours(keeper, "stage", staging(storeId=OTHER_STORE)))[0] == 400
        assert [each.wiped for each in made] == [True]


async def test_no_share_and_no_tag_reaches_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    async with keeping() as keeper:
        await supplied(keeper)
        await ours(keeper, "get", {"setId": SET})
        await keeper.call(NEXUS, SHARD)
        await ours(keeper, "stage", staging(storeId=OTHER_STORE))
        await keeper.call(NEXUS, CONTRIBUTE, {"shard": [1, 2]})
        await keeper.call(BOOTSTRAP, SHARD)
        assert TAG not in caplog.text
        for shard in (str(ONE)[1:-1], str(ONE)[1:-1].replace(" ", ""), bytes(ONE).hex()):
            assert shard not in caplog.text
        assert "refused_foreign" in caplog.text
        assert "denied" in caplog.text
