"""Grants: identities of single processes, held by pidfd.

A process that ever had a grant never falls back to the entries of its user: neither when its launcher
has gone, nor while a restarted Authority waits for the launcher to ask again. Otherwise killing a
launcher would turn a Keeper into whatever its user is. So the table remembers such processes, and
Authority keeps that memory (which gives nobody anything) over its own restart.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NewType

import msgspec

from spike.authority.process import ProcessHandle, ProcessKey
from spike.error import FormatError, InputError
from spike.spiffe.id import SpiffeId

GRANT_LIMIT: Final = 1000
MEMORY_LIMIT_BYTES: Final = 1024 * 1024

# Whoever made a grant, by its control connection: the grant ends with it.
LauncherNumber = NewType("LauncherNumber", int)


@dataclass(frozen=True, slots=True)
class Grant:
    """`process` has `id` for as long as it lives and its launcher keeps the connection."""

    id: SpiffeId
    launcher: LauncherNumber


@dataclass(frozen=True, slots=True)
class Unlaunched:
    """The process never had a grant: its user's entries decide."""


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The process had a grant, and has none now."""


@dataclass(slots=True)
class _Launched:
    process: ProcessHandle
    grant: Grant | None


class GrantTable:
    """Grants of living processes. It owns the pidfds put into it."""

    def __init__(self) -> None:
        self._launched: dict[ProcessKey, _Launched] = {}

    def find(self, process: ProcessHandle) -> Grant | Unlaunched | Withdrawn:
        """Say what the table knows of a process."""
        held = self._launched.get(process.key)
        # Without pidfs the number alone is compared, which only two living processes do not share.
        if held is None or not (process.alive() and held.process.alive()):
            return Unlaunched()
        return held.grant or Withdrawn()

    def put(self, process: ProcessHandle, grant: Grant) -> None:
        """Give a process an identity, in the place of the one it has. Takes over the pidfd.

        Raises:
            InputError: the process has ended, or too many have a grant; the pidfd is the caller's.
        """
        if not process.alive():
            raise InputError("the process has ended")
        self.drop_ended()
        held = self._launched.get(process.key)
        if held is None and len(self._launched) >= GRANT_LIMIT:
            raise InputError(f"{GRANT_LIMIT} processes have an identity of their own already")
        if held is not None:
            held.process.close()
        self._launched[process.key] = _Launched(process, grant)

    def remember(self, process: ProcessHandle) -> None:
        """Note that a process once had a grant. Takes over the pidfd."""
        if process.key in self._launched:
            process.close()
        else:
            self._launched[process.key] = _Launched(process, None)

    def withdraw(self, key: ProcessKey, launcher: LauncherNumber) -> bool:
        """Take a grant back, if this launcher made it; say whether that changed anything."""
        held = self._launched.get(key)
        if held is None or held.grant is None or held.grant.launcher != launcher:
            return False
        held.grant = None
        return True

    def withdraw_all(self, launcher: LauncherNumber) -> bool:
        """Take back all that a launcher granted; say whether that changed anything."""
        changed = [self.withdraw(key, launcher) for key in tuple(self._launched)]
        return any(changed)

    def drop_ended(self) -> bool:
        """Forget processes that have ended; say whether there were any."""
        ended = [key for key, held in self._launched.items() if not held.process.alive()]
        for key in ended:
            self._launched.pop(key).process.close()
        return bool(ended)

    def grants(self) -> tuple[tuple[ProcessKey, Grant], ...]:
        """Return the grants in force, those of living processes."""
        launched = self._launched.items()
        return tuple((k, held.grant) for k, held in launched if held.grant and held.process.alive())

    def processes(self) -> tuple[ProcessHandle, ...]:
        """Return all processes that have, or had, a grant."""
        return tuple(held.process for held in self._launched.values())

    def close(self) -> None:
        """Forget everything."""
        for held in self._launched.values():
            held.process.close()
        self._launched.clear()


class _ProcessText(msgspec.Struct, forbid_unknown_fields=True):
    pid: int
    inode: int
    started: int


class _MemoryText(msgspec.Struct, forbid_unknown_fields=True):
    boot: str
    processes: list[_ProcessText]


def encode_memory(boot: str, processes: Iterable[ProcessHandle]) -> bytes:
    """Return what is kept over a restart: which processes had a grant, without saying which."""
    texts = [_ProcessText(p.key.pid, p.key.inode, p.started()) for p in processes]
    return msgspec.json.encode(_MemoryText(boot, texts)) + b"\n"


def recall_untrusted(content: bytes, boot: str) -> tuple[ProcessHandle, ...]:
    """Hold again the processes of a memory (at most 1 MiB) that still live. The caller owns them.

    Raises:
        FormatError: malformed.
    """
    if len(content) > MEMORY_LIMIT_BYTES:
        raise FormatError(f"a memory of grants has at most {MEMORY_LIMIT_BYTES} bytes")
    try:
        memory = msgspec.json.decode(content, type=_MemoryText)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"the memory of grants cannot be read: {error}") from None
    if memory.boot != boot:
        return ()
    return tuple(p for text in memory.processes[:GRANT_LIMIT] if (p := _recall(text)) is not None)


def _recall(text: _ProcessText) -> ProcessHandle | None:
    if not 0 < text.pid < 1 << 31:
        return None
    try:
        process = ProcessHandle.of_pid(text.pid)
    except (OSError, InputError):
        return None
    if process.key.inode == text.inode and process.started() == text.started:
        return process
    process.close()
    return None
