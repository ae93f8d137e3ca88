"""Processes as the kernel knows them: held by a descriptor, never by number alone.

A process number is used again for another process; a pidfd always means the same one. Since Linux
6.9 every process has an inode of its own in pidfs, so that two pidfds of one process can be compared.
Before that they count as the same if they carry the same number while both processes are alive.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NewType

from spike.error import InputError

Uid = NewType("Uid", int)

# asm-generic/socket.h; Linux 6.5 and newer. Python has no name for it yet.
_SO_PEERPIDFD: Final = 77
_CREDENTIAL: Final = struct.Struct("3i")
# proc_pid_stat(5): field 22, counted after the command, which may hold anything.
_START_FIELD: Final = 19


@dataclass(frozen=True, slots=True)
class ProcessKey:
    """Names one process among the living ones.

    `inode` is its pidfs inode, 0 where the kernel has none: then two keys are only comparable while
    both processes are alive.
    """

    pid: int
    inode: int


class ProcessHandle:
    """One process, held by its pidfd. Close it, or use it as a context manager."""

    def __init__(self, descriptor: int) -> None:
        """Take over a pidfd.

        Raises:
            InputError: the descriptor is no pidfd; it is still the caller's then.
        """
        self._key = ProcessKey(_pid_of(descriptor), _inode_of(descriptor))
        self._descriptor = descriptor

    @classmethod
    def of_pid(cls, pid: int) -> ProcessHandle:
        """Hold the process that has this number now.

        Raises:
            ProcessLookupError: no process has it.
        """
        descriptor = os.pidfd_open(pid)
        try:
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def key(self) -> ProcessKey:
        """What names the process while it lives."""
        return self._key

    def fileno(self) -> int:
        """Return the pidfd: it becomes readable when the process has ended."""
        return self._descriptor

    def alive(self) -> bool:
        """Tell whether the process runs: not ended, not waiting for its parent to notice."""
        if self._descriptor < 0:
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return not poll.poll(0)

    def started(self) -> int:
        """Return when the process started, in clock ticks since boot; 0 if the kernel hides it."""
        try:
            text = Path(f"/proc/{self._key.pid}/stat").read_text(encoding="utf-8", errors="replace")
            started = int(text.rpartition(")")[2].split()[_START_FIELD])
        except (OSError, ValueError, IndexError):
            return 0
        # Only if the process is still there was the number its own while we read.
        return started if self.alive() else 0

    def close(self) -> None:
        """Let go of the process. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> ProcessHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who made a connection, as the kernel noted it at that moment.

    `process` is None where the kernel cannot say (before Linux 6.5).
    """

    pid: int
    uid: Uid
    gid: int
    process: ProcessHandle | None


def attest(connection: socket.socket) -> Caller:
    """Ask the kernel who connected. The caller closes `process`.

    Raises:
        ProcessLookupError: who connected has ended.
        OSError: the kernel does not say, for want of descriptors, for one.
    """
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIAL.size)
    pid, uid, gid = _CREDENTIAL.unpack(raw)
    return Caller(pid, Uid(uid), gid, _process_of(connection))


def _process_of(connection: socket.socket) -> ProcessHandle | None:
    try:
        descriptor = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as error:
        # Only a kernel that does not know the option may be taken for one. Out of descriptors, for
        # one, a process with a grant would count as its user, which may be allowed more.
        if error.errno != errno.ENOPROTOOPT:
            raise
        return None
    os.set_inheritable(descriptor, False)
    try:
        return ProcessHandle(descriptor)
    except InputError:
        # The kernel gives a pidfd whose process has no number any more.
        os.close(descriptor)
        raise ProcessLookupError from None
    except OSError:
        os.close(descriptor)
        raise


def processes_can_be_told_apart() -> bool:
    """Tell whether this kernel names the process behind a connection (SO_PEERPIDFD)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = _process_of(ours)
        if process is None:
            return False
        process.close()
    return True


def boot_id() -> str:
    """Return what names this boot of the machine: process keys mean nothing after it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def overflow_uid() -> Uid:
    """Return the number the kernel shows for every user that has none here (user namespaces)."""
    return Uid(int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii")))


def _pid_of(descriptor: int) -> int:
    try:
        text = Path(f"/proc/self/fdinfo/{descriptor}").read_text(encoding="ascii")
    except OSError:
        raise InputError("the descriptor is not open") from None
    for line in text.splitlines():
        name, _, value = line.partition(":")
        # 0: a process of another namespace; -1: one that has ended.
        if name == "Pid" and int(value) > 0:
            return int(value)
    raise InputError("the descriptor names no living process")


def _inode_of(descriptor: int) -> int:
    """Return the pidfs inode, or 0 on a kernel where all pidfds share one anonymous inode."""
    found = os.fstat(descriptor)
    plain = os.eventfd(0)
    try:
        anonymous = os.fstat(plain)
    finally:
        os.close(plain)
    if (found.st_dev, found.st_ino) == (anonymous.st_dev, anonymous.st_ino):
        return 0
    return found.st_ino
