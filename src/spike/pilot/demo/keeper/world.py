"""What the claims of the chapter `keeper` share."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spike.error import ClaimError
from spike.pilot.demo.keeper.liar import LISTENS
from spike.pilot.demo.keeper_stage import KeeperStage, keeper_id
from spike.pilot.demo.stage import descendants, signal_if_there, wait_until
from spike.pilot.demo.world import world_of
from spike.pilot.dev.part import tethered

PATH: Final = "shop/database"

_LISTEN_LIMIT_S: Final = 20.0


@dataclass(slots=True)
class KeeperWorld(KeeperStage):
    """The stage, and what the story has brought about so far."""

    set_id: str = ""
    liar_id: str = ""
    _liar: subprocess.Popen[bytes] | None = None

    @property
    def old_copy(self) -> Path:
        """Store and backup place as they were yesterday."""
        return self.directory / "yesterday"

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
            self.ends.callback(self.end_liar)
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


@contextmanager
def keeper_world() -> Iterator[KeeperWorld]:
    """Set the scene in a new directory; stop and delete everything at the end."""
    with world_of(KeeperWorld) as world:
        world.stage.run_well("spike", "secret", "put", PATH, "password=first")
        world.acknowledged[PATH] = "first"
        yield world
