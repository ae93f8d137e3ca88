"""Slots as tests ask for them over the wire."""

from __future__ import annotations

from typing import Any

from nexus_kit import RECOVER, RunningNexus

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
