"""What the claims of the chapter `keeper` share."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from spike.client.nexus import NexusClient
from spike.error import ClaimError, SpikeError
from spike.pilot.demo.claim import require, require_equal
from spike.pilot.demo.keeper.liar import LISTENS
from spike.pilot.demo.stage import Stage, age_s, descendants, is_there, signal_if_there, wait_until
from spike.pilot.dev.keeper import COUNT, CURRENT, KEEPER_ID
from spike.pilot.dev.part import tethered
from spike.pilot.dev.place import DevPlace, throw_away_directory
from spike.pilot.dev.world import NEXUS_ID

RESTORE: Final = "spiffe://spike.ist/spike/pilot/role/restore"
INDEXES: Final = tuple(range(1, COUNT + 1))
SVID_LIFETIME: Final = "1h"
PATH: Final = "shop/database"

# What `spike dev` tells when it cannot do without a password.
_ASKING: Final = frozenset({"locked", "left-locked", "unlocked"})
GONE_LIMIT_S: Final = 10.0
# What SPIKE promises: a Keeper that was lost has its share back within this time.
RESUPPLY_LIMIT_S: Final = 10.0
# To be open again takes a second and a half; a machine that does much else takes longer.
RETURN_LIMIT_S: Final = 20.0
_NOTICE_LIMIT_S: Final = 30.0
_LISTEN_LIMIT_S: Final = 20.0


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
class KeeperWorld:
    """The stage, and what the story has brought about so far."""

    stage: Stage
    directory: Path
    acknowledged: dict[str, str] = field(default_factory=dict, repr=False)
    killed_s: float = 0.0
    set_id: str = ""
    liar_id: str = ""
    _frozen: set[int] = field(default_factory=set)
    _liar: subprocess.Popen[bytes] | None = None

    @property
    def old_copy(self) -> Path:
        """Store and backup place as they were yesterday."""
        return self.directory / "yesterday"

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

    def replace_by_liar(self, index: int, identity: str) -> None:
        """Kill a Keeper and start a liar with an identity on its port, before anything can take it.

        Raises:
            ClaimError: the liar does not come to listen.
        """
        port = self.stage.place.keeper_ports()[index - 1]
        with self.nothing_is_started_again():
            self.end_liar()
            self._kill_all_that_are(keeper_id(index))
            self.account.unlink(missing_ok=True)
            program = (sys.executable, "-m", "spike.pilot.demo.keeper.liar")
            run = str(Path(sys.executable).with_name("spike-authority"))
            self._liar = subprocess.Popen(
                tethered(
                    (run, "run", "--id", identity, "--", *program, str(port), str(self.account))
                ),
                env=self.stage.environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            self.liar_id = identity
            wait_until(lambda: LISTENS in self.liar_was_asked(), _LISTEN_LIMIT_S, "no liar listens")

    @property
    def account(self) -> Path:
        """Where the liar notes what it is asked."""
        return self.directory / "account"

    def liar_was_asked(self) -> list[str]:
        """Return the calls the liar got, in order; the first line says that it listens."""
        try:
            return self.account.read_text(encoding="utf-8").split("\n")[:-1]
        except FileNotFoundError:
            return []

    def end_liar(self) -> None:
        """End the liar if there is one. Idempotent."""
        if self._liar is None:
            return
        for number in (*descendants(self._liar.pid), self._liar.pid):
            signal_if_there(number, signal.SIGKILL)
        self._liar.wait()
        self._liar = None

    def _kill_all_that_are(self, identity: str) -> None:
        """Kill who has an identity, be it one process or, between two starts, none."""
        try:
            self.kill(identity)
        except ClaimError:
            return


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


@contextmanager
def keeper_world() -> Iterator[KeeperWorld]:
    """Set the scene in a new directory; stop and delete everything at the end."""
    directory = throw_away_directory()
    world = KeeperWorld(Stage(DevPlace(directory / "dev"), SVID_LIFETIME), directory)
    try:
        world.stage.start()
        world.stage.run_well("spike", "secret", "put", PATH, "password=first")
        world.acknowledged[PATH] = "first"
        yield world
    finally:
        world.thaw()
        world.end_liar()
        world.stage.stop()
        shutil.rmtree(directory)
