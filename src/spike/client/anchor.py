"""The anchors Pilot saw: how far each store had come, kept where the store's writer cannot reach.

An old copy of a store, put back in its place, looks perfect from inside. Whoever remembers how far it
had come notices. One file for each store; it never goes back to a lower epoch.

File, JSON on one line, in exactly this form: `{"format":1,"seen_at":…,"server":…,"anchor":base64}`.
`anchor` is the statement of Nexus (`spike.lifecycle.anchor`). Only Nexus can authenticate it; it is
believed here because it came over SPIFFE mutual TLS and lies in a directory nobody else can write.
Which root key it is of does not matter here: the epoch grows with every change of it, also back.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec

from spike.error import FormatError, NewerFormatError, SettingError
from spike.lifecycle import anchor as statements
from spike.lifecycle.anchor import Anchor

FORMAT: Final = 1
LIMIT_BYTES: Final = 16 << 10
DIRECTORY: Final = "SPIKE_PILOT_STATE_DIR"

_MOMENT = Annotated[
    str, msgspec.Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
]


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Annotated[int, msgspec.Meta(ge=FORMAT, le=FORMAT)]
    seen_at: _MOMENT
    server: Annotated[str, msgspec.Meta(max_length=512)]
    anchor: Annotated[bytes, msgspec.Meta(max_length=statements.LIMIT_BYTES)]


class _Header(msgspec.Struct, frozen=True):
    format: int


@dataclass(frozen=True, slots=True)
class SeenAnchor:
    """What a store was seen to have reached: when (RFC 3339, UTC), and at which server's address.

    `raw` is what `statement` was read from, to be handed back to Nexus.
    """

    statement: Anchor
    raw: bytes
    seen_at: str
    server: str

    @classmethod
    def of_untrusted(cls, raw: bytes, seen_at: datetime, server: str) -> SeenAnchor:
        """Return the anchor that an answer held.

        Raises:
            FormatError: it is none.
        """
        moment = seen_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(statements.decode_untrusted(raw), raw, moment, server)


@dataclass(frozen=True, slots=True)
class Kept:
    """What was seen is not older than what had been; the newest of it is kept."""


@dataclass(frozen=True, slots=True)
class Behind:
    """Not kept: the store had been further, or is of another lineage."""

    seen: SeenAnchor


def encode(anchor: SeenAnchor) -> bytes:
    """Return the file's content."""
    return msgspec.json.encode(_File(FORMAT, anchor.seen_at, anchor.server, anchor.raw)) + b"\n"


def decode_untrusted(raw: bytes) -> SeenAnchor:
    """Read a file's content.

    Raises:
        NewerFormatError: a newer SPIKE wrote it.
        FormatError: it is damaged, or not in the one form.
    """
    if len(raw) > LIMIT_BYTES:
        raise FormatError("the anchor file is too large")
    try:
        found = msgspec.json.decode(raw, type=_Header).format
        if found > FORMAT:
            raise NewerFormatError("anchor file", found, FORMAT)
        file = msgspec.json.decode(raw, type=_File)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        raise FormatError("the anchor file is damaged") from None
    anchor = SeenAnchor(
        statements.decode_untrusted(file.anchor), file.anchor, file.seen_at, file.server
    )
    if encode(anchor) != raw:
        raise FormatError("the anchor file is not in its one form")
    return anchor


def is_behind(offered: Anchor, seen: Anchor) -> bool:
    """Tell whether a store shows less than was seen of it, or another lineage without a higher epoch."""
    if offered.lineage != seen.lineage:
        return offered.epoch <= seen.epoch
    return seen.is_beyond((offered.epoch, offered.revision), offered.access_generation)


def directory_of(environment: Mapping[str, str]) -> Path:
    """Return where anchors are kept: SPIKE_PILOT_STATE_DIR, or `spike/pilot` of the user's state.

    Raises:
        SettingError: no variable names an absolute directory.
    """
    named = environment.get(DIRECTORY)
    if named:
        directory = Path(named)
    elif environment.get("XDG_STATE_HOME"):
        directory = Path(environment["XDG_STATE_HOME"], "spike", "pilot")
    else:
        directory = Path(environment.get("HOME", ""), ".local", "state", "spike", "pilot")
    if not directory.is_absolute():
        raise SettingError(
            "there is no place to keep the anchors of stores",
            f"set {DIRECTORY} to the absolute path of a directory",
        )
    return directory


