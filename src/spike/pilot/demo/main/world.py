"""What the claims of the chapter `main` share."""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from spike.error import ClaimError
from spike.pilot.demo.knock import Visitor
from spike.pilot.demo.outsider import ForeignAuthority
from spike.pilot.demo.world import World, world_of
from spike.spiffe.background_source import BackgroundSource
from spike.wire.call import SECRET_GET
from spike.wire.go_json import encode
from spike.wire.secret import SecretGetRequest

TRUST_DOMAIN: Final = "spike.ist"
WORKLOAD: Final = "spiffe://spike.ist/workload/shop"
OTHER_WORKLOAD: Final = "spiffe://spike.ist/workload/other"
KEEPER: Final = "spiffe://spike.ist/spike/keeper"
SUPERUSER: Final = "spiffe://spike.ist/spike/pilot/role/superuser"
PATH: Final = "shop/database"
HIDDEN_PATH: Final = "bank/vault"
POLICY: Final = "shop-reads"

# Short enough to see an SVID end and be renewed, long enough for a busy machine to follow.
SVID_LIFETIME: Final = "12s"
_RESTORE_LIMIT_S: Final = 30.0


@dataclass(slots=True)
class MainWorld(World):
    """The stage, and what the story has brought about so far."""

    stranger: ForeignAuthority = field(default_factory=lambda: ForeignAuthority("stranger.example"))
    neighbour: ForeignAuthority = field(
        default_factory=lambda: ForeignAuthority("neighbour.example")
    )
    source: BackgroundSource = field(init=False)
    value: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    foreign_password: str = field(default="", repr=False)
    expiring: Visitor | None = None

    @property
    def foreign_backup(self) -> Path:
        """A key backup of another store."""
        return self.directory / "foreign-backup"

    def restore(self, backup: Path | None = None) -> None:
        """Restore by the right password; wait while earlier wrong ones slow it down.

        Raises:
            ClaimError: it is refused.
        """
        source = () if backup is None else ("--backup", str(backup))
        deadline_s = time.monotonic() + _RESTORE_LIMIT_S
        while (ran := self.try_restore(*source, given=self.stage.password)).code != 0:
            if "wait" not in ran.errors or time.monotonic() > deadline_s:
                raise ClaimError(f"the right password is refused: {ran.errors.strip()}")
            time.sleep(1.0)

    def probe(self, spiffe_id: str, path: str) -> dict[str, object]:
        """Let a process with an identity ask for a secret; return what came of it.

        Raises:
            ClaimError: it could not be started.
        """
        program = (sys.executable, "-m", "spike.pilot.demo.probe")
        target, body = reading(path)
        ran = self.stage.run_as(
            spiffe_id, *program, str(self.stage.port), target, body.decode("ascii")
        )
        if ran.code != 0:
            raise ClaimError(f"the process of {spiffe_id} failed: {ran.errors.strip()}")
        told: dict[str, object] = json.loads(ran.output)
        return told


@contextmanager
def main_world() -> Iterator[MainWorld]:
    """Set the scene in a new directory; stop and delete everything at the end."""
    with world_of(MainWorld, SVID_LIFETIME) as world:
        world.source = world.open_source()
        yield world


def reading(path: str) -> tuple[str, bytes]:
    """Return target and body of a request for a secret."""
    return SECRET_GET.target, encode(SecretGetRequest(path))


def own_uid() -> str:
    """Return this process's user, as `spike-authority entry` takes it."""
    return str(os.geteuid())
