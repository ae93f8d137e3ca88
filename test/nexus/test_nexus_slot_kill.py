"""Nexus killed at every durable step of a change of slots: what opens afterwards is what the keyring in the store says.

Whatever the moment, one password of each slot opens, from the store and from the place's copy, and all that was stored
is there.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from killer_kit import NEXUS, Killer, Victim, nexus_on
from lost_kit import PASSWORD, SECRETS, put
from nexus_kit import SUPERUSER, RunningNexus
from size import record, seed, size
from slot_kit import ALICE, OTHER, ask, give_slot
from spike.crypto.slot import Argon2Setting, SlotKey, derive_slot_secret
from spike.lifecycle import keyring
from spike.lifecycle.keyring import Keyring, Slot
from spike.nexus.vault import KEYRING_ID


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


async def play(
    directory: Path, deed: Deed, kill_at: int | None, victim: Victim = Victim.NEXUS_BEFORE
) -> list[str]:
    """Do the deed and be killed in it, or behind it. Return the names of the steps."""
    killer = Killer()
    async with nexus_on(directory, killer, password=PASSWORD) as nexus:
        await put(nexus, "a", "1")
        await give_slot(nexus, "alice", ALICE)
        killer.aim(kill_at, victim)
        await deed(nexus)
        killer.nexus_is_dead = True
    return [step.name for step in killer.steps]


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
    async with nexus_on(directory, Killer()) as nexus:
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
    name: str, tmp_path: Path
) -> None:
    deed, after = DEEDS[name]
    steps = await play(tmp_path / "whole", deed, None)
    assert steps[0] == "a write to the store", "nothing is written anywhere before the keyring"
    assert {f"a write of {each} to the place" for each in ("key-backup", "anchor")} <= set(steps)
    cases = [(number, victim) for number in range(len(steps)) for victim in NEXUS]
    # The write that counts, on both sides; all the others too in the proof.
    chosen = size(test=2, proof=len(cases))
    chance = random.Random(seed())
    played = [*cases[:2], *chance.sample(cases[2:], chosen - 2)]
    outcomes = []
    for number, victim in played:
        directory = tmp_path / f"{number}-{victim.name}"
        await play(directory, deed, number, victim)
        outcomes.append(await require_whole(directory, after))
    if after != BEFORE:
        assert outcomes[:2] == [False, True], "the first write is the commit line"
        assert all(outcomes[1:])
    record(f"Nexus killed in backup slot: {name}", len(played), "the slots open; nothing lost")
