"""Who outside the store remembers how far it had been: what a Keeper says of itself. Nothing here is authenticated."""

from __future__ import annotations

from typing import NamedTuple


class Claim(NamedTuple):
    """What a Keeper says it has committed. Its word alone: only an anchor or a rebuilt root key proves anything."""

    store_id: str
    lineage: str
    epoch: int
    generation: int
    set_id: str


class Witness(NamedTuple):
    """One Keeper that answered: its name for messages, the anchor it keeps, what it says it holds."""

    name: str
    anchor: bytes | None
    claim: Claim | None
