"""Reports what goes wrong: without letting strangers fill the log, and without values."""

from __future__ import annotations

import logging

from spike.server.limit import Clock


class TroubleLog:
    """Logs at most `per_minute` messages a minute, and then how many it has kept back."""

    def __init__(
        self, log: logging.Logger, clock: Clock, per_minute: int = 30, *, level: int = logging.INFO
    ) -> None:
        self._log = log
        self._level = level
        self._clock = clock
        self._per_minute = per_minute
        self._window = -60.0
        self._written = 0
        self._kept_back = 0

    def report(self, message: str, *details: object) -> None:
        """Log a message with %-style details, unless this minute's are used up."""
        now = self._clock.monotonic()
        if now - self._window >= 60.0:
            if self._kept_back:
                self._log.log(
                    self._level, "%d more messages of this kind were kept back", self._kept_back
                )
            self._window, self._written, self._kept_back = now, 0, 0
        if self._written < self._per_minute:
            self._written += 1
            self._log.log(self._level, message, *details)
        else:
            self._kept_back += 1


def place_of(fault: BaseException) -> str:
    """Return the kind of a fault and where it was raised; not its message, which may hold values."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
    return f"{type(fault).__name__}{where}"
