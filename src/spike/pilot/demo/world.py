"""The frame of every chapter: a `spike dev` in a directory of its own, what is kept beside it, and its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from spike.pilot.demo import census
from spike.pilot.demo.claim import require_equal
from spike.pilot.demo.stage import Ran, Stage
from spike.pilot.dev.place import DevPlace, throw_away_directory
from spike.spiffe.background_source import BackgroundSource

RESTORE: Final = "spiffe://spike.ist/spike/pilot/role/restore"
SVID_LIFETIME: Final = "1h"
_SOURCE_TIMEOUT_S: Final = 10.0


@dataclass(slots=True)
class World:
    """What the claims of a chapter share: the stage, and what was acknowledged there.

    Whatever a claim leaves running is ended by a call that it puts into `ends`.
    """

    stage: Stage
    directory: Path
    ends: ExitStack
    acknowledged: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def database(self) -> Path:
        """The store's file."""
        return census.database(self.stage.place.store)

    @property
    def socket(self) -> str:
        """The Workload API's endpoint."""
        return f"unix://{self.stage.place.workload_socket}"

    @property
    def old_backup(self) -> Path:
        """A key backup as it was before; a claim copies it there."""
        return self.directory / "old-backup"

    @property
    def old_store(self) -> Path:
        """The store as it was before; a claim copies it there."""
        return self.directory / "old-store"

    def key_backup(self) -> Path:
        """Return the one key backup that is in force.

        Raises:
            ClaimError: there is not exactly one.
        """
        found = list(self.stage.place.backup.glob("*.key-backup"))
        require_equal(len(found), 1, "the number of key backups")
        return found[0]

    def open_source(self) -> BackgroundSource:
        """Return the demo's own identity, live, until the end: its user's, the superuser."""
        source = BackgroundSource.open(self.socket, _SOURCE_TIMEOUT_S)
        self.ends.callback(source.close)
        return source

    def try_restore(self, *options: str, given: str) -> Ran:
        """Run `spike restore` under the restore role, a password on its standard input; what it asks is granted."""
        command = ("spike", "restore", "--password-stdin", "--yes", *options)
        return self.stage.run_as(RESTORE, *command, given=given)


W = TypeVar("W", bound=World)


@contextmanager
def world_of(
    make: Callable[[Stage, Path, ExitStack], W],
    svid_lifetime: str = SVID_LIFETIME,
    *,
    init: bool = True,
) -> Iterator[W]:
    """Start `spike dev` in a new directory; at the end, whatever comes, stop and delete everything.

    Raises:
        ClaimError: it does not start.
    """
    directory = throw_away_directory()
    with ExitStack() as ends:
        ends.callback(shutil.rmtree, directory)
        stage = Stage(DevPlace(directory / "dev"), svid_lifetime, init=init)
        world = make(stage, directory, ends)

        def stop() -> None:
            world.stage.stop()  # a chapter may go on with another stage than this

        ends.callback(stop)
        stage.start()
        yield world
