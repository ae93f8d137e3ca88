"""Rehearsals with real Keepers: what they try, what they find, and that they change nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from around_kit import PASSWORD, Around, Told, eventually, put, surroundings
from nexus_kit import RESTORE, SUPERUSER, RunningNexus
from spike.lifecycle.proof import Outcome
from spike.nexus.keeper_refresh import refresh
from spike.nexus.rehearsal import ProofLoop
from spike.storage.protocol import Kind, Put, Record

REHEARSE = "/v1/keeper?action=rehearse"


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    async with surroundings(tmp_path, 3, 2) as made:
        yield made


async def everything(nexus: RunningNexus) -> list[Record]:
    kinds = {kind for kind, _ in await nexus.store.census()}
    found: list[Record] = []
    for kind in sorted(kinds):
        found += (await nexus.store.scan(Kind(kind), "", None, 1000)).items
    return found


async def rehearse(nexus: RunningNexus) -> dict[str, Any]:
    status, told = await nexus.call(SUPERUSER, REHEARSE)
    assert status == 200, told
    return dict(told)


async def test_every_choice_of_shares_is_tried_and_nothing_is_changed(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        before = await everything(nexus)
        told = await rehearse(nexus)
        assert told["outcome"] == "succeeded"
        assert (told["right"], told["members"], told["margin"], told["choices"]) == (3, 3, 1, 3)
        assert told["keys"] == 4
        kinds = {record.id.kind for record in before} - {"keyring"}
        assert told["records"] == len(kinds)
        assert told["problems"] == []
        assert await everything(nexus) == before
        _, status = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert status["rehearsal"] == told


async def test_one_keeper_less_is_named_and_takes_a_margin(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await around.stop(2)
        told = await rehearse(nexus)
        assert (told["outcome"], told["right"], told["margin"], told["choices"]) == (
            "succeeded",
            2,
            0,
            1,
        )
        assert any(problem.startswith("Keeper 2 gives no share") for problem in told["problems"])


async def test_a_wrong_share_is_named_and_the_others_still_give_the_key(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        around.lies[3] = _another_share
        told = await rehearse(nexus)
        assert (told["outcome"], told["right"]) == ("succeeded", 2)
        assert told["problems"] == ["Keeper 3 gives a share that is not the one it was dealt"]


def _another_share(action: str, told: Told) -> Told:
    return {**told, "shard": [7] * 32} if action == "get" else told


async def test_too_few_fail_and_are_noted_once_and_so_is_that_they_are_back(
    around: Around,
) -> None:
    async with around.nexus(born=True) as nexus:
        for index in (1, 2):
            await around.restart(index)
        for _ in range(2):
            told = await rehearse(nexus)
            assert (told["outcome"], told["right"], told["margin"]) == ("failed", 1, -1)
        proof = nexus.vault.opened.document.proof
        assert proof is not None
        assert proof.rehearsal is not None
        await nexus.keepers.look()
        assert (await rehearse(nexus))["outcome"] == "succeeded"
        assert nexus.vault.opened.document.proof is None
        _, history = await nexus.call(SUPERUSER, "/v1/key?action=history", {})
        noted = [each for each in history["events"] if each["kind"] == "rehearsal"]
        assert [each["detail"]["outcome"] for each in noted] == ["failed", "succeeded"]
        assert "Keeper 1 holds no share" in noted[0]["detail"]["problems"]


async def test_a_store_that_the_key_does_not_open_fails_it(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        (record,) = (await nexus.store.scan(Kind("secret"), "", None, 10)).items
        await spoil(nexus, record)
        told = await rehearse(nexus)
        assert told["outcome"] == "failed"
        assert "does not open what the store holds" in told["problems"][-1]


async def spoil(nexus: RunningNexus, record: Record) -> None:
    """Write one wrong byte into a record, as whoever writes the store can."""
    blob = bytearray(record.blob)
    blob[-1] ^= 1
    change = Put(record.id, bytes(blob), record.generation, record.revision)
    await nexus.store.apply((change,), fence=None)


async def test_it_starts_again_when_the_keys_are_changed_meanwhile(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        refreshed: list[int] = []

        async def before(index: int, action: str) -> None:
            if action == "get" and index == 1 and not refreshed:
                refreshed.append(index)
                status, told = await nexus.call(SUPERUSER, "/v1/keeper?action=refresh")
                assert status == 200, told

        around.before = before
        told = await rehearse(nexus)
        assert refreshed
        assert told["outcome"] == "succeeded"
        assert (told["right"], told["problems"]) == (3, [])


async def test_keys_that_never_rest_say_nothing(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        count = 0

        async def before(index: int, action: str) -> None:
            nonlocal count
            if action == "get" and index == 1:
                around.before = None
                count += 1
                assert (await nexus.call(SUPERUSER, "/v1/keeper?action=refresh"))[0] == 200
                around.before = before

        around.before = before
        told = await rehearse(nexus)
        assert (told["outcome"], count) == ("interrupted", 5)
        assert nexus.vault.opened.document.proof is None


async def test_it_is_done_by_itself_once_and_after_each_change(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        await nexus.rehearser.run_if_due()
        first = nexus.rehearser.last
        assert first is not None
        assert first.outcome is Outcome.SUCCEEDED
        await nexus.rehearser.run_if_due()
        assert nexus.rehearser.last is first
        assert (await nexus.call(SUPERUSER, "/v1/keeper?action=refresh"))[0] == 200
        await nexus.rehearser.run_if_due()
        assert nexus.rehearser.last is not first


async def test_the_loop_rehearses(around: Around) -> None:
    async with around.nexus(born=True) as nexus:
        loop = asyncio.create_task(ProofLoop(nexus.rehearser.run_if_due, 0.01).run())
        await eventually(lambda: nexus.rehearser.last is not None)
        loop.cancel()
        await asyncio.wait([loop])


@contextlib.asynccontextmanager
async def rehearsing(nexus: RunningNexus) -> AsyncIterator[None]:
    """Rehearse by itself on news of the Keepers alone."""
    loop = asyncio.create_task(
        ProofLoop(nexus.rehearser.run_if_due, 3600, nexus.keepers.looked).run()
    )
    try:
        yield
    finally:
        loop.cancel()
        await asyncio.wait([loop])


def right(nexus: RunningNexus) -> int | None:
    """Return how many shares were right in the last rehearsal, if that succeeded."""
    last = nexus.rehearser.last
    return last.right if last is not None and last.outcome is Outcome.SUCCEEDED else None


async def test_it_is_done_again_as_soon_as_keepers_have_their_shares_after_a_recovery(
    around: Around,
) -> None:
    async with around.nexus(born=True):
        pass
    for index in around.keepers:
        await around.restart(index)
    async with around.nexus(unattended=True) as nexus, rehearsing(nexus):
        assert (await nexus.restore(PASSWORD))[0] == 200
        await eventually(lambda: right(nexus) == 3)
        first = nexus.rehearser.last
        await around.restart(2)
        await eventually(lambda: nexus.rehearser.last is not first and right(nexus) == 3)
        await around.stop(2)
        assert (await nexus.rehearser.run()).right == 2
        await around.restart(2)
        await eventually(lambda: right(nexus) == 3)


async def test_it_waits_until_the_keepers_have_committed_what_a_refresh_gave_them(
    around: Around,
) -> None:
    async with around.nexus(born=True) as nexus:
        await nexus.rehearser.run_if_due()
        first = nexus.rehearser.last
        await refresh(nexus.keepers, SUPERUSER, least=2)
        await nexus.rehearser.run_if_due()
        assert nexus.rehearser.last is first
        await nexus.keepers.look()
        await nexus.rehearser.run_if_due()
        assert nexus.rehearser.last is not first
        assert right(nexus) == 3


async def test_without_keepers_it_is_refused_and_for_others_denied(tmp_path: Path) -> None:
    async with surroundings(tmp_path, 0, 2) as around, around.nexus(born=True) as nexus:
        status, told = await nexus.call(SUPERUSER, REHEARSE)
        assert (status, told["err"]) == (400, "refused_keeper")
        assert (await nexus.call(RESTORE, REHEARSE))[0] == 401
