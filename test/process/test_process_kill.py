"""SIGKILL at random moments under load: nothing acknowledged is lost, and the password brings it back."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from process_kit import Installation, eventually
from size import record, seed, size
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


def test_nothing_acknowledged_is_lost_when_nexus_is_killed_under_load(tmp_path: Path) -> None:
    chosen, rounds = seed(), size(test=5, proof=50)
    print("seed", chosen)
    chance = random.Random(chosen)
    writes = 0
    with Installation(tmp_path) as spike:
        spike.init()
        reached = [0] * WRITERS
        shared = 0
        for _ in range(rounds):
            writers = [Writer(spike.client, n, reached[n]) for n in range(WRITERS)]
            for writer in writers:
                writer.start()
            wanted = chance.randrange(1, 120)
            eventually(
                f"{wanted} writes are acknowledged",
                lambda w=writers, least=wanted: (  # type: ignore[misc]
                    sum(each.acknowledged for each in w) - sum(reached) >= least
                    or any(not each.is_alive() for each in w)
                ),
            )
            spike.kill_nexus()
            for writer in writers:
                writer.join()
                assert not writer.wrong, writer.wrong
            spike.drop_client()
            spike.start_nexus()
            spike.restore()
            for n, writer in enumerate(writers):
                held = int(spike.client.get_secret(writer.path)["n"])
                assert held in (writer.acknowledged, writer.attempted), (writer.path, held)
                assert current_version(spike.client, writer.path) == held
                writes += writer.acknowledged - reached[n]
                reached[n] = held
            version = current_version(spike.client, SHARED)
            acknowledged = shared + sum(writer.shared_acknowledged for writer in writers)
            attempted = shared + sum(writer.shared_attempted for writer in writers)
            assert acknowledged <= version <= attempted, (
                "an update of two writers on one path was lost"
            )
            shared = version
        assert spike.client.get_status().epoch == rounds + 1
        record(
            "SIGKILL of Nexus under load",
            rounds,
            f"{writes} acknowledged writes, none lost",
            seed=chosen,
        )
