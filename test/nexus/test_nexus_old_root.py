"""An old copy of the store, put back after its root key was replaced: nothing of it is believed before the first write.

Its own root key cannot confirm what Keepers, places and Pilot have seen since. Keepers, store and place are real.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from around_kit import PASSWORD, Around, Told, put, surroundings, value
from lost_kit import anchor_now
from nexus_kit import RECOVER, RESTORE, SUPERUSER, RunningNexus
from rotated_kit import Rotating, roll_back, rotate
from spike.error import StoreUnavailableError
from spike.lifecycle import anchor
from spike.lifecycle.keyring import Emergency, Scope
from spike.memory.key_memory import KeyMemory
from spike.nexus.keeper_recovery import recover
from spike.nexus.opened import Stop

STALE = (400, "refused_stale_store")


@pytest.fixture
async def around(tmp_path: Path) -> AsyncIterator[Around]:
    async with surroundings(tmp_path, 3, 2) as running:
        yield running


class Copies:
    """What a storage writer keeps: copies of the store, and of nothing else."""

    def __init__(self, around: Around) -> None:
        self._data = around.directory / "data"
        self._place = around.directory / "place"
        self._around = around

    def keep(self, name: str) -> None:
        shutil.copytree(self._data, self._data.with_suffix(f".{name}"))

    def put_back(self, name: str) -> None:
        shutil.rmtree(self._data)
        shutil.copytree(self._data.with_suffix(f".{name}"), self._data)

    def lose_place(self) -> None:
        shutil.rmtree(self._place)

    def anchor_in_place(self, store_id: str) -> Path:
        return self._place / f"spike-{store_id}.anchor"

    async def lose_anchors(self) -> None:
        """Let the Keepers forget everything."""
        for index in self._around.keepers:
            await self._around.restart(index)


async def until_idle(_rotating: Rotating) -> None:
    pass


async def until_prepared(rotating: Rotating) -> None:
    await rotating.prepare()


async def until_distributed(rotating: Rotating) -> None:
    await rotating.prepare()
    await rotating.distribute()


async def until_backed_up(rotating: Rotating) -> None:
    await until_distributed(rotating)
    await rotating.back_up()


COPIED: dict[str, Callable[[Rotating], Awaitable[None]]] = {
    "before the rotation": until_idle,
    "in phase prepared": until_prepared,
    "in phase distributed": until_distributed,
    "in phase backed-up": until_backed_up,
}
_STEPS = (Rotating.prepare, Rotating.distribute, Rotating.back_up, Rotating.flip)


async def lived_on(around: Around, copied: str, *, finalize: bool) -> tuple[bytes, dict[str, str]]:
    """Rotate, with a copy made on the way, and write; return Pilot's anchor and the recovery shards."""
    copies = Copies(around)
    async with around.nexus(born=True) as nexus:
        status, told = await nexus.call(RECOVER, "/v1/operator/recover")
        assert status == 200, told
        await put(nexus, "before")
        await nexus.keepers.look()
        rotating = Rotating(nexus)
        await COPIED[copied](rotating)
        copies.keep("old")
        done = list(COPIED).index(copied)
        for step in _STEPS[done:]:
            await step(rotating)
        await nexus.keepers.look()
        if finalize:
            await rotating.finalize()
        await put(nexus, "since")
        pilots = await anchor_now(nexus)
        shards: dict[str, str] = told["shards"]
    copies.put_back("old")
    return pilots, shards


async def restored_by_shards(
    nexus: RunningNexus, shards: dict[str, str], **more: object
) -> tuple[int, Any]:
    status, told = 0, None
    for index in list(shards)[: nexus.keepers.threshold]:
        asked = {"id": int(index), "shard": shards[index], **more}
        status, told = await nexus.call(RESTORE, "/v1/operator/restore", asked)
    return status, told


