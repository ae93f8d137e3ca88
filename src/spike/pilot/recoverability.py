"""Could this system be recovered right now, and by which ways? Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from spike.pilot.failure import Exit
from spike.wire.own import StatusAnswer

USABLE: Final = "usable"
CURRENT: Final = "current"
UNKNOWN: Final = "unknown"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """The answer in one line, and the exit code that goes with it."""

    line: str
    exit: Exit
    ways: tuple[str, ...]


def judge(status: StatusAnswer) -> Finding:
    """Answer from what Nexus tells.

    A way is a slot whose password opens the root key; it counts while there is a copy of the
    keyring to open, in the store or in a backup place. The Keepers together are one way, which
    counts while at least the threshold of them have proven that they hold their shares and the
    store is well: what they bring back opens the store's keyring. Exit codes: 0 two independent
    ways or more, 4 one, 1 none, 3 cannot tell: what a locked store says of its slots nobody has
    authenticated.
    """
    if status.state is None:
        ready = "ready" if status.ready else "not ready"
        return Finding(
            f"CANNOT TELL: Nexus is {ready}; only the superuser role sees more.",
            Exit.UNREACHABLE,
            (),
        )
    if status.state == "uninitialized" and (held := _records(status)):
        return Finding(
            f"KEYRING LOST: the store holds {held} records and no keyring. "
            "Bring it back from a key backup: spike restore",
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
        waits = status.recovery or "bring it back with a password: spike restore"
        return Finding(f"LOCKED: the root key is not in memory; {waits}.", Exit.UNREACHABLE, ())
    ways = _ways(status)
    match len(ways):
        case 0:
            line, code = "NOT RECOVERABLE: no way is open", Exit.FAILED
        case 1:
            line, code = f"RECOVERABLE BY ONE WAY ONLY: {ways[0]}", Exit.ONE_WAY
        case count:
            line, code = f"RECOVERABLE by {count} ways: {', '.join(ways)}", Exit.SUCCESS
    return Finding(f"{line}.", code, ways)


def _records(status: StatusAnswer) -> int:
    return sum(status.storage.records.values()) if status.storage else 0


def _ways(status: StatusAnswer) -> tuple[str, ...]:
    healthy = bool(status.storage and status.storage.healthy)
    copies = [place for place in status.places or () if place.state == CURRENT]
    keepers = (f"Keepers ({tally_of(status)})",) if healthy and keepers_suffice(status) else ()
    if not copies and not healthy:
        return ()
    slots = (f"{slot.kind} slot {slot.name}" for slot in status.slots or () if slot.state == USABLE)
    return (*keepers, *slots)


def keepers_suffice(status: StatusAnswer) -> bool:
    """Tell whether the threshold of Keepers hold their shares, as far as Nexus knows, and the last rehearsal agrees."""
    if status.rehearsal is not None and status.rehearsal.outcome == FAILED:
        return False
    return bool(status.keeper_threshold) and _current(status) >= (status.keeper_threshold or 0)


def tally_of(status: StatusAnswer) -> str:
    """Return how many Keepers hold their shares, how many it takes, and how many may be lost."""
    threshold = status.keeper_threshold or 0
    current = _current(status)
    margin = current - threshold if status.keeper_margin is None else status.keeper_margin
    return (
        f"{current} of {len(status.keepers or ())} current, threshold {threshold}, margin {margin}"
    )


def _current(status: StatusAnswer) -> int:
    return sum(keeper.state == CURRENT for keeper in status.keepers or ())