class AnchorStore:
    """Anchors in one directory (0700, files 0600), shared by the processes of one user."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def get(self, store_id: str) -> SeenAnchor | None:
        """Return the anchor seen of a store, or None.

        Raises:
            FormatError: there is one and it cannot be read; the message names the file.
            SettingError: the file cannot be opened, or others could have put it there or taken it
                away.
        """
        self._require_believable()
        return self._read(self._path(store_id))

    def latest(self, server: str) -> SeenAnchor | None:
        """Return the anchor seen last at a server's address, or None. Leaves out damaged ones.

        Raises:
            SettingError: as `get`.
        """
        self._require_believable()
        found = []
        for path in self._directory.glob("*.anchor"):
            try:
                anchor = self._read(path)
            except FormatError:
                continue  # `get` names it as soon as that very store is asked for
            if anchor is not None and anchor.server == server:
                found.append(anchor)
        return max(found, key=lambda anchor: anchor.seen_at, default=None)

    def keep(self, anchor: SeenAnchor) -> Kept | Behind:
        """Keep an anchor unless the store was seen further.

        Another lineage of the same store replaces the one held only with a higher epoch.

        Raises:
            FormatError: the one held cannot be read; it is not overwritten.
            SettingError: the directory or file cannot be written.
        """
        with self._locked():
            held = self.get(anchor.statement.store_id)
            if held is not None and is_behind(anchor.statement, held.statement):
                return Behind(held)
            if held is not None and held.statement.lineage != anchor.statement.lineage:
                # An undo of the restore that began the new lineage wants it again.
                self._write(self._kept(held.statement.store_id, held.statement.lineage), held)
            self._write(self._path(anchor.statement.store_id), anchor)
            return Kept()

    def bring_back(self, store_id: str, lineage: str) -> bool:
        """Go back to the anchor that was held of a lineage before another one began. Return whether there was one.

        Raises:
            FormatError, SettingError: as `keep`.
        """
        with self._locked():
            kept, held = self._read(self._kept(store_id, lineage)), self.get(store_id)
            if kept is None or (held is not None and held.statement.lineage == lineage):
                return False
            if held is not None:
                self._write(self._kept(store_id, held.statement.lineage), held)
            self._write(self._path(store_id), kept)
            return True

    def _kept(self, store_id: str, lineage: str) -> Path:
        return self._directory / f"{store_id}.{lineage}.anchor-before"

    def _path(self, store_id: str) -> Path:
        return self._directory / f"{store_id}.anchor"

    def _read(self, path: Path) -> SeenAnchor | None:
        try:
            with path.open("rb") as file:
                raw = file.read(LIMIT_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        try:
            return decode_untrusted(raw)
        except NewerFormatError:
            raise
        except FormatError as error:
            raise FormatError(
                f"{error.message}: {path}",
                "find out who changed it; moved aside, Pilot begins anew and cannot tell an old "
                "copy of the store until it has seen the store again",
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from keeping an anchor between our reading and writing."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            self._require_private(os.fstat(descriptor))
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _require_believable(self) -> None:
        """Refuse to read where others can write: they could take an anchor away and hide a rollback."""
        try:
            status = self._directory.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unusable(error) from error
        self._require_private(status)

    def _require_private(self, status: os.stat_result) -> None:
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise SettingError(
                f"others can write to {self._directory}, where anchors are kept",
                f"make it yours alone: chmod 700 {self._directory}",
            )

    def _write(self, path: Path, anchor: SeenAnchor) -> None:
        """Replace a file whole: after a crash there is the old one or the new one."""
        raw = encode(anchor)
        beside = path.with_suffix(".new")
        try:
            descriptor = os.open(
                beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            self._sync_names()
        except OSError as error:
            raise self._unusable(error) from error

    def _sync_names(self) -> None:
        """See to it that the new name outlives a crash too; otherwise the older anchor could be back."""
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _unusable(self, error: OSError) -> SettingError:
        return SettingError(
            f"anchors cannot be kept in {self._directory}: {error.strerror}",
            f"make it a directory of this user, or set {DIRECTORY} to one",
        )