@pytest.mark.parametrize(
    ("copied", "finalize"), list(zip(COPIED, [True, False, True, False], strict=True))
)
async def test_an_old_copy_is_refused_by_whatever_way_its_root_key_comes_back(
    around: Around, copied: str, finalize: bool
) -> None:
    pilots, shards = await lived_on(around, copied, finalize=finalize)
    copies = Copies(around)
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers), "Keepers have no share of the root key before"
        status, told = await nexus.restore(PASSWORD)
        assert (status, told["err"]) == STALE, told
        assert "backup place" in told["message"]
        status, told = await restored_by_shards(nexus, shards)
        assert (status, told["err"]) == STALE, told
        assert not nexus.vault.is_open
    copies.lose_place()
    async with around.nexus() as nexus:
        status, told = await nexus.restore(PASSWORD)
        assert (status, told["err"]) == STALE, told
        assert "Keeper" in told["message"]
    copies.lose_place()
    await copies.lose_anchors()
    async with around.nexus() as nexus:
        seen = {"anchor": base64.b64encode(pilots).decode()}
        status, told = await nexus.restore(PASSWORD, anchor=pilots)
        assert (status, told["err"]) == STALE, told
        assert "handed in" in told["message"]
        assert "generation 2" in told["message"]
        assert "--accept-older-store" in told["nextStep"]
        status, told = await restored_by_shards(nexus, shards, **seen)
        assert (status, told["err"]) == STALE, told


async def test_a_person_can_go_on_with_an_old_copy_and_every_anchor_holds_against_it(
    around: Around,
) -> None:
    pilots, _ = await lived_on(around, "before the rotation", finalize=True)
    async with around.nexus() as nexus:
        status, told = await nexus.restore(PASSWORD, anchor=pilots, accept_older=True)
        assert status == 200, told
        seen = anchor.decode_untrusted(pilots)
        assert nexus.vault.opened.document.epoch > seen.epoch
        assert nexus.vault.opened.document.active_root.number == 1
        assert await value(nexus, "before") == "before"
        assert ["a rotation is due" in each for each in told["remarks"]] == [True]
        status, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert any("a rotation is due" in each for each in told["remarks"])
    async with around.nexus() as nexus:
        assert (await nexus.restore(PASSWORD, anchor=pilots))[0] == 200, "no objection is left"
        assert nexus.vault.opened.document.rotation_due, "until there are fresh keys"
        await Rotating(nexus, scope=Scope.FULL).to_flip()
        assert not nexus.vault.opened.document.rotation_due
        status, told = await nexus.call(SUPERUSER, "/v1/operator/status")
        assert not any("a rotation is due" in each for each in told.get("remarks") or [])


@pytest.mark.parametrize(("copied", "finalize"), [("before", True), ("between", False)])
async def test_a_rollback_in_between_does_not_make_an_old_copy_good(
    around: Around, copied: str, finalize: bool
) -> None:
    """The same root key is active in the copy of before and in the living store."""
    copies = Copies(around)
    async with around.nexus(born=True) as nexus:
        copies.keep("before")
        await rotate(nexus)
        await put(nexus, "between")
        copies.keep("between")
        await roll_back(nexus, finalize=finalize)
        await put(nexus, "since")
        pilots = await anchor_now(nexus)
    copies.put_back(copied)
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        status, told = await nexus.restore(PASSWORD)
        assert (status, told["err"]) == STALE, told
    copies.lose_place()
    await copies.lose_anchors()
    async with around.nexus() as nexus:
        status, told = await nexus.restore(PASSWORD, anchor=pilots)
        assert (status, told["err"]) == STALE, told
        # The root key of what came after is at hand in both copies: it is proven, not told.
        assert "no root key at hand" not in told["message"]


async def test_keepers_that_have_not_committed_open_no_writes_and_a_place_stops_what_they_bring_back(
    around: Around,
) -> None:
    """Killed right after the flip: they still hold committed shares of the root key before."""
    copies = Copies(around)
    away = False

    async def before(_index: int, action: str) -> None:
        if away and action == "commit":
            raise StoreUnavailableError("the call is lost")

    around.before = before
    async with around.nexus(born=True) as nexus:
        rotating = Rotating(nexus)
        await until_backed_up(rotating)
        copies.keep("old")
        away = True
        copies.lose_place()
        await rotating.flip()
        await nexus.keepers.look()
        kept = [each.safe.holding.anchor for each in around.keepers.values()]
        assert [each.raw for each in kept if each] == [nexus.vault.opened.anchor_raw()] * 3
        assert Stop.NO_ANCHOR in nexus.vault.stops, "each keeps the anchor, and gives the old share"
        assert not nexus.vault.guard.is_anchored
        for state in nexus.vault.places:
            state.place.prepare()
        await nexus.vault.renew_places()
        assert nexus.vault.guard.is_anchored
        await put(nexus, "since")
    copies.keep("new")
    copies.put_back("old")
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        assert "a backup place's anchor" in nexus.keepers.waits_for
        assert "old copy" in nexus.keepers.waits_for
    copies.put_back("new")
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers), "what is staged brings the living store back"
        away = False
        await nexus.keepers.look()
        assert await value(nexus, "since") == "since"
        shutil.rmtree(around.directory / "place")
        await nexus.vault.renew_places()
        await nexus.keepers.look()
        await nexus.keepers.look()
        await put(nexus, "later")


