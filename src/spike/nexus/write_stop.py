"""Why a vault writes nothing: one set of reasons, each told in the log when it comes."""

from __future__ import annotations

import logging

from spike.nexus.opened import Stop

_log = logging.getLogger("spike.nexus.vault")


class WriteStops:
    """The reasons for which nothing is written now. Empty: writes are served."""

    def __init__(self) -> None:
        self._reasons: set[Stop] = set()

    @property
    def reasons(self) -> frozenset[Stop]:
        """All of them, as they are now."""
        return frozenset(self._reasons)

    def add(self, reason: Stop) -> None:
        """Refuse every write from now on."""
        if reason not in self._reasons:
            _log.critical("writes are stopped: %s", reason)
            self._reasons.add(reason)

    def lift(self, reason: Stop) -> None:
        """Let a reason fall away, if it was one."""
        self._reasons.discard(reason)

    def clear(self) -> None:
        """Let every reason fall away: what they were about is gone."""
        self._reasons.clear()
