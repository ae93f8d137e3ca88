"""Requests all the time: values are written, read back and compared, on kept connections.

Every request shall be answered, and every value be right, but while Nexus was killed (`outage`): then a request may
fail, and a write whose answer was lost counts as neither done nor not done until the value is read again.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from spike.pilot.demo.knock import Visitor, reason_of
from spike.spiffe.background_source import BackgroundSource
from spike.wire.call import SECRET_GET, SECRET_PUT
from spike.wire.go_json import encode
from spike.wire.secret import SecretGetRequest, SecretPutRequest

PREFIX: Final = "traffic"
_WORKERS: Final = 3
_PATHS: Final = 10
_PAUSE_S: Final = 0.01
_OK: Final = 200


class _FailedError(Exception):
    """A request was not answered as it should be."""


@dataclass(slots=True)
class Traffic:
    """The requests of some workers, each with paths of its own. `failures` and `wrong` shall stay empty."""

    port: int
    source: BackgroundSource
    failures: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    took_s: list[float] = field(default_factory=list)
    lost: int = 0
    _outage: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        """Begin."""
        self._threads = [
            threading.Thread(target=_Worker(self, number).run, daemon=True)
            for number in range(_WORKERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End and wait for the requests in progress. Idempotent."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def outage_begins(self) -> None:
        """Let requests fail from now on."""
        self._outage = True

    def outage_ends(self) -> None:
        """Let no request fail that begins from now on."""
        self._outage = False

    @property
    def answered(self) -> int:
        """How many requests were answered well so far."""
        return len(self.took_s)

    @property
    def in_outage(self) -> bool:
        """Whether a request may fail now."""
        return self._outage

    @property
    def goes_on(self) -> bool:
        """Whether nobody has stopped it."""
        return not self._stop.is_set()

    def pause(self) -> None:
        """Rest between two requests."""
        self._stop.wait(_PAUSE_S)

    def note(self, took_s: float) -> None:
        """Count a request that was answered well."""
        with self._lock:
            self.took_s.append(took_s)

    def fail(self, what: str, *, excused: bool) -> None:
        """Note a request that failed."""
        with self._lock:
            if excused:
                self.lost += 1
            else:
                self.failures.append(what)

    def find_wrong(self, what: str) -> None:
        """Note a value that is not what was written."""
        with self._lock:
            self.wrong.append(what)


class _Worker:
    """One worker: what may stand at each of its paths is `may_be`; more than one value after a lost answer."""

    def __init__(self, traffic: Traffic, number: int) -> None:
        self._traffic, self._number = traffic, number
        self._may_be: dict[str, set[str | None]] = {}
        self._turn = 0

    def run(self) -> None:
        traffic = self._traffic
        while traffic.goes_on:
            excused = traffic.in_outage
            try:
                with Visitor(traffic.port, traffic.source.material) as visitor:
                    while traffic.goes_on:
                        excused = traffic.in_outage
                        self._take_turn(visitor)
                        traffic.pause()
            except (OSError, http.client.HTTPException, _FailedError) as error:
                reason = str(error) if isinstance(error, _FailedError) else reason_of(error)
                traffic.fail(reason, excused=excused or traffic.in_outage)
                traffic.pause()

    def _take_turn(self, visitor: Visitor) -> None:
        path = f"{PREFIX}/{self._number}/{self._turn % _PATHS}"
        value = f"value {self._turn}"
        known = self._may_be.setdefault(path, {None})
        known.add(value)
        self._turn += 1
        self._ask(visitor, SECRET_PUT.target, encode(SecretPutRequest(path, {"password": value})))
        self._may_be[path] = {value}
        other = f"{PREFIX}/{self._number}/{(self._turn * 7) % _PATHS}"
        self._read(visitor, path)
        if None not in self._may_be.get(other, {None}):
            self._read(visitor, other)

    def _read(self, visitor: Visitor, path: str) -> None:
        body = self._ask(visitor, SECRET_GET.target, encode(SecretGetRequest(path)))
        found = json.loads(body)["data"].get("password")
        if found not in self._may_be[path]:
            self._traffic.find_wrong(f"{path} is {found!r}")
        self._may_be[path] = {found}

    def _ask(self, visitor: Visitor, target: str, body: bytes) -> bytes:
        began_s = time.monotonic()
        answer = visitor.post(target, body)
        if answer.status != _OK:
            raise _FailedError(f"an answer with status {answer.status}")
        self._traffic.note(time.monotonic() - began_s)
        return answer.body
