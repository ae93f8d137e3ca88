"""Where everything of one `spike dev` lies: one directory, 0700, and what stands in it.

    data/    the store              pilot/  the anchors Pilot saw
    backup/  the key backup         run/    sockets, process numbers
    log/     one file for each part authority/  entries and foreign bundles
    env      to be sourced by a second terminal
    keeper-port  where the Keepers listen, a line for each

Only `spike dev` writes here, and it holds a lock on the directory for as long as it runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shlex
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spike.error import SettingError
from spike.spiffe.endpoint import PATH_LIMIT_BYTES

_PRIVATE: Final = 0o700
# The longest name below the directory that a socket is bound to.
_LONGEST_SOCKET: Final = "run/workload.sock"
_PROCESS_FILE: Final = "run/pid"
_PORT_DIGITS: Final = 5
_LAST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class DevPlace:
    """The directory of one `spike dev`; absolute."""

    directory: Path

    @property
    def store(self) -> Path:
        """The store's directory."""
        return self.directory / "data"

    @property
    def backup(self) -> Path:
        """The backup place."""
        return self.directory / "backup"

    @property
    def run(self) -> Path:
        """What lives as long as the parts do."""
        return self.directory / "run"

    @property
    def log(self) -> Path:
        """One log file for each part."""
        return self.directory / "log"

    @property
    def pilot(self) -> Path:
        """Pilot's own state."""
        return self.directory / "pilot"

    @property
    def environment_file(self) -> Path:
        """What a second terminal sources."""
        return self.directory / "env"

    @property
    def workload_socket(self) -> Path:
        """The Workload API."""
        return self.run / "workload.sock"

    @property
    def control_socket(self) -> Path:
        """Where Authority is administered."""
        return self.run / "control.sock"

    @property
    def authority(self) -> Path:
        """Authority's entries and bundles."""
        return self.directory / "authority"

    def keeper_ports(self) -> tuple[int, ...]:
        """Return where the Keepers listened at the last start; nothing if that is not known."""
        try:
            lines = self._keeper_port_file.read_text(encoding="ascii").split()
        except (OSError, UnicodeDecodeError):
            return ()
        ports = tuple(int(line) for line in lines if line.isdigit() and len(line) <= _PORT_DIGITS)
        return ports if all(0 < port <= _LAST_PORT for port in ports) else ()

    def keep_keeper_ports(self, ports: Sequence[int]) -> None:
        """Keep where the Keepers listen, for the next start."""
        write_private(self._keeper_port_file, "".join(f"{port}\n" for port in ports))

    @property
    def _keeper_port_file(self) -> Path:
        return self.directory / "keeper-port"

    @property
    def _process_file(self) -> Path:
        return self.directory / _PROCESS_FILE

    def client_environment(self, port: int, binaries: Path) -> dict[str, str]:
        """Return the variables a command needs to speak with the parts of this place."""
        return {
            "SPIFFE_ENDPOINT_SOCKET": f"unix://{self.workload_socket}",
            "SPIKE_AUTHORITY_CONTROL": str(self.control_socket),
            "SPIKE_NEXUS_API_URL": f"https://localhost:{port}",
            "SPIKE_PILOT_STATE_DIR": str(self.pilot),
            "PATH": str(binaries),
        }

    def prepare(self) -> None:
        """Make the directories that are missing, and note the number of this process.

        Raises:
            SettingError: one is not ours alone or cannot be made, or there is no room.
        """
        for each in (self.directory, self.run, self.log, self.pilot):
            _make_private(each)
        write_private(self._process_file, f"{os.getpid()}\n")

    def empty(self) -> None:
        """Delete all that is in the directory. Only while it is claimed, and only what began empty."""
        for each in self.directory.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            else:
                each.unlink()

    def write_environment(self, variables: Mapping[str, str]) -> None:
        """Write the file for a second terminal. It holds no secret."""
        lines = ["# Written by `spike dev`; source it: . env"]
        for name, value in variables.items():
            end = ":$PATH" if name == "PATH" else ""
            lines.append(f"export {name}={shlex.quote(value)}{end}")
        beside = self.environment_file.with_suffix(".new")
        write_private(beside, "\n".join(lines) + "\n")
        beside.replace(self.environment_file)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the directory alone; make it if it is missing, and take it away again if it stays empty.

        The kernel lets go of it when this process ends, however it ends. Nothing else is written.

        Raises:
            SettingError: a path below it is too long for a socket; it is not ours alone, cannot be made, or
                another `spike dev` holds it.
        """
        _require_short(self.directory / _LONGEST_SOCKET)
        missing = [
            each for each in (self.directory, *self.directory.parents) if not os.path.lexists(each)
        ]
        descriptor = self._lock()
        try:
            yield
            self._process_file.unlink(missing_ok=True)
        finally:
            for each in missing:
                with contextlib.suppress(OSError):  # something is in it
                    each.rmdir()
            os.close(descriptor)

    def _lock(self) -> int:
        while True:
            _make_private(self.directory)
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # The one who held it may have taken it away meanwhile.
                if os.path.samestat(os.fstat(descriptor), self.directory.stat()):
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise self._twin() from None
            except FileNotFoundError:
                pass
            os.close(descriptor)

    def _twin(self) -> SettingError:
        try:
            number = self._process_file.read_text(encoding="ascii").strip()
        except OSError:
            number = ""
        who = f" (process {number})" if number.isdigit() else ""
        return SettingError(
            f"`spike dev` already runs in {self.directory}{who}",
            f"use that one (. {shlex.quote(str(self.environment_file))}), stop it, or name another "
            "directory with --data",
        )


def default_directory(environment: Mapping[str, str]) -> Path:
    """Return `spike/dev` of the user's state: $XDG_STATE_HOME, or ~/.local/state.

    Raises:
        SettingError: neither it nor HOME is an absolute path.
    """
    state = environment.get("XDG_STATE_HOME") or ""
    directory = (
        Path(state, "spike", "dev")
        if state
        else Path(environment.get("HOME", ""), ".local", "state", "spike", "dev")
    )
    if not directory.is_absolute():
        raise SettingError(
            "there is no home directory to keep the store in", "name one: --data DIR"
        )
    return directory


def throw_away_directory() -> Path:
    """Make and return a new, empty directory of ours alone."""
    return Path(tempfile.mkdtemp(prefix="spike-dev-")).resolve()


def unused_directory() -> Path:
    """Return where a new directory can be made."""
    return Path(tempfile.gettempdir()).resolve() / f"spike-dev-{secrets.token_hex(8)}"


def require_empty(directory: Path) -> None:
    """Return if there is nothing at `directory`, or an empty directory.

    Raises:
        SettingError: there is something, which might be somebody's only copy.
    """
    try:
        occupied = any(directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise SettingError(
            f"{directory} cannot be used: {error.strerror}", "name another directory with --data"
        ) from error
    if occupied:
        raise SettingError(
            f"{directory} is not empty, and `spike dev` empties nothing",
            "leave out --data for a new directory, or name one that is empty",
        )


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else can read, in the place of what was there.

    Raises:
        SettingError: it cannot be written, as on a full disk.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SettingError(
            f"{path} cannot be written: {error.strerror}",
            "make room, or name another directory: spike dev --data DIR",
        ) from error


def _require_short(socket: Path) -> None:
    size = len(os.fsencode(socket))
    if size > PATH_LIMIT_BYTES:
        raise SettingError(
            f"{socket} is too long for a socket: {size} bytes, and the kernel takes "
            f"{PATH_LIMIT_BYTES}",
            "name a shorter directory: spike dev --data DIR",
        )


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise SettingError(
            f"{directory} cannot be used: {error.strerror}",
            "name a directory that this user may make: spike dev --data DIR",
        ) from error
    if found.st_uid != os.geteuid():
        raise SettingError(
            f"{directory} belongs to another user", "name a directory of your own with --data"
        )
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise SettingError(
            f"others can enter {directory}", f"make it yours alone: chmod 700 {directory}"
        )
