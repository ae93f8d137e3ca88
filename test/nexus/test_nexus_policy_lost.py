"""Policies in a store that loses answers: what was written counts, and no change is stuck behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from lost_kit import POLICIES, SECRETS, WEB, put
from nexus_kit import SUPERUSER, WORKLOAD, RunningNexus, running
from proxy_store import Proxy
from spike.error import StoreUnavailableError
from spike.nexus.policy_book import ACCESS_LIST_ID
from spike.storage.protocol import Change, Put, Revision
from spike.storage.registry import open_store

UNAVAILABLE = 503


class ForgetfulStore(Proxy):
    """A store that loses the answer to writes of the access list.

    `loses`: the write is done and the answer lost; `late`: it is done only at the next write; `mute`: it answers no
    read of the access list.
    """

    def __init__(self, store: Any) -> None:
        super().__init__(store)
        self.loses = self.late = self.mute = False
        self._waiting: tuple[Sequence[Change], int | None] | None = None

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        if not any(isinstance(each, Put) and each.id == ACCESS_LIST_ID for each in changes):
            revisions: tuple[Revision, ...] = await self.real.apply(changes, fence=fence)
            return revisions
        if self._waiting is not None:
            before, before_fence = self._waiting
            self._waiting = None
            await self.real.apply(before, fence=before_fence)
        if self.late:
            self._waiting = (changes, fence)
            raise StoreUnavailableError("the answer is lost")
        revisions = await self.real.apply(changes, fence=fence)
        if self.loses:
            raise StoreUnavailableError("the answer is lost")
        return revisions

    async def get(self, id: Any) -> Any:  # noqa: A002 - the field's own name
        if self.mute and id == ACCESS_LIST_ID:
            raise StoreUnavailableError("it does not answer")
        return await self.real.get(id)


async def may_read(nexus: RunningNexus) -> bool:
    status, _ = await nexus.call(WORKLOAD, f"{SECRETS}?action=get", {"path": "a"})
    assert status in {200, 401}
    return status == 200


async def delete(nexus: RunningNexus) -> int:
    return (await nexus.call(SUPERUSER, f"{POLICIES}?action=delete", {"id": "web"}))[0]


@pytest.mark.parametrize("what", ["the answer", "the answer and the look", "the write for a while"])
async def test_a_right_that_was_taken_away_ends_though_an_answer_was_lost(
    tmp_path: Path, what: str
) -> None:
    store = await open_store("memory", tmp_path)
    forgetful = ForgetfulStore(store)
    async with running(store=forgetful) as nexus:
        await put(nexus, "a", "1")
        assert (await nexus.call(SUPERUSER, POLICIES, WEB))[0] == 200
        assert await may_read(nexus)
        match what:
            case "the answer":
                forgetful.loses = True
                assert await delete(nexus) == 200
                assert not await may_read(nexus)
                forgetful.loses = False
            case "the answer and the look":
                forgetful.loses = forgetful.mute = True
                assert await delete(nexus) == UNAVAILABLE
                assert await delete(nexus) == UNAVAILABLE
                forgetful.loses = forgetful.mute = False
                turn = nexus.vault.guard.turn
                assert await delete(nexus) == 404, "it is gone"
                assert nexus.vault.guard.turn > turn, "an old copy could pass for the present store"
            case _:
                forgetful.late = True
                assert await delete(nexus) == UNAVAILABLE
                forgetful.late = False
                assert await delete(nexus) == UNAVAILABLE, "the earlier one came first"
        assert not await may_read(nexus)
        for permission in ("read", "write"):
            asked = {**WEB, "permissions": [permission]}
            assert (await nexus.call(SUPERUSER, POLICIES, asked))[0] == 200
        assert await delete(nexus) == 200
    await store.close()


async def test_a_change_that_was_not_written_changes_nothing(tmp_path: Path) -> None:
    store = await open_store("memory", tmp_path)
    forgetful = ForgetfulStore(store)
    async with running(store=forgetful) as nexus:
        await put(nexus, "a", "1")
        assert (await nexus.call(SUPERUSER, POLICIES, WEB))[0] == 200
        forgetful.late = True
        assert await delete(nexus) == UNAVAILABLE
        assert await may_read(nexus)
        forgetful._waiting = None  # it never comes
        forgetful.late = False
        assert await delete(nexus) == 200
        assert not await may_read(nexus)
    await store.close()
