"""What a peer may spend of the server: time, memory, connections. All in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from spike.error import SettingError


class Clock(Protocol):
    """The two clocks a server reads. The module `time` is one."""

    def monotonic(self) -> float:
        """Return seconds that only go forward."""

    def time(self) -> float:
        """Return seconds since 1970, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times in seconds, sizes in bytes.

    A body and an answer have no fixed time: they may take `transfer_timeout_s`, and as long on top
    as their size needs at `min_rate_bytes_s`, so that a slow line is served and a peer that hardly
    moves is not.

    Raises:
        SettingError: the limits contradict each other.
    """

    # Before the handshake nobody is known, so these slots belong to all. When all are taken, a
    # handshake that has lasted `handshake_pressure_s` gives its slot to the next in the queue: an
    # honest one needs milliseconds.
    handshake_timeout_s: float = 5.0
    handshake_pressure_s: float = 1.0
    max_handshakes: int = 128

    max_connections: int = 1024
    # At most half of all: no single identity can lock out the others.
    max_connections_per_identity: int = 512
    max_age_s: float = 3600.0

    # A kept connection that asks nothing. The Go SDK leaves its own idle for 30 s.
    idle_timeout_s: float = 60.0
    # From the first byte of a request to the end of its header section.
    head_timeout_s: float = 10.0
    # The request line and the header fields, trailers included.
    max_head_bytes: int = 16 * 1024
    transfer_timeout_s: float = 10.0
    min_rate_bytes_s: int = 16 * 1024
    # What is still read of a body that the handler did not want, to keep the connection.
    max_discard_bytes: int = 64 * 1024
    # After `Connection: close`: the time to take the answer's end and say goodbye. Closing at once
    # would reset the connection under a peer that still sends, and it would not see its answer.
    linger_s: float = 5.0

    # How often deadlines are looked at, hence how late they may be kept.
    sweep_interval_s: float = 0.25
    # How often freed memory is given back to the machine.
    trim_interval_s: float = 60.0
    # How long accepting rests after the machine has run out of descriptors or memory.
    accept_rest_s: float = 0.5

    def __post_init__(self) -> None:
        if self.max_connections_per_identity * 2 > self.max_connections:
            raise SettingError(
                f"{self.max_connections_per_identity} connections for one identity of"
                f" {self.max_connections} in all: one identity could lock out the others",
                "allow one identity at most half of all connections",
            )
        if min(self.max_handshakes, self.max_connections_per_identity) < 1:
            raise SettingError("a server needs at least one handshake and one connection")


def is_overdue(limits: Limits, since: float, moved_bytes: int, now: float) -> bool:
    """Tell whether a body or an answer that has moved so many bytes since then is too slow."""
    return now - since > limits.transfer_timeout_s + moved_bytes / limits.min_rate_bytes_s
