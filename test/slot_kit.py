"""Slots as tests ask for them over the wire."""

from __future__ import annotations

import secrets
from typing import Any

import lifecycle_kit
from nexus_kit import RECOVER, RunningNexus
from spike.crypto.slot import SlotKey, derive_slot_secret
from spike.lifecycle import slot_change
from spike.lifecycle.birth import NewSlot
from spike.lifecycle.slot_key import Act

SLOT = "/v1/backup/slot"
ALICE = b"wicker plume 41 glacier dune hatch"
OTHER = b"quartz ember 8 lantern moss fjord"


async def shown(
    nexus: RunningNexus, who: str, password: bytes, slot: str = "admin"
) -> dict[str, str]:
    """Return an existing slot's password as a request carries it."""
    sealed = await nexus.seal(who, password)
    return {
        "existingSlot": slot,
        "existingSession": sealed["session"],
        "existingPassword": sealed["sealedPassword"],
    }


async def ask(
    nexus: RunningNexus,
    action: str,
    slot: str,
    new: bytes | None = None,
    *,
    who: str = RECOVER,
    existing: tuple[str, bytes] | None = None,
    **more: object,
) -> Any:
    asked: dict[str, object] = {"slot": slot, **more}
    if existing is not None:
        asked |= await shown(nexus, who, existing[1], existing[0])
    if new is not None:
        asked |= await nexus.seal(who, new)
    return await nexus.call(who, f"{SLOT}?action={action}", asked)


async def refused(nexus: RunningNexus, reason: str, *given: Any, **more: Any) -> str:
    before = nexus.vault.opened.keyring_raw
    status, told = await ask(nexus, *given, **more)
    assert (status, told["err"]) == (400, f"refused_{reason}"), told
    assert nexus.vault.opened.keyring_raw == before, "what is refused changes nothing"
    return str(told["message"])


async def give_slot(nexus: RunningNexus, name: str, password: bytes) -> None:
    """Add a slot as the call does, without its child: for tests about what comes after it."""
    vault = nexus.vault
    document, root = vault.opened.document, vault.opened.ring.root
    slot_id, salt = secrets.token_hex(16), secrets.token_bytes(16)
    with derive_slot_secret(password, salt, lifecycle_kit.LEAST_ARGON2) as secret:
        key = SlotKey.from_slot_secret(
            secret, bytes.fromhex(document.store_id), bytes.fromhex(slot_id)
        )
    new = NewSlot(name, lifecycle_kit.LEAST_ARGON2.phc(), salt, key.public, key.auth)
    act = Act(vault.moment(), RECOVER, "a test")
    following = slot_change.added(document, root, slot_id, new, act)
    key_name = slot_change.next_key_name(document, slot_id)
    async with vault.lock:
        await vault.advance(vault.opened.ring.changed(following, {key_name: new.auth}))


def wait_a_minute(nexus: RunningNexus, slot_name: str) -> None:
    """Let so many wrong passwords have been tried that the next attempt on a slot has to wait for a minute."""
    slot = nexus.vault.opened.document.slot_named(slot_name)
    assert slot is not None
    for _ in range(10):
        nexus.restores.note_wrong(slot.id)