async def test_a_rollback_that_was_killed_before_the_keepers_committed_comes_back_by_itself(
    around: Around,
) -> None:
    """All of them say that they hold a share of the higher generation: it is the one that was gone back from."""
    away = False

    async def before(_index: int, action: str) -> None:
        if away and action == "commit":
            raise StoreUnavailableError("the call is lost")

    around.before = before
    async with around.nexus(born=True) as nexus:
        await rotate(nexus)
        away = True
        await roll_back(nexus)
        held = [each.safe.holding.committed for each in around.keepers.values()]
        assert [each.label.generation for each in held if each] == [2, 2, 2]
        await put(nexus, "a")
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers), nexus.keepers.waits_for
        assert nexus.vault.opened.document.active_root.number == 1
        assert await value(nexus, "a") == "a"


async def test_an_anchor_of_a_root_key_that_has_ended_says_nothing(around: Around) -> None:
    """Whoever learned it, because it had leaked, may say with it what he likes."""
    async with around.nexus(born=True) as nexus:
        rotating = Rotating(nexus, emergency=Emergency(("root",)))
        honest = await anchor_now(nexus)
        statement = anchor.decode_untrusted(honest)
        forged = anchor.encode(
            msgspec.structs.replace(statement, epoch=1 << 40), nexus.vault.opened.ring.root
        )
        await rotating.to_flip()
        store_id = nexus.vault.opened.document.store_id
    for said in (honest, forged):
        async with around.nexus() as nexus:
            Copies(around).anchor_in_place(store_id).write_bytes(said)
            assert await recover(nexus.keepers), nexus.keepers.waits_for
        async with around.nexus() as nexus:
            Copies(around).anchor_in_place(store_id).write_bytes(said)
            status, told = await nexus.restore(PASSWORD, anchor=said)
            assert status == 200, told


def made_up(nexus: RunningNexus, **changed: object) -> bytes:
    """Return an anchor of a root key that never was, far beyond the store."""
    told = {"generation": 9, "epoch": 9, **changed}
    statement = msgspec.structs.replace(
        anchor.decode_untrusted(nexus.vault.opened.anchor_raw()), **told
    )
    with KeyMemory.generate() as guess:
        return anchor.encode(statement, guess)


def shows(raw: bytes) -> Callable[[str, Told], Told]:
    def lie(action: str, told: Told) -> Told:
        if action != "status":
            return told
        return {**told, "anchor": base64.b64encode(raw).decode()}

    return lie


@pytest.mark.parametrize("changed", [{}, {"lineage": "f" * 32}], ids=["beyond", "another lineage"])
async def test_a_made_up_anchor_gains_a_keeper_no_more_than_a_lie_about_its_share(
    around: Around, changed: dict[str, object]
) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        raw = made_up(nexus, **changed)
    around.lies[3] = shows(raw)
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers), "one liar keeps no root key away"
        await nexus.keepers.look()
        assert Stop.OVERTAKEN not in nexus.vault.stops, "and stops no writes"
        assert any("Keeper 3" in remark for remark in nexus.keepers.remarks)
        await put(nexus, "a")
    around.lies[2] = shows(raw)
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        assert "no root key at hand confirms" in nexus.keepers.waits_for
        status, told = await nexus.restore(PASSWORD)
        assert status == 400, told
        status, told = await nexus.restore(PASSWORD, accept_older=True)
        assert status == 200, told
        assert nexus.vault.opened.document.epoch <= 10
        await nexus.keepers.look()
        stopped = Stop.OVERTAKEN in nexus.vault.stops
        assert stopped == ("lineage" in changed), "what was gone beyond stands against it no more"


