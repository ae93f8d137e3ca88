"""What `spike dev` says: to people in a few calm lines, to programs one JSON object a line."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Protocol

from spike.memory import standard_stream
from spike.pilot.dev.keeper import Tally
from spike.pilot.dev.place import DevPlace
from spike.pilot.dev.supervisor import Death, NotStarted

RESTORE_ROLE: Final = "spiffe://spike.ist/spike/pilot/role/restore"
RESTORE: Final = f"spike-authority run --id {RESTORE_ROLE} -- spike restore"


@dataclass(frozen=True, slots=True)
class Served:
    """Everything runs. `state` is what Nexus says of its store: open, locked, …"""

    place: DevPlace
    url: str
    state: str
    keepers: Tally


@dataclass(frozen=True, slots=True)
class Locked:
    """The store has a root key, the memory that held it is gone, and the Keepers do not bring it back.

    `recovery` is what Nexus says it waits for.
    """

    place: DevPlace
    recovery: str


@dataclass(frozen=True, slots=True)
class LeftLocked:
    """Nobody here can be asked for the password; `why` says it in a clause."""

    place: DevPlace
    why: str


@dataclass(frozen=True, slots=True)
class StillLocked:
    """A restore at this terminal did not work, said why, and is tried again."""

    place: DevPlace


@dataclass(frozen=True, slots=True)
class Unlocked:
    """The root key is back."""


@dataclass(frozen=True, slots=True)
class CameBack:
    """The root key came back from the Keepers."""


@dataclass(frozen=True, slots=True)
class Failed:
    """Something did not work, and the parts go on."""

    message: str
    next_step: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """The parts are being stopped."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing runs any more; `left` is the directory that stays, None when it was deleted."""

    left: Path | None


Event = (
    Served
    | Locked
    | LeftLocked
    | StillLocked
    | Unlocked
    | CameBack
    | Failed
    | Death
    | NotStarted
    | Stopping
    | Stopped
)


class Report(Protocol):
    """Where events go."""

    def tell(self, event: Event) -> None:
        """Say what happened."""

    def show_password(self, password: bytearray) -> None:
        """Show the generated password, this once; nothing keeps a copy. The caller wipes it."""


class HumanReport:
    """Lines on standard output."""

    def tell(self, event: Event) -> None:
        """Say what happened."""
        _write_if_read("".join(f"{line}\n" for line in lines_of(event)))

    def show_password(self, password: bytearray) -> None:
        """Show the generated password on lines of its own."""
        after = (
            b"Keep it. Without it nothing brings the key back once these processes have ended.\n"
        )
        if not sys.stdout.isatty():
            after += b"This output is no terminal: whoever keeps it keeps the password.\n"
        before = b"This store is new. Its password, shown only now and stored nowhere:\n\n    "
        _write_around(before, password, b"\n\n" + after)


_NO_KEY: Final = (
    "It has no root key yet: spike init makes one, spike restore --from FILE brings one."
)


class JsonReport:
    """One object a line on standard output; `event` names its kind."""

    def tell(self, event: Event) -> None:
        """Say what happened."""
        _write_if_read(json.dumps(data_of(event)) + "\n")

    def show_password(self, password: bytearray) -> None:
        """Give the generated password as an event of its own; its words need no escapes."""
        _write_around(b'{"event": "password", "password": "', password, b'"}\n')


def _write_if_read(text: str) -> None:
    """Write to standard output. Nobody reading it any more, or a full disk, is no reason to stop the parts."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError:
        standard_stream.silence(1)


def _write_around(before: bytes, password: bytearray, after: bytes) -> None:
    sys.stdout.flush()
    for piece in (before, password, after):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()


def lines_of(event: Event) -> list[str]:
    """Return an event in words."""
    match event:
        case Served(place, url, state, keepers):
            return [
                "",
                f"SPIKE runs on this machine; the store is {state}.",
                *([_NO_KEY] if state == "uninitialized" else []),
                f"  Nexus    {url}",
                f"  Keepers  {_shares(keepers)}",
                f"  Store    {place.store}",
                f"  Backup   {place.backup}",
                f"  Logs     {place.log}",
                "",
                "In a second terminal, paste:",
                f"  {source_line(place)}",
                "then for example: spike secret put demo/first user=alice",
                "",
                "Ctrl-C stops everything.",
            ]
        case Locked(_, recovery):
            return [
                "",
                "The store is locked: its root key was in memory only, and that memory is gone.",
                *([f"It waits: {recovery}."] if recovery else []),
                "The password brings it back.",
            ]
        case LeftLocked(place, why):
            how = f"{source_line(place)} && {RESTORE}"
            return [f"The store stays locked: {why}. From another terminal: {how}"]
        case StillLocked(place):
            return [
                "Still locked. Once more (Ctrl-C stops everything).",
                "An option that it wants goes behind this command, in a second terminal:",
                f"  {source_line(place)} && {RESTORE}",
            ]
        case Unlocked():
            return ["", "The store is open."]
        case CameBack():
            return ["", "The store is open: its root key came back from the Keepers by itself."]
        case Failed(message, next_step):
            return [f"Error: {message}.", *([f"Next: {next_step}."] if next_step else [])]
        case Death(name, pause_s=pause_s, last_words=words):
            said = f" Its last words: {words}" if words else ""
            return [f"{name} {event.how}; starting it again in {pause_s:g} s.{said}"]
        case NotStarted(name, message, pause_s):
            return [f"{name} cannot be started: {message}; trying again in {pause_s:g} s."]
        case Stopping():
            return ["", "Stopping."]
        case Stopped(None):
            return ["Stopped. Nothing is left of it."]
        case Stopped(left):
            return [
                f"Stopped. The store stays in {left}; the next start there asks for its password."
            ]


def data_of(event: Event) -> dict[str, object]:
    """Return an event as JSON takes it."""
    name = type(event).__name__
    spelled = "".join(f"-{c.lower()}" if c.isupper() else c for c in name).lstrip("-")
    match event:
        case Served(place, url, state, keepers):
            fields: dict[str, object] = {
                "state": state,
                "url": url,
                "keepers": asdict(keepers),
                **_paths(place),
            }
        case Locked(place, recovery):
            fields = {"recovery": recovery, **_paths(place)}
        case LeftLocked(place, why):
            fields = {"why": why, "restore": f"{source_line(place)} && {RESTORE}"}
        case StillLocked(place):
            fields = {"restore": f"{source_line(place)} && {RESTORE}"}
        case Stopped(left):
            fields = {"left": None if left is None else str(left)}
        case Death() | NotStarted() | Failed() | Unlocked() | CameBack() | Stopping():
            fields = asdict(event)
    return {"event": spelled, **fields}


def source_line(place: DevPlace) -> str:
    """Return the line to paste in a second terminal."""
    return f". {shlex.quote(str(place.environment_file))}"


def _shares(keepers: Tally) -> str:
    many = keepers.threshold
    if many == 0:
        return "Nexus does not know yet what they hold"
    if keepers.current == keepers.total:
        return f"{keepers.total} hold shares of the root key; any {many} bring it back"
    return f"{keepers.current} of {keepers.total} hold a share; it takes {many}"


def _paths(place: DevPlace) -> dict[str, object]:
    return {
        "directory": str(place.directory),
        "environment": str(place.environment_file),
        "socket": f"unix://{place.workload_socket}",
        "store": str(place.store),
        "backup": str(place.backup),
        "log": str(place.log),
    }
