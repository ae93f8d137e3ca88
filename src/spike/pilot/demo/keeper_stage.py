"""A stage and its Keepers: asked, killed, frozen, and awaited."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from spike.client.nexus import NexusClient
from spike.error import ClaimError, SpikeError
from spike.pilot.demo.claim import require, require_equal
from spike.pilot.demo.stage import age_s, is_there, signal_if_there, wait_until
from spike.pilot.demo.world import World
from spike.pilot.dev.keeper import COUNT, CURRENT, KEEPER_ID
from spike.pilot.dev.world import NEXUS_ID

RECOVER: Final = "spiffe://spike.ist/spike/pilot/role/recover"
INDEXES: Final = tuple(range(1, COUNT + 1))

# What `spike dev` tells when it cannot do without a password.
_ASKING: Final = frozenset({"locked", "left-locked", "unlocked"})
GONE_LIMIT_S: Final = 10.0
# What SPIKE promises: a Keeper that was lost has its share back within this time.
RESUPPLY_LIMIT_S: Final = 10.0
# To be open again takes a second and a half; a machine that does much else takes longer.
RETURN_LIMIT_S: Final = 20.0
_NOTICE_LIMIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Told:
    """What one Keeper says that it holds; `fault` is why it says nothing."""

    set_id: str = ""
    index: int = 0
    threshold: int = 0
    epoch: int = 0
    access_generation: int = 0
    fault: str = ""


@dataclass(slots=True)
class KeeperStage(World):
    """The world of a chapter whose Keepers are killed or frozen."""

    killed_s: float = 0.0
    _frozen: set[int] = field(default_factory=set)

    def ask(self) -> dict[int, Told]:
        """Ask the Keepers themselves, under the identity of Nexus; by index.

        Raises:
            ClaimError: the asking itself fails.
        """
        ports = map(str, self.stage.place.keeper_ports())
        ran = self.stage.run_as(
            NEXUS_ID, sys.executable, "-m", "spike.pilot.demo.keeper.ask", *ports
        )
        if ran.code != 0:
            raise ClaimError(f"the Keepers could not be asked: {ran.errors.strip()}")
        return {n: Told(**told) for n, told in enumerate(json.loads(ran.output), 1)}

    def keepers(self) -> dict[int, dict[str, Any]]:
        """Return what `spike status` says of each Keeper, by index."""
        return {each["index"]: each for each in self.stage.status()[1].get("keepers") or ()}

    def states(self) -> dict[int, str]:
        """Return the state of each Keeper as `spike status` has it."""
        return {index: str(each["state"]) for index, each in self.keepers().items()}

    def wait_for_state(self, index: int, *states: str) -> str:
        """Wait until `spike status` has a Keeper in one of these states; return the detail it gives.

        Raises:
            ClaimError: it has not, in time.
        """
        wait_until(
            lambda: self.states().get(index) in states,
            _NOTICE_LIMIT_S,
            f"spike status does not say that Keeper {index} is {' or '.join(states)}",
        )
        return str(self.keepers()[index]["detail"])

    def wait_until_all_hold(self) -> None:
        """Wait until every Keeper holds its share, by its own word and by Nexus's.

        Raises:
            ClaimError: one does not, in time.
        """
        wait_until(
            lambda: (
                all(told.set_id for told in self.ask().values())
                and set(self.states().values()) == {CURRENT}
            ),
            _NOTICE_LIMIT_S,
            "not every Keeper holds its share",
        )

    def kill(self, *identities: str) -> None:
        """Kill the processes with these identities, at once; return when they are gone.

        Raises:
            ClaimError: one is not there, or does not go.
        """
        numbers = [self.stage.process_of(identity) for identity in identities]
        self.killed_s = time.monotonic()
        for number in numbers:
            signal_if_there(number, signal.SIGKILL)
        wait_until(
            lambda: not any(is_there(number) for number in numbers),
            GONE_LIMIT_S,
            "a killed process is still there",
        )

    def wait_until_open(self) -> str:
        """Wait until Nexus serves by itself; return how long that took.

        Raises:
            ClaimError: it stays locked, or away; or `spike dev` asked for a password.
        """
        with NexusClient.from_environment(self.stage.environment) as nexus:
            try:
                wait_until(lambda: not _lacks(nexus), RETURN_LIMIT_S, "")
            except ClaimError:
                raise ClaimError(f"the root key does not come back: {_lacks(nexus)}") from None
        took_s = time.monotonic() - self.killed_s
        ran_s = age_s(self.stage.process_of(NEXUS_ID)) - (time.monotonic() - took_s - self.killed_s)
        *before, served = self.stage.events_until("served", RETURN_LIMIT_S)
        asked = _ASKING & {str(event["event"]) for event in before}
        require(not asked, f"spike dev told {', '.join(sorted(asked))}")
        require_equal(served["state"], "open", "the state of the store")
        return f"serving {took_s:.1f} s after SIGKILL, {ran_s:.1f} s after its new process began"

    def freeze(self, *identities: str) -> None:
        """Freeze the processes with these identities: they are there, and answer nobody."""
        for identity in identities:
            number = self.stage.process_of(identity)
            self._frozen.add(number)
            self.ends.callback(self.thaw)
            os.kill(number, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let everything that was frozen go on. Idempotent."""
        for number in self._frozen:
            signal_if_there(number, signal.SIGCONT)
        self._frozen.clear()

    @contextmanager
    def nothing_is_started_again(self) -> Iterator[None]:
        """Freeze `spike dev`, so that what dies meanwhile stays dead until the end of this."""
        number = self.stage.number
        os.kill(number, signal.SIGSTOP)
        try:
            yield
        finally:
            signal_if_there(number, signal.SIGCONT)


def keeper_id(index: int) -> str:
    """Return the identity of a Keeper."""
    return f"{KEEPER_ID}/{index}"


def _lacks(nexus: NexusClient) -> str:
    """Return what keeps Nexus from serving, by its own word or by what became of the question; empty if it serves."""
    try:
        status = nexus.get_status()
    except SpikeError as error:
        return error.message
    return "" if status.ready else status.recovery or f"it is {status.state}"
