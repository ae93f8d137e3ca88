"""The client's calls that begin, steer and end a rotation, and follow one while it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from spike.client.caller import KEY_TIMEOUT_S, Caller
from spike.error import NotReadyError
from spike.wire import call as calls
from spike.wire.key import KeyStatusRequest
from spike.wire.message import Empty
from spike.wire.rotation import (
    KeyPaceRequest,
    KeyReasonRequest,
    KeyRotateAnswer,
    KeyRotateRequest,
    Rotation,
)

PATIENCE_S: Final = 300.0
"""How long a Nexus may be silent before a follower gives up: a restart takes seconds, a restore a person."""
_LOOK_EVERY_S: Final = 0.5
_IN_WINDOW_EVERY_S: Final = 2.0
_FAULT_LOOKS: Final = 6
"""A fault that stands for so many looks is one that does not mend itself at once."""

_ENDED: Final = frozenset({"finalized", "dropped", "failed"})
_VERIFIED: Final = _ENDED | {"verified", "finalizing"}


class Until(StrEnum):
    """What a follower waits for."""

    VERIFIED = "verified"
    FINALIZED = "finalized"


@dataclass(frozen=True, slots=True)
class Silent:
    """Nexus does not answer, or is locked, since this look; it is asked again until `PATIENCE_S` are over."""

    error: NotReadyError


def has_come(rotation: Rotation, until: Until) -> bool:
    """Tell whether a rotation is where it was waited for, or at an end before."""
    return rotation.phase in (_VERIFIED if until is Until.VERIFIED else _ENDED)


class RotationCalls(Caller):
    """The part of `spike.client.nexus.NexusClient` that replaces keys. For the superuser role.

    Each method but `get_rotation`, `check_rotation` and `follow_rotation` raises, besides what the client does:
        RefusalError: ROTATION, PREFLIGHT or BUSY, with the reason. Nothing was changed.
    """

    def start_rotation(self, request: KeyRotateRequest) -> KeyRotateAnswer:
        """Begin a rotation, or join the same one that runs."""
        # Repeatable: a second start joins the first.
        return self._call(
            calls.KEY_ROTATE, request, "key rotate", KEY_TIMEOUT_S, repeatable=not request.leaked
        )

    def check_rotation(self, request: KeyRotateRequest) -> KeyRotateAnswer:
        """Look whether it could begin (`request.dry_run` is set); change nothing anywhere."""
        if not request.dry_run:
            raise ValueError("a check is a dry run")
        return self._call(calls.KEY_ROTATE, request, "key rotate", KEY_TIMEOUT_S, repeatable=True)

    def get_rotation(self) -> Rotation | None:
        """Return the rotation in progress or in its rollback window, else the last that ended since Nexus started."""
        return self._read(calls.KEY_STATUS, KeyStatusRequest(), "key status").rotation

    def pause_rotation(self) -> Rotation | None:
        """Let re-encryption rest; it survives a restart of Nexus."""
        return self._read(calls.KEY_PAUSE, Empty(), "key pause").rotation

    def resume_rotation(self) -> Rotation | None:
        """Let it go on."""
        return self._read(calls.KEY_RESUME, Empty(), "key resume").rotation

    def set_rotation_pace(self, max_rate: int) -> Rotation | None:
        """Let at most so many records a second be re-encrypted; 0 leaves it to the pace."""
        return self._read(calls.KEY_PACE, KeyPaceRequest(max_rate), "key pace").rotation

    def abort_rotation(self, reason: str = "") -> Rotation | None:
        """End a rotation that has not come into force."""
        request = KeyReasonRequest(reason)
        return self._call(
            calls.KEY_ABORT, request, "key abort", KEY_TIMEOUT_S, repeatable=False
        ).rotation

    def rollback_rotation(self, reason: str = "") -> KeyRotateAnswer:
        """Begin to go back to the keys of before, or join the rollback that runs."""
        return self._call(
            calls.KEY_ROLLBACK,
            KeyReasonRequest(reason),
            "key rollback",
            KEY_TIMEOUT_S,
            repeatable=False,
        )

    def finalize_rotation(self) -> Rotation | None:
        """End the way back and let what was replaced be destroyed; that may take longer than the call."""
        return self._call(
            calls.KEY_FINALIZE, Empty(), "key finalize", KEY_TIMEOUT_S, repeatable=False
        ).rotation

    def follow_rotation(
        self, until: Until = Until.VERIFIED, patience_s: float = PATIENCE_S
    ) -> Iterator[Rotation | Silent | None]:
        """Give the rotation as it is, and whenever that has changed, until it is where it is waited for.

        It ends as well when the rotation has ended otherwise, or has a fault that stays. None: there is no rotation.
        A Nexus that is restarted meanwhile is asked on; `Silent` is given once each time it falls silent.

        Raises:
            NotReadyError: it was silent for `patience_s`.
        """
        last: Rotation | Silent | None = None
        answered_s, faults = time.monotonic(), 0
        while True:
            try:
                now = self.get_rotation()
            except NotReadyError as error:
                if time.monotonic() - answered_s >= patience_s:
                    raise
                if not isinstance(last, Silent):
                    last = Silent(error)
                    yield last
                time.sleep(_LOOK_EVERY_S)
                continue
            if now != last or now is None:
                yield now
            faults = faults + 1 if now is not None and now.fault else 0
            last, answered_s = now, time.monotonic()
            if now is None or has_come(now, until) or faults >= _FAULT_LOOKS:
                return
            time.sleep(_IN_WINDOW_EVERY_S if now.phase == "verified" else _LOOK_EVERY_S)
