"""Writers that load a Nexus until it is lost, and remember what was acknowledged to them."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field

from process_kit import Installation, eventually
from spike.client.nexus import NexusClient
from spike.error import NotFoundError, SpikeError

WRITERS = 4
SHARED = "shared/path"


class Writer(threading.Thread):
    """Counts up on a path of its own and adds to a shared one until an error; remembers what was acknowledged."""

    def __init__(self, client: NexusClient, number: int, begin: int) -> None:
        super().__init__(daemon=True)
        self._client = client
        self.number = number
        self.path = f"own/{number}"
        self.acknowledged = begin
        self.attempted = begin
        self.shared_acknowledged = 0
        self.shared_attempted = 0
        self.wrong = ""

    def run(self) -> None:
        try:
            while True:
                self.attempted = self.acknowledged + 1
                self._client.put_secret(self.path, {"n": str(self.attempted), "pad": "x" * 500})
                self.acknowledged = self.attempted
                seen = self._client.get_secret(self.path)["n"]
                if seen != str(self.acknowledged):
                    self.wrong = (
                        f"{self.path} gave {seen} after {self.acknowledged} was acknowledged"
                    )
                    return
                self.shared_attempted += 1
                self._client.put_secret(SHARED, {"by": str(self.number)})
                self.shared_acknowledged += 1
        except SpikeError:
            return


def current_version(client: NexusClient, path: str) -> int:
    try:
        return client.get_secret_metadata(path).metadata.current_version
    except NotFoundError:
        return 0


@dataclass
class Load:
    """What has been written so far, over all rounds."""

    reached: list[int] = field(default_factory=lambda: [0] * WRITERS)
    shared: int = 0
    writes: int = 0

    def until_lost(self, spike: Installation, chance: random.Random) -> list[Writer]:
        """Write from several threads, and kill Nexus in the middle; return the writers, ended."""
        writers = [Writer(spike.client, n, self.reached[n]) for n in range(WRITERS)]
        for writer in writers:
            writer.start()
        wanted = chance.randrange(1, 120)
        eventually(
            f"{wanted} writes are acknowledged",
            lambda: (
                sum(each.acknowledged for each in writers) - sum(self.reached) >= wanted
                or any(not each.is_alive() for each in writers)
            ),
        )
        spike.kill_nexus()
        for writer in writers:
            writer.join()
            assert not writer.wrong, writer.wrong
        spike.drop_client()
        return writers

    def require_all(self, spike: Installation, writers: list[Writer]) -> None:
        """Require that everything acknowledged is there, and nothing that nobody wrote."""
        for n, writer in enumerate(writers):
            held = int(spike.client.get_secret(writer.path)["n"])
            assert held in (writer.acknowledged, writer.attempted), (writer.path, held)
            assert current_version(spike.client, writer.path) == held
            self.writes += writer.acknowledged - self.reached[n]
            self.reached[n] = held
        version = current_version(spike.client, SHARED)
        acknowledged = self.shared + sum(writer.shared_acknowledged for writer in writers)
        attempted = self.shared + sum(writer.shared_attempted for writer in writers)
        assert acknowledged <= version <= attempted, "an update of two writers on one path was lost"
        self.shared = version
