"""How copies of the key backup and slots are told to people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spike.wire.backup import BackupCopy, BackupSlot, RetiredPassword
from spike.wire.own import StatusBackup


def copy_lines(copies: Sequence[BackupCopy]) -> Iterator[str]:
    """Return a line for each copy."""
    for copy in copies:
        where = f"Backup place {copy.place}" if copy.place else "The store's own copy"
        detail = f" ({copy.detail})" if copy.detail else ""
        again = ", written again" if copy.rewritten else ""
        state = copy.state if copy.state == "good" else copy.state.upper()
        yield f"  {where}: {state}{detail}{again}"


def backup_lines(told: StatusBackup) -> Iterator[str]:
    """Return how the copies were at the last look, those that are not good by name, and what old passwords open."""
    if told.verified_at is None:
        yield "  Copies of the key backup: not looked at yet"
    else:
        bad = [copy for copy in told.copies if copy.state != "good"]
        good = len(told.copies) - len(bad)
        yield f"  Copies of the key backup: {good} of {len(told.copies)} good, verified {told.verified_at}"
        yield from (f"  {line}" for line in copy_lines(bad))
    yield from retired_lines(told.retired)


def slot_lines(slots: Sequence[BackupSlot]) -> Iterator[str]:
    """Return a line for each slot."""
    for slot in slots:
        due = f", due {slot.due_at}" if slot.due_at else ""
        overdue = ", OVERDUE" if slot.overdue else ""
        by = f" by {slot.last_verified_by}" if slot.last_verified_by else ""
        yield (
            f"  Slot {slot.name}: {slot.kind}, {slot.state}, made {slot.created_at}, "
            f"last opened {slot.last_verified_at}{by}{due}{overdue}"
        )


def retired_lines(retired: Sequence[RetiredPassword]) -> Iterator[str]:
    """Return a line for each root key that something old still opens."""
    for each in retired:
        what = "password" if each.kind == "password" else "recovery shards"
        opens = "opens" if each.kind == "password" else "open"
        yield (
            f"  The old {what} of slot {each.slot} still {opens} root-key generation {each.generation}, "
            f"from copies of before {each.at}"
        )
