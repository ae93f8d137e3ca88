"""What Nexus has acknowledged: written until Nexus is gone, and compared with what is there afterwards."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from spike.client.nexus import NexusClient
from spike.error import SpikeError
from spike.pilot.demo.claim import require
from spike.pilot.demo.stage import Stage, wait_until

LEAST_ACKNOWLEDGED: Final = 50
_WRITE_LIMIT_S: Final = 30.0
_AT_ONCE: Final = 500


@dataclass(slots=True)
class Writer:
    """Puts secrets in a thread of its own until Nexus is gone; `acknowledged` gets only what Nexus answered for."""

    stage: Stage
    prefix: str
    acknowledged: dict[str, str] = field(repr=False)
    _fault: str = ""
    _count: int = 0
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, and return once enough has been acknowledged.

        Raises:
            ClaimError: too little is, in time.
        """
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(
            lambda: self._count > LEAST_ACKNOWLEDGED or bool(self._fault),
            _WRITE_LIMIT_S,
            "too few writes were acknowledged",
        )

    def join(self) -> int:
        """Wait for the end, now that Nexus is gone; return how much was acknowledged.

        Raises:
            ClaimError: a write failed while Nexus was there.
        """
        assert self._thread is not None
        self._thread.join()
        require(not self._fault, f"a write failed before the kill: {self._fault}")
        return self._count

    def _run(self) -> None:
        try:
            with NexusClient.from_environment(self.stage.environment) as nexus:
                while True:
                    path, value = f"{self.prefix}/{self._count}", f"value {self._count}"
                    nexus.put_secret(path, {"password": value})
                    self.acknowledged[path] = value
                    self._count += 1
        except SpikeError as error:
            if self._count <= LEAST_ACKNOWLEDGED:
                self._fault = error.message


def fill(stage: Stage, prefix: str, count: int, acknowledged: dict[str, str]) -> None:
    """Put so many secrets and note each that was acknowledged."""
    with NexusClient.from_environment(stage.environment) as nexus:
        for n in range(count):
            path, value = f"{prefix}/{n}", f"value {n}"
            nexus.put_secret(path, {"password": value})
            acknowledged[path] = value


def require_all_secrets(stage: Stage, acknowledged: Mapping[str, str]) -> None:
    """Go on if every acknowledged secret is there with its value.

    Raises:
        ClaimError: one is not; it is named.
    """
    paths = sorted(acknowledged)
    with NexusClient.from_environment(stage.environment) as nexus:
        found = [
            value
            for n in range(0, len(paths), _AT_ONCE)
            for value in nexus.get_secrets(paths[n : n + _AT_ONCE])
        ]
    for path, held in zip(paths, found, strict=True):
        require(held is not None, f"the acknowledged secret {path} is gone")
        require(held == {"password": acknowledged[path]}, f"{path} has another value")
