"""The shell does its steps in the order of the model, and takes the model's cares.

A care that the shell does not take yet stands as a test that is expected to fail; who adds it takes the mark away.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

from around_kit import PASSWORD, surroundings
from model.keeper_shell import shell
from nexus_kit import SUPERUSER, running
from spike.error import SpikeError, StoreUnavailableError
from spike.lifecycle.refresh import set_in_force
from spike.nexus.keeper_refresh import refresh
from spike.nexus.opened import Stop
from spike.nexus.vault import KEYRING_ID
from spike.storage.memory import MemoryStore
from spike.storage.protocol import Change, Put, Record, RecordId, Revision


async def test_a_refresh_and_the_look_after_it_have_the_effects_of_the_model_in_its_order(
    tmp_path: Path,
) -> None:
    async with shell(tmp_path) as made:
        await refresh(made.desk, "test", least=3)
        await made.desk.look()
        # The model leaves out the anchor between begin and stage, and the events' keyring: neither decides anything.
        assert made.effects.told == [
            *["look"] * 3,
            "keyring begun",
            "place",
            *["stage", "look", "get"] * 3,
            "keyring whole with events",
            "keyring whole",
            "place",
            *["look", "commit", "look"] * 3,
        ]


async def test_a_refresh_that_fails_drops_its_set_in_the_keyring_before_it_erases(
    tmp_path: Path,
) -> None:
    async with shell(tmp_path) as made:

        async def fail(effect: str, index: int) -> None:
            if (effect, index) == ("get", 3):
                raise StoreUnavailableError("it does not answer")

        made.effects.before = fail
        with contextlib.suppress(SpikeError):
            await refresh(made.desk, "test", least=3)
        told = [each for each in made.effects.told if each != "place"]
        assert told[-5:] == ["keyring whole with events", "keyring whole", *["erase"] * 3]


async def test_an_empty_keeper_has_the_anchor_before_it_has_its_share(tmp_path: Path) -> None:
    async with shell(tmp_path) as made:
        first = made.keepers[0]
        first.holding = type(first.holding)()
        anchored: list[bool] = []

        async def note(effect: str, index: int) -> None:
            if effect == "stage":
                anchored.append(first.holding.anchor is not None)

        made.effects.before = note
        await made.desk.look()
        assert anchored == [True]
        assert first.holding.committed is not None


async def test_writes_wait_until_a_change_of_keys_has_its_anchor(tmp_path: Path) -> None:
    async with shell(tmp_path) as made:
        begun = made.vault.opened.document.epoch
        anchored: list[bool] = []

        def note() -> None:
            if made.vault.opened.document.epoch > begun:
                anchored.append(made.vault.guard.is_anchored)

        made.effects.at_place = note
        await refresh(made.desk, "test", least=3)
        assert anchored
        assert not any(anchored)
        assert made.vault.guard.is_anchored


async def test_without_a_place_writes_wait_for_the_keepers() -> None:
    async with shell(None) as made:
        await refresh(made.desk, "test", least=3)
        assert made.vault.stops
        await made.desk.look()
        assert not made.vault.stops


async def test_a_look_that_began_before_a_refresh_takes_nothing_of_it_away(tmp_path: Path) -> None:
    async with shell(tmp_path) as made:
        came, staged, looked = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def interleave(effect: str, index: int) -> None:
            if (effect, index) == ("look", 1) and not came.is_set():
                came.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(staged.wait(), 1)
            if effect == "keyring whole with events":
                staged.set()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(looked.wait(), 1)

        made.effects.before = interleave
        looking = asyncio.create_task(made.desk.look())
        looking.add_done_callback(lambda _: looked.set())
        await came.wait()
        await asyncio.gather(looking, refresh(made.desk, "test", least=3))
        in_force = set_in_force(made.vault.opened.document)
        assert in_force is not None
        assert made.holders(in_force.id) == 3


async def test_a_look_says_nothing_of_an_anchor_that_it_did_not_give(tmp_path: Path) -> None:
    async with shell(tmp_path) as made:

        def fail() -> None:
            raise StoreUnavailableError("the place is full")

        async def change(effect: str, index: int) -> None:
            if (effect, index) == ("look", 1):
                made.effects.before = lambda *_: asyncio.sleep(0)
                ring = made.vault.opened.ring
                document = ring.document
                later = msgspec.structs.replace(
                    document, epoch=document.epoch + 1, revision=document.revision + 1
                )
                made.effects.at_place = fail
                await made.vault.advance(ring.replaced(later))
                assert made.vault.stops

        made.effects.before = change
        await made.desk.look()
        assert Stop.NO_ANCHOR in made.vault.stops


async def test_a_second_refresh_erases_no_share_of_the_set_in_force(tmp_path: Path) -> None:
    async with shell(tmp_path) as made:
        await refresh(made.desk, "test", least=3)
        in_force = set_in_force(made.vault.opened.document)
        assert in_force is not None
        least: list[int] = []

        async def note(effect: str, index: int) -> None:
            if effect == "get":
                least.append(made.holders(in_force.id))

        made.effects.before = note
        await refresh(made.desk, "test", least=2)
        assert least == [3, 3, 3]


async def test_a_keeper_that_spoils_each_refresh_does_not_keep_the_others_without_shares(
    tmp_path: Path,
) -> None:
    async with shell(tmp_path) as made:
        made.desk.adopt(None)

        async def spoil(effect: str, index: int) -> None:
            if (effect, index) == ("get", 3):
                raise StoreUnavailableError("it does not give it back")

        made.effects.before = spoil
        for _ in range(3):
            with contextlib.suppress(SpikeError):
                await refresh(made.desk, "nexus", least=2)
        assert made.desk.held is not None


async def test_who_has_a_share_of_a_finished_refresh_has_the_anchor(tmp_path: Path) -> None:
    async with shell(tmp_path) as made:
        first = made.keepers[0]
        first.holding = type(first.holding)()
        await refresh(made.desk, "test", least=3)
        assert first.holding.staged is not None
        assert first.holding.anchor is not None


async def test_a_change_of_rights_that_nobody_could_prove_is_not_acknowledged(
    tmp_path: Path,
) -> None:
    async with surroundings(tmp_path, 3, 2) as around, around.nexus(born=True) as nexus:
        shutil.rmtree(tmp_path / "place")
        await nexus.vault.renew_places()
        await nexus.keepers.look()
        assert not nexus.vault.stops
        policy = {
            "name": "p",
            "spiffeidPattern": "^spiffe://spike.ist/x$",
            "pathPattern": "^x$",
            "permissions": ["read"],
        }
        status, _ = await nexus.call(SUPERUSER, "/v1/acl/policy", policy)
        assert status != 200 or not nexus.vault.stops


class DoubtfulStore(MemoryStore):
    """A store that takes the keyring and does not answer any more."""

    in_doubt = False

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        revisions = await super().apply(changes, fence=fence)
        if any(isinstance(change, Put) and change.id == KEYRING_ID for change in changes):
            self.in_doubt = True
            raise StoreUnavailableError("the answer is lost")
        return revisions

    async def get(self, id: RecordId) -> Record | None:  # noqa: A002 - the field's own name
        if self.in_doubt:
            raise StoreUnavailableError("it does not answer")
        return await super().get(id)


async def test_an_init_in_doubt_leaves_the_shares_where_they_are(tmp_path: Path) -> None:
    store = DoubtfulStore()
    async with (
        surroundings(tmp_path, 3, 2) as around,
        running(store=store, ca=around.ca, born=False, keepers=around.setting) as nexus,
    ):
        asked = {**await nexus.seal(SUPERUSER, PASSWORD), "slotName": "ada"}
        status, _ = await nexus.call(SUPERUSER, "/v1/operator/init", asked)
        assert status != 200
        store.in_doubt = False
        if await store.get(KEYRING_ID) is not None:
            assert all(keeper.staged_set for keeper in around.keepers.values())
