"""Load that nobody may notice a change under: requests on kept connections and on new ones."""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from spike.pilot.demo.knock import Answered, Visitor, knock, reason_of
from spike.spiffe.background_source import BackgroundSource

_KEPT: Final = 3
# A connection is replaced before the SVID it was made with ends: what is looked for are failures
# that the server's change causes.
_LEFT_S: Final = 3.0
_PAUSE_S: Final = 0.02


@dataclass(slots=True)
class Kept:
    """One kept connection's life, in seconds of a monotonic clock: its start and its last good answer."""

    opened_s: float
    answered_s: float


@dataclass(slots=True)
class Load:
    """Requests made all the time between `start` and `stop`; all of them shall be answered 200."""

    port: int
    source: BackgroundSource
    target: str
    body: bytes
    answered: int = 0
    failures: list[str] = field(default_factory=list)
    kept: list[Kept] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Begin."""
        workers = (*[self._keep_one] * _KEPT, self._renew_always)
        self._threads = [threading.Thread(target=worker, daemon=True) for worker in workers]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End and wait for the requests in progress. Idempotent."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def spanning(self, moment_s: float) -> int:
        """Return how many kept connections were open before a moment and answered after it."""
        return sum(each.opened_s < moment_s < each.answered_s for each in self.kept)

    def _keep_one(self) -> None:
        while not self._stop.is_set():
            try:
                with Visitor(self.port, self.source.material) as visitor:
                    self._use(visitor)
            except (OSError, http.client.HTTPException) as error:
                self._fail(f"a kept connection: {reason_of(error)}")

    def _use(self, visitor: Visitor) -> None:
        assert visitor.material is not None
        life = Kept(time.monotonic(), 0.0)
        self.kept.append(life)
        ends_at = visitor.material.svid.expires_at
        while not self._stop.is_set():
            if (ends_at - datetime.now(UTC)).total_seconds() < _LEFT_S:
                return
            self._count(visitor.post(self.target, self.body))
            life.answered_s = time.monotonic()
            time.sleep(_PAUSE_S)

    def _renew_always(self) -> None:
        while not self._stop.is_set():
            outcome = knock(self.port, self.source.material, self.target, self.body)
            if isinstance(outcome, Answered):
                self._count(outcome)
            else:
                self._fail(f"a new connection: {outcome.why}")
            time.sleep(_PAUSE_S)

    def _count(self, answer: Answered) -> None:
        with self._lock:
            self.answered += 1
        if answer.status != 200:
            self._fail(f"an answer with status {answer.status}")

    def _fail(self, what: str) -> None:
        with self._lock:
            self.failures.append(what)
        self._stop.wait(_PAUSE_S)
