"""What the claims of the chapter `rotation` share."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from spike.client.nexus import NexusClient
from spike.error import ClaimError
from spike.pilot.demo import census
from spike.pilot.demo.claim import require, require_equal
from spike.pilot.demo.keeper_stage import KeeperStage
from spike.pilot.demo.ledger import fill
from spike.pilot.demo.rotation.traffic import Traffic
from spike.pilot.demo.stage import wait_until
from spike.pilot.demo.world import world_of
from spike.wire.rotation import Rotation

SECRETS: Final = 1_000
PREFIX: Final = "shop/order"
_PHASE_LIMIT_S: Final = 50.0


@dataclass(slots=True)
class RotationWorld(KeeperStage):
    """The stage, and what the story has brought about so far."""

    requests: Traffic = field(init=False)
    """The requests that are made all the time."""
    rotation_id: str = ""
    at_kill: Counter[int] = field(default_factory=Counter)
    figures: dict[str, str] = field(default_factory=dict)
    old_blob: tuple[census.Name, bytes] | None = None

    def opened_by_old_backup(self, store: Path) -> dict[str, Any]:
        """Open the old key backup with its password in a process, and tell what its keys open in a store.

        Raises:
            ClaimError: it does not open.
        """
        told: dict[str, Any] = json.loads(
            self.stage.run_well(
                *(sys.executable, "-m", "spike.pilot.demo.rotation.opener"),
                *(str(self.old_backup), str(store)),
                given=self.stage.password,
            )
        )
        return told

    def rotation(self) -> Rotation:
        """Return what Nexus tells of the rotation.

        Raises:
            ClaimError: it tells of none.
        """
        with NexusClient.from_environment(self.stage.environment) as nexus:
            found = nexus.get_rotation()
        if found is None:
            raise ClaimError("Nexus tells of no rotation")
        return found

    def wait_for(self, holds: Callable[[Rotation], bool], otherwise: str) -> Rotation:
        """Wait until something holds of the rotation; return it as it was then.

        Raises:
            ClaimError: it does not, in time; or the rotation does not go on.
        """
        seen: list[Rotation] = []
        with NexusClient.from_environment(self.stage.environment) as nexus:

            def look() -> bool:
                found = nexus.get_rotation()
                require(found is not None, "Nexus tells of no rotation")
                assert found is not None
                # A fault without a pause may mend itself: the step is tried again.
                require(
                    found.phase not in {"dropped", "failed"} and not (found.fault and found.paused),
                    f"the rotation is {found.phase}: {found.fault}",
                )
                seen.append(found)
                return holds(found)

            wait_until(look, _PHASE_LIMIT_S, otherwise)
        return seen[-1]

    def wait_until_ended_or_verified(self) -> Rotation:
        """Wait until a rotation needs nothing more but perhaps its end; return it.

        Raises:
            ClaimError: it does not come to that.
        """
        return self.wait_for(
            lambda now: now.phase in ("verified", "finalized"), "it does not come to an end"
        )

    def key(self, *arguments: str) -> str:
        """Run `spike key …`, which has to succeed; return its output.

        Raises:
            ClaimError: it fails.
        """
        return self.stage.run_well("spike", "key", *arguments)

    def key_states(self) -> dict[str, str]:
        """Return the state of each root and record key, by purpose and generation, as `spike key list` has it."""
        told = json.loads(self.key("list", "--format", "json"))
        return {
            f"{each['purpose']} {each['generation']}": str(each["state"])
            for each in told
            if each["purpose"] in ("root", "record")
        }

    def require_states(self, **expected: str) -> None:
        """Go on if the named generations, such as `root_1`, are in these states.

        Raises:
            ClaimError: one is in another, or is not there.
        """
        found = self.key_states()
        for name, state in expected.items():
            require_equal(found.get(name.replace("_", " ")), state, f"the state of {name}")

    def require_all_under(self, generation: int) -> int:
        """Go on if every blob in the file is under one generation; return how many there are.

        Raises:
            ClaimError: one is under another.
        """
        found = census.generations(self.database)
        require_equal(sorted(found), [generation], "the generations that records are under")
        return found[generation]

    def require_served(self, since: int) -> str:
        """Go on if requests were answered since then, none failed, and every value was right; return the figures.

        Raises:
            ClaimError: it is not so.
        """
        traffic = self.requests
        require(not traffic.failures, f"{len(traffic.failures)} failed: {traffic.failures[:3]}")
        require(not traffic.wrong, f"{len(traffic.wrong)} values are wrong: {traffic.wrong[:3]}")
        count = traffic.answered - since
        require(count > 0, "no request was answered")
        slowest_ms = max(traffic.took_s[since:]) * 1000
        return f"{count} requests answered, the slowest in {slowest_ms:.0f} ms"


@contextmanager
def rotation_world() -> Iterator[RotationWorld]:
    """Set the scene in a new directory; stop and delete everything at the end."""
    with world_of(RotationWorld) as world:
        fill(world.stage, PREFIX, SECRETS, world.acknowledged)
        world.requests = Traffic(world.stage.port, world.open_source())
        world.ends.callback(world.requests.stop)
        yield world
