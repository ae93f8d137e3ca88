"""Could this system be recovered right now, and by which ways? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spike.pilot.failure import Exit
from spike.wire.own import StatusAnswer

USABLE: Final = "usable"
CURRENT: Final = "current"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer in one line, and the exit code that goes with it."""

    line: str
    exit: Exit
    ways: tuple[str, ...]


def judge(status: StatusAnswer) -> Finding:
    """Answer from what Nexus tells.

    A way is a slot whose password opens the root key; it counts while there is a copy of the
    keyring to open, in the store or in a backup place. Exit codes: 0 two independent ways or more,
    4 one, 1 none, 3 cannot tell: what a locked store says of its slots nobody has authenticated.
    """
    if status.state is None:
        ready = "ready" if status.ready else "not ready"
        return Finding(
            f"CANNOT TELL: Nexus is {ready}; only the superuser role sees more.",
            Exit.UNREACHABLE,
            (),
        )
    if status.state == "uninitialized":
        return Finding(
            "NOT INITIALIZED: there is no root key yet. Make it with: spike init",
            Exit.UNREACHABLE,
            (),
        )
    if status.slots is None:
        return Finding(
            "LOCKED: the root key is not in memory. Bring it back with a password: spike restore",
            Exit.UNREACHABLE,
            (),
        )
    ways = _ways(status)
    match len(ways):
        case 0:
            line, code = "NOT RECOVERABLE: no way is open", Exit.FAILED
        case 1:
            line, code = f"RECOVERABLE BY ONE WAY ONLY: {ways[0]}", Exit.ONE_WAY
        case count:
            line, code = f"RECOVERABLE by {count} ways: {', '.join(ways)}", Exit.SUCCESS
    return Finding(f"{line}.", code, ways)


def _ways(status: StatusAnswer) -> tuple[str, ...]:
    copies = [place for place in status.places or () if place.state == CURRENT]
    if not copies and not (status.storage and status.storage.healthy):
        return ()
    return tuple(
        f"{slot.kind} slot {slot.name}" for slot in status.slots or () if slot.state == USABLE
    )
