"""What the claims of the chapter `recovery` share."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from spike.lifecycle.password import generate
from spike.pilot.demo.claim import require, require_equal
from spike.pilot.demo.keeper_stage import INDEXES, KeeperStage, keeper_id
from spike.pilot.demo.ledger import fill, require_all_secrets
from spike.pilot.demo.stage import Ran, Stage
from spike.pilot.demo.world import world_of
from spike.pilot.dev.world import NEXUS_ID

SECRETS: Final = 1_000
PREFIX: Final = "shop/order"
SLOT: Final = "admin"
_LOCKED_LIMIT_S: Final = 60.0


@dataclass(slots=True)
class RecoveryWorld(KeeperStage):
    """The stage, and what the story has brought about so far."""

    second_password: str = ""
    set_id: str = ""
    lineage: str = ""
    generation: int = 0

    @property
    def shards(self) -> Path:
        """Where the recovery shards lie, a file each."""
        return self.directory / "shards"

    @property
    def system_backup(self) -> Path:
        """A system backup, kept off the machine."""
        return self.directory / "kept.system-backup"

    @property
    def older_backup(self) -> Path:
        """A key backup that was overtaken."""
        return self.directory / "older-backup"

    def lose_memory(self) -> None:
        """Kill Nexus and every Keeper at once; wait until they run again and say that nothing brings the key back.

        Raises:
            ClaimError: it comes back all the same.
        """
        with self.nothing_is_started_again():
            self.kill(NEXUS_ID, *(keeper_id(index) for index in INDEXES))
        served = self.stage.events_until("served", _LOCKED_LIMIT_S)[-1]
        require_equal(served["state"], "locked", "the state of the store")
        read = self.stage.run("spike", "secret", "get", f"{PREFIX}/0")
        require_equal(read.code, 3, "the exit code of a read")

    def require_back(self, ran: Ran, began_s: float) -> str:
        """Go on if a restore has succeeded, all secrets are there, and every Keeper has a share of a new set.

        Raises:
            ClaimError: it is not so.
        """
        took_s = time.monotonic() - began_s
        require(ran.code == 0, f"it is refused: {ran.errors.strip() or ran.output.strip()}")
        require_equal(self.stage.state(), "open", "the state of the store")
        require_all_secrets(self.stage, self.acknowledged)
        before = self.set_id
        self.note_set()
        require(self.set_id != before, "the Keepers still hold shares of the set of before")
        return f"open {took_s:.1f} s after the command began; {len(self.acknowledged)} secrets compared"

    def note_set(self) -> None:
        """Wait until every Keeper holds its share; note of which set.

        Raises:
            ClaimError: one does not, or they are of different sets.
        """
        self.wait_until_all_hold()
        sets = {told.set_id for told in self.ask().values()}
        require_equal(len(sets), 1, "the number of sets the Keepers hold shares of")
        self.set_id = sets.pop()

    def summary(self) -> str:
        """Return what `spike status` says, which has to be that there are two ways at least.

        Raises:
            ClaimError: it says otherwise.
        """
        code, told = self.stage.status()
        require_equal(code, 0, f"the exit code of spike status ({told['summary']})")
        return str(told["summary"])

    def told(self) -> dict[str, Any]:
        """Return all that `spike status` says."""
        return self.stage.status()[1]


def make_store(stage: Stage) -> None:
    """Make a store there, with a generated password.

    Raises:
        ClaimError: it cannot be made.
    """
    stage.password = generate().decode()
    stage.run_well("spike", "init", "--password-stdin", given=stage.password)


@contextmanager
def recovery_world() -> Iterator[RecoveryWorld]:
    """Set the scene in a new directory; stop and delete everything at the end."""
    with world_of(RecoveryWorld, init=False) as world:
        make_store(world.stage)
        fill(world.stage, PREFIX, SECRETS, world.acknowledged)
        world.note_set()
        yield world
