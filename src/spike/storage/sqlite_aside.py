"""States of a SQLite store that are kept aside: each one file, moved by one rename(2), in a directory of its own.

    store.sqlite                 the present state
    aside/NAME/store.sqlite      a state that is aside

Called while nobody has the file open. After an orderly close the one file is the whole store; where SQLite has left a
log, something else has the store open, and nothing is moved: a log without its file, or beside another one, loses what
is in it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from spike.error import InputError, StoreUnavailableError
from spike.storage.sqlite_directory import DATABASE, LOG, sync_directory

_ASIDE: Final = "aside"
_NAME: Final = re.compile(r"[a-zA-Z0-9-]{1,64}")


class Asides:
    """The states of one store's directory. Each method raises OSError as the file system does."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def names(self) -> list[str]:
        """Return what is aside, sorted."""
        return sorted(
            path.parent.name
            for path in (self._directory / _ASIDE).glob(f"*/{DATABASE}")
            if _NAME.fullmatch(path.parent.name)
        )

    def put(self, name: str) -> None:
        """Move the present state aside.

        Raises:
            InputError: the name is none, or taken.
            StoreUnavailableError: something else has the store open.
        """
        place = self._place(name)
        if place.exists():
            raise InputError(f"something is aside under the name {name!r} already")
        self._require_whole()
        for directory in (place.parent.parent, place.parent):
            directory.mkdir(mode=0o700, exist_ok=True)
            directory.chmod(0o700)
            sync_directory(directory.parent)
        # The commit line: before it the state is present, after it aside.
        os.replace(self._directory / DATABASE, place)  # noqa: PTH105  (the system call, on purpose)
        sync_directory(place.parent)
        sync_directory(self._directory)

    def take(self, name: str, present_as: str | None) -> None:
        """Put what is aside in the place of the present state.

        Raises:
            InputError: nothing is aside under this name, or `present_as` is taken.
            StoreUnavailableError: something else has the store open.
        """
        place = self._place(name)
        if not place.is_file():
            raise InputError(f"nothing is aside under the name {name!r}")
        self._require_whole()
        if present_as is not None:
            self.put(present_as)
        os.replace(place, self._directory / DATABASE)  # noqa: PTH105  (the system call, on purpose)
        sync_directory(self._directory)
        place.parent.rmdir()

    def remove_present(self) -> None:
        """Remove the present state.

        Raises:
            StoreUnavailableError: something else has the store open.
        """
        self._require_whole()
        (self._directory / DATABASE).unlink()
        sync_directory(self._directory)

    def _place(self, name: str) -> Path:
        if _NAME.fullmatch(name) is None:
            raise InputError("what is set aside has a name of letters, digits and '-'")
        return self._directory / _ASIDE / name / DATABASE

    def _require_whole(self) -> None:
        log = self._directory / LOG
        if log.exists() and log.stat().st_size:
            raise StoreUnavailableError(
                "something else has the store's file open: it is not moved",
                "end whatever else has the store's file open",
            )
