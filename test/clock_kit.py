"""Clocks that a test sets, for a Nexus that runs.

clocks = clocked(nexus)
clocks.pass_days(90)
"""

from __future__ import annotations

from datetime import datetime, timedelta

from lifecycle_kit import AT
from nexus_kit import RunningNexus
from spike.nexus.key_life import KeyLife
from spike.wire.go_time import UnixNs

BIRTH = datetime.fromisoformat(AT)


class Clocks:
    """A wall clock and a steady one that a test sets."""

    def __init__(self, days: float = 0.0) -> None:
        self.wall = BIRTH + timedelta(days=days)
        self.steady = 1_000.0

    def now(self) -> UnixNs:
        return UnixNs(int(self.wall.timestamp()) * 1_000_000_000)

    def life(self) -> KeyLife:
        return KeyLife(self.now, lambda: self.steady)

    def pass_days(self, days: float) -> None:
        self.jump(days)
        self.steady += days * 86_400

    def jump(self, days: float) -> None:
        self.wall += timedelta(days=days)


def clocked(nexus: RunningNexus, days: float = 0.0) -> Clocks:
    """Give a Nexus clocks that say so many days since the store was born, as if it had just been started."""
    clocks = Clocks(days)
    nexus.vault.clock = clocks.now
    nexus.vault.life = clocks.life()
    return clocks
