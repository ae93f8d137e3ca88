"""Real processes killed at a step of a refresh: at any call that reaches a Keeper, before or after it took effect.

A gate stands between Nexus and each Keeper and passes on what they say, which it cannot read. It counts connections,
one for each call, and sends SIGKILL at the one that was chosen: when it is made, or when its answer comes.
"""

from __future__ import annotations

import contextlib
import random
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

from process_kit import Installation, eventually, free_port
from size import record, seed, size
from spike.error import SpikeError

STEPS = 15
"""Calls that a refresh of three Keepers makes, at least."""


class Victim(Enum):
    """Who is killed, and when."""

    NEXUS_BEFORE = "Nexus, when it calls"
    NEXUS_AFTER = "Nexus, when the answer comes"
    KEEPER = "the Keeper that is called"


class Gates:
    """One gate in front of each Keeper. `port` says where, by index."""

    def __init__(self, keepers: dict[int, int]) -> None:
        self.port: dict[int, int] = {}
        self.steps = 0
        self._kill: Callable[[int], None] = lambda _index: None
        self._kill_at = 0
        self._after = False
        self._armed = False
        self._lock = threading.Lock()
        self._listening: list[socket.socket] = []
        for index, keeper in keepers.items():
            self.port[index] = free_port()
            listening = socket.create_server(("127.0.0.1", self.port[index]))
            self._listening.append(listening)
            threading.Thread(
                target=self._accept, args=(listening, index, keeper), daemon=True
            ).start()

    def arm(self, kill_at: int, kill: Callable[[int], None], *, after: bool) -> None:
        """Kill at this call from now on, counted from 1; 0 kills nobody."""
        with self._lock:
            self.steps, self._kill_at, self._kill, self._after = 0, kill_at, kill, after
            self._armed = True

    def disarm(self) -> None:
        """Pass everything on."""
        with self._lock:
            self._armed = False

    def close(self) -> None:
        """Take no more connections."""
        for each in self._listening:
            each.close()

    def _accept(self, listening: socket.socket, index: int, keeper: int) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listening.accept()
                with self._lock:
                    self.steps += self._armed
                    chosen = self._armed and self.steps == self._kill_at
                if chosen and not self._after:
                    self._kill(index)
                threading.Thread(
                    target=self._pass_on, args=(accepted, index, keeper, chosen), daemon=True
                ).start()

    def _pass_on(self, nexus: socket.socket, index: int, keeper: int, chosen: bool) -> None:
        with (
            nexus,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", keeper)) as other,
        ):
            self._pump(nexus, other, index, chosen and self._after)

    def _pump(self, nexus: socket.socket, keeper: socket.socket, index: int, chosen: bool) -> None:
        # TLS 1.3: hello, the Keeper's flight, the request; what the Keeper says next is its answer.
        turns = 0
        with selectors.DefaultSelector() as ready:
            ready.register(nexus, selectors.EVENT_READ, keeper)
            ready.register(keeper, selectors.EVENT_READ, nexus)
            while True:
                for key, _ in ready.select():
                    source: socket.socket = nexus if key.data is keeper else keeper
                    data = source.recv(65536)
                    if not data:
                        return
                    if (source is nexus) == (turns % 2 == 0):
                        turns += 1
                    if chosen and turns == 4:
                        self._kill(index)
                        return
                    key.data.sendall(data)


class Gated(Installation):
    """Nexus reaches its Keepers through the gates."""

    gates: Gates | None = None

    def keeper_url(self, index: int) -> str:
        if self.gates is None:
            self.gates = Gates(self.keeper_port)
        return f"https://127.0.0.1:{self.gates.port[index]}"


@contextlib.contextmanager
def gated(directory: Path) -> Iterator[tuple[Gated, Gates]]:
    with Gated(directory, keepers=3, SPIKE_NEXUS_KEEPER_UPDATE_INTERVAL="500ms") as spike:
        spike.init()
        assert spike.gates is not None
        try:
            yield spike, spike.gates
        finally:
            spike.gates.close()


def kill(spike: Gated, victim: Victim, index: int) -> None:
    process = spike.keeper[index] if victim is Victim.KEEPER else spike.nexus
    assert process is not None
    process.kill()


def start_what_is_dead(spike: Gated) -> None:
    assert spike.nexus is not None
    for index, keeper in spike.keeper.items():
        if keeper.poll() is not None:
            spike.start_keeper(index)
    if spike.nexus.poll() is not None:
        spike.drop_client()
        spike.start_nexus()
        spike.wait_until_open()


def require_whole(spike: Gated, number: int) -> None:
    """Everything is readable and writable, every Keeper holds the set in force, and it brings the key back."""
    spike.wait_for_keepers()
    assert spike.client.get_secret("a") == {"n": str(number)}
    spike.client.put_secret("a", {"n": str(number + 1)})
    spike.kill_nexus()
    spike.drop_client()
    spike.start_nexus()
    spike.wait_until_open()
    assert spike.client.get_secret("a") == {"n": str(number + 1)}


def calls_of_a_refresh(spike: Gated, gates: Gates) -> int:
    gates.arm(0, lambda _index: None, after=False)
    assert spike.spike("keeper", "refresh").returncode == 0
    gates.disarm()
    return gates.steps


def test_whoever_is_killed_at_a_step_of_a_refresh_nothing_is_lost_and_it_is_made_good(
    tmp_path: Path,
) -> None:
    chosen = seed()
    print("seed", chosen)
    chance = random.Random(chosen)
    every = [(step, victim) for victim in Victim for step in range(1, STEPS + 1)]
    rounds = size(test=4, proof=len(every))
    with gated(tmp_path) as (spike, gates):
        spike.client.put_secret("a", {"n": "0"})
        spike.wait_for_keepers()
        assert calls_of_a_refresh(spike, gates) >= STEPS
        killed = 0
        for number, (step, victim) in enumerate(chance.sample(every, rounds)):
            print("round", number, step, victim)
            gates.arm(
                step,
                lambda index, victim=victim: kill(spike, victim, index),  # type: ignore[misc]
                after=victim is Victim.NEXUS_AFTER,
            )
            spike.spike("keeper", "refresh")
            gates.disarm()
            killed += any_dead(spike)
            start_what_is_dead(spike)
            require_whole(spike, number)
        assert killed == rounds, "a kill that never came shows nothing"
    record("real processes killed at a call of a refresh", rounds, "nothing lost", seed=chosen)


def any_dead(spike: Gated) -> bool:
    """Tell whether somebody was killed; the kernel may need a moment."""
    processes = [*spike.keeper.values(), spike.nexus]
    with contextlib.suppress(AssertionError, SpikeError):
        eventually(
            "somebody is dead", lambda: any(p and p.poll() is not None for p in processes), 5
        )
    return any(p is not None and p.poll() is not None for p in processes)
