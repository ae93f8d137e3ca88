"""Nexus killed at every durable step of a change of slots: what opens afterwards is what the keyring in the store says.

A step is a write to the store or to the backup place; a killed Nexus does nothing more. Whatever the moment, one
password of each slot opens, from the store and from the place's copy, and all that was stored is there.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from lost_kit import PASSWORD, SECRETS, put
from nexus_kit import SUPERUSER, RunningNexus, running
from size import record, seed, size
from slot_kit import ALICE, OTHER, ask, give_slot
from spike.crypto.slot import Argon2Setting, SlotKey, derive_slot_secret
from spike.error import StoreUnavailableError
from spike.lifecycle import keyring
from spike.lifecycle.keyring import Keyring, Slot
from spike.nexus.place import Place
from spike.nexus.vault import KEYRING_ID
from spike.storage.protocol import Change, Revision, Store
from spike.storage.registry import open_store


class Killer:
    """Counts durable steps and lets Nexus die at one of them, before or after its effect."""

    def __init__(self, kill_at: int | None = None, *, after: bool = False) -> None:
        self.steps: list[str] = []
        self.armed = False
        self.is_dead = False
        self._kill_at = kill_at
        self._after = after

    def before(self, name: str) -> None:
        if self.is_dead:
            raise StoreUnavailableError("a dead Nexus writes nothing")
        if self.armed:
            self.steps.append(name)
            self.is_dead = len(self.steps) - 1 == self._kill_at
            if self.is_dead and not self._after:
                raise StoreUnavailableError("killed")

    def after(self) -> None:
        if self.is_dead:
            raise StoreUnavailableError("killed")


class MortalStore:
    """A store that a killed Nexus writes to no more, and whose last answer it does not see."""

    def __init__(self, store: Store, killer: Killer) -> None:
        self._store = store
        self._killer = killer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def apply(self, changes: Sequence[Change], *, fence: int | None) -> tuple[Revision, ...]:
        self._killer.before("store")
        done = await self._store.apply(changes, fence=fence)
        self._killer.after()
        return done


@pytest.fixture
def kill_places(monkeypatch: pytest.MonkeyPatch) -> Callable[[Killer], None]:
    """Make the writes to the backup place steps of a killer, too."""

    def let(killer: Killer) -> None:
        write = PLACE_WRITE

        def mortal(self: Place, path: Path, raw: bytes) -> None:
            killer.before(path.suffix)
            write(self, path, raw)
            killer.after()

        monkeypatch.setattr(Place, "_write", mortal)

    return let


PLACE_WRITE = Place._write


@contextlib.asynccontextmanager
async def nexus_in(directory: Path, killer: Killer | None = None) -> AsyncIterator[RunningNexus]:
    store = await open_store("sqlite", directory / "data")
    try:
        used: Any = store if killer is None else MortalStore(store, killer)
        born = killer is not None
        place = directory / "backup"
        async with running(
            store=used, place=place, born=born, password=PASSWORD if born else None
        ) as nexus:
            yield nexus
    finally:
        await store.close()


async def added(nexus: RunningNexus) -> None:
    await ask(nexus, "add", "bob", OTHER)


async def changed(nexus: RunningNexus) -> None:
    await ask(nexus, "change", "alice", OTHER)


async def removed(nexus: RunningNexus) -> None:
    await ask(nexus, "remove", "admin")


async def verified(nexus: RunningNexus) -> None:
    asked = {"slot": "alice", **await nexus.seal(SUPERUSER, ALICE)}
    await nexus.call(SUPERUSER, "/v1/backup?action=verify", asked)


Deed = Callable[[RunningNexus], Awaitable[None]]
BEFORE = {"admin": PASSWORD, "alice": ALICE}
DEEDS: dict[str, tuple[Deed, dict[str, bytes]]] = {
    "add": (added, {**BEFORE, "bob": OTHER}),
    "change-password": (changed, {**BEFORE, "alice": OTHER}),
    "remove": (removed, {"alice": ALICE}),
    "verify": (verified, BEFORE),
}


async def play(directory: Path, deed: Deed, killer: Killer) -> list[str]:
    """Do the deed and be killed in it."""
    async with nexus_in(directory, killer) as nexus:
        await put(nexus, "a", "1")
        await give_slot(nexus, "alice", ALICE)
        killer.armed = True
        await deed(nexus)
        killer.is_dead = True
    return killer.steps


def derived(document: Keyring, slot: Slot, password: bytes) -> bytes:
    """Return the public key a password gives for a slot."""
    setting = Argon2Setting.parse_untrusted(slot.argon2)
    with derive_slot_secret(password, slot.salt, setting) as secret:
        key = SlotKey.from_slot_secret(
            secret, bytes.fromhex(document.store_id), bytes.fromhex(slot.id)
        )
    key.wipe()
    return key.public


async def require_whole(directory: Path, after: dict[str, bytes]) -> bool:
    """Require that what the store's keyring names opens, as before the deed or as after it; tell whether as after."""
    async with nexus_in(directory) as nexus:
        stored = await nexus.store.get(KEYRING_ID)
        assert stored is not None
        document = keyring.decode_untrusted(stored.blob).hint
        names = {slot.name for slot in document.slots}
        changed_slot = next(s for s in document.slots if s.name in ("bob", "alice"))
        is_after = (
            names == set(after)
            and derived(document, changed_slot, after[changed_slot.name]) == changed_slot.public
        )
        passwords = after if is_after else BEFORE
        assert names == set(passwords)
        last = document.slots[-1].name
        status, told = await nexus.restore(passwords[last], slot=last)
        assert status == 200, told
        assert await nexus.call(SUPERUSER, f"{SECRETS}?action=get", {"path": "a"}) == (
            200,
            {"data": {"k": "1"}},
        )
        status, report = await nexus.call(SUPERUSER, "/v1/backup?action=verify")
        assert (status, report["good"]) == (200, True), report
        assert nexus.vault.opened.ring.mismatches() == ()
    return is_after


@pytest.mark.parametrize("name", DEEDS)
async def test_killed_anywhere_the_slots_open_and_nothing_is_lost(
    name: str, tmp_path: Path, kill_places: Callable[[Killer], None]
) -> None:
    deed, after = DEEDS[name]
    killer = Killer()
    kill_places(killer)
    steps = await play(tmp_path / "whole", deed, killer)
    assert steps[0] == "store", "nothing is written anywhere before the keyring"
    assert {".key-backup", ".anchor"} <= set(steps)
    points = [(number, late) for number in range(len(steps)) for late in (False, True)]
    # The write that counts, on both sides; all the others too in the proof.
    chosen = size(test=2, proof=len(points))
    chance = random.Random(seed())
    played = [*points[:2], *chance.sample(points[2:], chosen - 2)]
    outcomes = []
    for number, late in played:
        directory = tmp_path / f"{number}-{late}"
        killer = Killer(number, after=late)
        kill_places(killer)
        await play(directory, deed, killer)
        kill_places(Killer())
        outcomes.append(await require_whole(directory, after))
    if after != BEFORE:
        assert outcomes[:2] == [False, True], "the first write is the commit line"
        assert all(outcomes[1:])
    record(f"Nexus killed in backup slot: {name}", len(played), "the slots open; nothing lost")
