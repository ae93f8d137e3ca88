"""What the claims of the chapter `main` share."""

from __future__ import annotations

import json
import os
import secrets
import shutil
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
from spike.pilot.demo.stage import Ran, Stage
from spike.pilot.dev.place import DevPlace, throw_away_directory
from spike.spiffe.background_source import BackgroundSource
from spike.wire.call import SECRET_GET
from spike.wire.go_json import encode
from spike.wire.secret import SecretGetRequest

TRUST_DOMAIN: Final = "spike.ist"
WORKLOAD: Final = "spiffe://spike.ist/workload/shop"
OTHER_WORKLOAD: Final = "spiffe://spike.ist/workload/other"
KEEPER: Final = "spiffe://spike.ist/spike/keeper"
RESTORE: Final = "spiffe://spike.ist/spike/pilot/role/restore"
SUPERUSER: Final = "spiffe://spike.ist/spike/pilot/role/superuser"
PATH: Final = "shop/database"
HIDDEN_PATH: Final = "bank/vault"
POLICY: Final = "shop-reads"

# Short enough to see an SVID end and be renewed, long enough for a busy machine to follow.
SVID_LIFETIME: Final = "12s"
_SOURCE_TIMEOUT_S: Final = 10.0
_RESTORE_LIMIT_S: Final = 30.0


@dataclass(slots=True)
class MainWorld:
    """The stage, and what the story has brought about so far."""

    stage: Stage
    directory: Path
    stranger: ForeignAuthority
    neighbour: ForeignAuthority
    source: BackgroundSource
    value: str = field(repr=False)
    acknowledged: dict[str, str] = field(default_factory=dict, repr=False)
    foreign_password: str = field(default="", repr=False)
    expiring: Visitor | None = None

    @property
    def foreign_backup(self) -> Path:
        """A key backup of another store."""
        return self.directory / "foreign-backup"

    @property
    def old_backup(self) -> Path:
        """A key backup as it was before the first restore."""
        return self.directory / "old-backup"

    @property
    def old_store(self) -> Path:
        """A copy of the store as it was before the first restore."""
        return self.directory / "old-store"

    @property
    def socket(self) -> str:
        """The Workload API's endpoint."""
        return f"unix://{self.stage.place.workload_socket}"

    def key_backup(self) -> Path:
        """Return the one key backup in the backup place.

        Raises:
            ClaimError: there is not exactly one.
        """
        found = list(self.stage.place.backup.glob("*.key-backup"))
        if len(found) != 1:
            raise ClaimError(f"{len(found)} key backups lie in the backup place, and one should")
        return found[0]

    def try_restore(self, password: str, backup: Path | None = None) -> Ran:
        """Run the real command under the restore role, the password on its standard input."""
        source = () if backup is None else ("--backup", str(backup))
        return self.stage.run_as(
            RESTORE, *("spike", "restore", "--password-stdin", "--yes"), *source, given=password
        )

    def restore(self, backup: Path | None = None) -> None:
        """Restore by the right password; wait while earlier wrong ones slow it down.

        Raises:
            ClaimError: it is refused.
        """
        deadline_s = time.monotonic() + _RESTORE_LIMIT_S
        while (ran := self.try_restore(self.stage.password, backup)).code != 0:
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
    directory = throw_away_directory()
    stage = Stage(DevPlace(directory / "dev"), SVID_LIFETIME)
    try:
        stage.start()
        socket = f"unix://{stage.place.workload_socket}"
        # The demo's own identity, live: its user's, the superuser.
        source = BackgroundSource.open(socket, _SOURCE_TIMEOUT_S)
        world = MainWorld(
            stage,
            directory,
            ForeignAuthority("stranger.example"),
            ForeignAuthority("neighbour.example"),
            source,
            value=secrets.token_urlsafe(24),
        )
        try:
            yield world
        finally:
            source.close()
            if world.expiring is not None:
                world.expiring.close()
    finally:
        stage.stop()
        shutil.rmtree(directory)


def reading(path: str) -> tuple[str, bytes]:
    """Return target and body of a request for a secret."""
    return SECRET_GET.target, encode(SecretGetRequest(path))


def own_uid() -> str:
    """Return this process's user, as `spike-authority entry` takes it."""
    return str(os.geteuid())
