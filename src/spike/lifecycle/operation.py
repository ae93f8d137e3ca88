"""One lifecycle operation at a time: which one is in progress. Pure."""

from __future__ import annotations

from typing import NamedTuple

from spike.lifecycle.keyring import Keyring
from spike.lifecycle.refusal import Reason, RefusalError


class InProgress(NamedTuple):
    """What is in progress: its kind in words, its id (32 hexadecimal digits)."""

    kind: str
    id: str


def in_progress(document: Keyring) -> InProgress | None:
    """Return the lifecycle operation that keeps others from beginning, or None."""
    if document.operation is not None:
        return InProgress(document.operation.kind, document.operation.id)
    rotation = document.rotation
    if rotation is not None and rotation.is_blocking:
        return InProgress(rotation.kind, rotation.id)
    return None


def require_idle(document: Keyring) -> None:
    """Return if no lifecycle operation is in progress.

    Raises:
        RefusalError: BUSY; it names the operation and its id.
    """
    running = in_progress(document)
    if running is not None:
        raise RefusalError(
            Reason.BUSY,
            f"a lifecycle operation is in progress: {running.kind} {running.id}",
            "wait until it has ended; see spike key status and spike status",
        )
