"""The Keepers of one `spike dev`: how many, who they are, where they listen. And what they can do for Nexus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from spike.pilot.dev.machine import HOST
from spike.wire.own import StatusAnswer

COUNT: Final = 3
THRESHOLD: Final = 2
KEEPER_ID: Final = "spiffe://spike.ist/spike/keeper"

CURRENT: Final = "current"


@dataclass(frozen=True, slots=True)
class KeeperSite:
    """One Keeper: its share's index, and its port on this machine."""

    index: int
    port: int

    @property
    def name(self) -> str:
        """What people call it."""
        return f"Keeper {self.index}"

    @property
    def spiffe_id(self) -> str:
        """Its identity, which no other process has."""
        return f"{KEEPER_ID}/{self.index}"

    @property
    def peer(self) -> str:
        """What Nexus is told: where it listens, and who must answer there."""
        return f"https://{HOST}:{self.port}#{self.spiffe_id}"


def sites_at(ports: Iterable[int]) -> tuple[KeeperSite, ...]:
    """Return the Keepers that listen on these ports, in the order of their indexes."""
    return tuple(KeeperSite(index, port) for index, port in enumerate(ports, 1))


def nexus_variables(sites: Sequence[KeeperSite]) -> dict[str, str]:
    """Return what Nexus is told of its Keepers."""
    return {
        "SPIKE_NEXUS_KEEPER_PEERS": ",".join(site.peer for site in sites),
        "SPIKE_NEXUS_SHAMIR_SHARES": str(len(sites)),
        "SPIKE_NEXUS_SHAMIR_THRESHOLD": str(THRESHOLD),
    }


@dataclass(frozen=True, slots=True)
class Tally:
    """How many Keepers hold their shares, how many there are, how many it takes."""

    current: int
    total: int
    threshold: int


def tally_of(status: StatusAnswer) -> Tally:
    """Return what Nexus knows of its Keepers."""
    states = [keeper.state for keeper in status.keepers or ()]
    return Tally(states.count(CURRENT), len(states), status.keeper_threshold or 0)


def may_come_back(status: StatusAnswer) -> bool:
    """Tell whether a locked Nexus may have its key back from the Keepers at any moment.

    It may until it says what is missing: it has asked them all once by then.
    """
    return status.state == "locked" and bool(status.keepers) and not status.recovery


def all_looked_at(status: StatusAnswer) -> bool:
    """Tell whether Nexus has looked at each of its Keepers since it is open."""
    return all(keeper.state != "unknown" for keeper in status.keepers or ())
