"""What Pilot keeps of factory resets: `factory-reset.log` in its directory, a line of JSON for each step.

A reset that has begun and not ended names its store, so that the same command can complete it.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from spike.error import SettingError

NAME: Final = "factory-reset.log"
_LIMIT_BYTES: Final = 1 << 20


Step = Literal["begun", "refused", "ended"]


class ResetLine(msgspec.Struct, frozen=True):
    """One step of one reset. Times are RFC 3339 in UTC."""

    at: str
    step: Step
    server: str
    store_id: str
    records: int = 0
    backup: str = ""
    user: int = 0


def note(
    directory: Path,
    step: Step,
    server: str,
    store_id: str,
    *,
    records: int = 0,
    backup: str = "",
) -> None:
    """Append a step, and return once it is on the disk.

    Raises:
        SettingError: it cannot be written.
    """
    at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    line = ResetLine(at, step, server, store_id, records, backup, os.getuid())
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(directory / NAME, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            file.write(msgspec.json.encode(line) + b"\n")
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise SettingError(
            f"the reset cannot be recorded in {directory}: {error.strerror}",
            "see SPIKE_PILOT_STATE_DIR",
        ) from error


def unfinished(directory: Path, server: str) -> str:
    """Return the store of the last reset at this server that has begun and not ended, or ""."""
    try:
        raw = (directory / NAME).read_bytes()[-_LIMIT_BYTES:]
    except OSError:
        return ""
    store_id = ""
    for each in raw.splitlines():
        try:
            line = msgspec.json.decode(each, type=ResetLine)
        except (msgspec.MsgspecError, UnicodeError):
            continue
        if line.server == server:
            store_id = line.store_id if line.step == "begun" else ""
    return store_id