async def test_a_made_up_anchor_in_a_backup_place_stops_what_nobody_watches(
    around: Around,
) -> None:
    async with around.nexus(born=True) as nexus:
        await put(nexus, "a")
        store_id = nexus.vault.opened.document.store_id
        raw = made_up(nexus, epoch=1 << 62)
    Copies(around).anchor_in_place(store_id).write_bytes(raw)
    async with around.nexus() as nexus:
        assert not await recover(nexus.keepers)
        assert "a backup place's anchor" in nexus.keepers.waits_for
        status, told = await nexus.restore(PASSWORD)
        assert (status, told["err"]) == STALE, told
        status, told = await nexus.restore(PASSWORD, accept_older=True)
        assert status == 200, told
        assert nexus.vault.opened.document.epoch == 2, "what no store comes to is not followed"
    async with around.nexus() as nexus:
        assert await recover(nexus.keepers), "the restore has put a true anchor in its place"


async def test_keepers_that_keep_anchors_of_a_root_key_unknown_here_stop_the_writes_of_a_nexus(
    around: Around,
) -> None:
    """A second Nexus has rotated meanwhile; this one has not noticed yet."""
    async with around.nexus(born=True, place=False) as nexus:
        await put(nexus, "a")
        raw = made_up(nexus)
        around.lies |= {1: shows(raw), 2: shows(raw)}
        await nexus.keepers.look()
        assert Stop.OVERTAKEN in nexus.vault.stops


async def test_a_key_backup_of_an_earlier_root_key_does_not_replace_a_newer_keyring_unnoticed(
    around: Around, tmp_path: Path
) -> None:
    """The record key stayed, so the older backup opens all that the store holds."""
    kept = tmp_path / "kept.key-backup"
    async with around.nexus(born=True) as nexus:
        path = (
            around.directory / "place" / f"spike-{nexus.vault.opened.document.store_id}.key-backup"
        )
        shutil.copy(path, kept)
        await rotate(nexus, finalize=True)
        await put(nexus, "since")
    Copies(around).lose_place()
    await Copies(around).lose_anchors()
    async with around.nexus() as nexus:
        status, told = await nexus.restore(PASSWORD, backup=kept.read_bytes())
        assert (status, told["err"]) == STALE, told
        assert "the store's own keyring" in told["message"]
        status, told = await nexus.restore(PASSWORD)
        assert status == 200, told
        assert await value(nexus, "since") == "since"


@pytest.mark.parametrize(
    ("way", "begins"),
    [("password", "it begins"), ("shards", "it cannot begin"), ("password", "it fails")],
)
async def test_after_an_accepted_older_store_a_rotation_begins_or_is_told_to_be_due(
    around: Around, way: str, begins: str
) -> None:
    pilots, shards = await lived_on(around, "before the rotation", finalize=False)
    reasons = []

    async def begin(reason: str) -> str | None:
        reasons.append(reason)
        # Whoever begins one takes the vault's lock.
        async with nexus.vault.lock:
            if begins == "it fails":
                raise StoreUnavailableError("the store does not answer")
            return "5" * 32 if begins == "it begins" else None

    async with around.nexus() as nexus:
        nexus.restores.begin_rotation = begin
        if way == "password":
            status, told = await nexus.restore(PASSWORD, anchor=pilots, accept_older=True)
        else:
            seen = {"anchor": base64.b64encode(pilots).decode(), "acceptOlderStore": True}
            status, told = await restored_by_shards(nexus, shards, **seen)
        assert status == 200, told
        assert reasons == ["an older copy of the store was accepted"]
        assert len(told["remarks"]) == 1
        said = "rotation " + "5" * 32 if begins == "it begins" else "spike key rotate"
        assert said in told["remarks"][0]
        assert await value(nexus, "before") == "before"
    async with around.nexus() as nexus:
        nexus.restores.begin_rotation = begin
        status, told = await nexus.restore(PASSWORD)
        assert status == 200, told
        assert len(reasons) == 2, "as long as it is due"
