"""Which Keepers there are, as the environment tells it: addresses, pinned identities, threshold.

`SPIKE_NEXUS_KEEPER_PEERS` lists https URLs, separated by commas; the position is the share's index. Each may end in
`#spiffe://…`, which pins the identity that must answer there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spike.client.setting import Address, parse_address
from spike.error import SettingError, SpiffeIdError
from spike.server.setting import SettingReader
from spike.spiffe.id import SpiffeId

PEERS: Final = "SPIKE_NEXUS_KEEPER_PEERS"
SHARES: Final = "SPIKE_NEXUS_SHAMIR_SHARES"
THRESHOLD: Final = "SPIKE_NEXUS_SHAMIR_THRESHOLD"
INTERVAL: Final = "SPIKE_NEXUS_KEEPER_UPDATE_INTERVAL"

LEAST_SHARES: Final = 2
MOST_SHARES: Final = 255
_EXAMPLE: Final = (
    f"set {PEERS} to URLs such as https://k1.example.org:8443#spiffe://example.org/spike/keeper/1"
)


@dataclass(frozen=True, slots=True)
class Peer:
    """One Keeper: the index of its share, where it listens, and who must answer there, if that is pinned."""

    index: int
    url: str
    address: Address
    identity: SpiffeId | None


@dataclass(frozen=True, slots=True)
class KeeperSetting:
    """All that is told of the Keepers. Without peers there are none. `interval_s` is the time between two looks.

    `shares` and `threshold` are for recovery shards, too.
    """

    peers: tuple[Peer, ...]
    shares: int
    threshold: int
    interval_s: float


NO_KEEPERS: Final = KeeperSetting(peers=(), shares=3, threshold=2, interval_s=5.0)


def read_keeper_setting(read: SettingReader) -> KeeperSetting:
    """Read the variables.

    Raises:
        SettingError: one of them is not as it must be, or two contradict each other.
    """
    shares = read.integer(SHARES, 3, LEAST_SHARES, MOST_SHARES)
    threshold = read.integer(THRESHOLD, 2, LEAST_SHARES, shares)
    peers = parse_peers(read.text(PEERS, ""))
    if peers and len(peers) != shares:
        raise SettingError(
            f"{PEERS} names {len(peers)} Keepers, and {SHARES} is {shares}",
            "name one Keeper for each share",
        )
    return KeeperSetting(peers, shares, threshold, read.duration(INTERVAL, "5s"))


def parse_peers(text: str) -> tuple[Peer, ...]:
    """Return the Keepers that a list names; none for an empty one.

    Raises:
        SettingError: an element is no URL, or an address or identity stands twice.
    """
    if not text:
        return ()
    peers = tuple(
        _peer(index, element.strip()) for index, element in enumerate(text.split(","), start=1)
    )
    if len({peer.address for peer in peers}) != len(peers):
        raise SettingError(f"{PEERS} names one address twice", _EXAMPLE)
    pinned = [peer.identity for peer in peers if peer.identity is not None]
    if len(set(pinned)) != len(pinned):
        raise SettingError(
            f"{PEERS} pins one identity twice: one Keeper would be given two shares", _EXAMPLE
        )
    return peers


def _peer(index: int, element: str) -> Peer:
    url, pins, pinned = element.partition("#")
    try:
        address = parse_address(url)
        identity = SpiffeId.parse_untrusted(pinned) if pins else None
    except (SettingError, SpiffeIdError):
        raise SettingError(
            f"element {index} of {PEERS} is not the address of a Keeper", _EXAMPLE
        ) from None
    return Peer(index, url, address, identity)
