"""Grants follow processes, not numbers; and processes that had one are not forgotten."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from authority_kit import RESTORE, WEB
from spike.authority.grant import (
    Grant,
    GrantTable,
    LauncherNumber,
    Unlaunched,
    Withdrawn,
    encode_memory,
    recall_untrusted,
)
from spike.authority.process import (
    ProcessHandle,
    ProcessKey,
    attest,
    boot_id,
    overflow_uid,
    processes_can_be_told_apart,
)
from spike.error import FormatError, InputError
from spike.spiffe.id import SpiffeId

FIRST, SECOND = LauncherNumber(1), LauncherNumber(2)
GRANT = Grant(SpiffeId.parse_untrusted(WEB), FIRST)


class NumberOnly(ProcessHandle):
    """A process as a kernel without pidfs shows it; `pid` can be another's that was used again."""

    def __init__(self, descriptor: int, pid: int) -> None:
        super().__init__(descriptor)
        self._key = ProcessKey(pid, 0)


class Child:
    """A process that does nothing until it is ended."""

    def __init__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-ISc", "input()"], stdin=subprocess.PIPE)

    def handle(self) -> ProcessHandle:
        return ProcessHandle.of_pid(self.process.pid)

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture
def child() -> Iterator[Child]:
    made = Child()
    yield made
    made.end()


@pytest.fixture
def table() -> Iterator[GrantTable]:
    made = GrantTable()
    yield made
    made.close()


def test_a_grant_is_found_by_any_other_pidfd_of_the_process(
    table: GrantTable, child: Child
) -> None:
    table.put(child.handle(), GRANT)
    with child.handle() as another:
        assert table.find(another) == GRANT
    with ProcessHandle.of_pid(os.getpid()) as me:
        assert table.find(me) == Unlaunched()


def test_a_process_that_had_a_grant_never_counts_as_unlaunched(
    table: GrantTable, child: Child
) -> None:
    table.put(child.handle(), GRANT)
    with child.handle() as another:
        assert not table.withdraw(another.key, SECOND)
        assert table.find(another) == GRANT
        assert table.withdraw(another.key, FIRST)
        assert table.find(another) == Withdrawn()
        table.put(child.handle(), Grant(SpiffeId.parse_untrusted(RESTORE), SECOND))
        assert table.withdraw_all(SECOND)
        assert not table.withdraw_all(SECOND)
        assert table.find(another) == Withdrawn()


def test_a_process_that_has_ended_has_no_grant_though_its_number_is_used_again(
    table: GrantTable, child: Child
) -> None:
    # On a kernel without pidfs only the number is compared, and both must live.
    number = child.process.pid
    table.put(NumberOnly(os.pidfd_open(number), number), GRANT)
    reused = Child()
    try:
        with NumberOnly(os.pidfd_open(reused.process.pid), number) as later:
            assert table.find(later) == GRANT  # both live: they cannot be two in truth
            child.end()
            assert table.find(later) == Unlaunched()
            assert table.drop_ended()
            assert table.processes() == ()
    finally:
        reused.end()


def test_a_grant_to_a_process_that_has_ended_is_refused(table: GrantTable, child: Child) -> None:
    with child.handle() as handle:
        child.end()
        with pytest.raises(InputError, match="has ended"):
            table.put(handle, GRANT)


def test_a_restart_remembers_who_had_a_grant_but_not_which(table: GrantTable, child: Child) -> None:
    with child.handle() as handle:
        memory = encode_memory(boot_id(), [handle])
    assert b"spiffe" not in memory
    (recalled,) = recall_untrusted(memory, boot_id())
    table.remember(recalled)
    with child.handle() as handle:
        assert table.find(handle) == Withdrawn()
        table.put(child.handle(), GRANT)
        assert table.find(handle) == GRANT


def test_what_ended_or_ran_before_the_machine_started_is_not_recalled(child: Child) -> None:
    with child.handle() as handle:
        memory = encode_memory(boot_id(), [handle])
        assert recall_untrusted(memory, "another boot") == ()
        inode, start = str(handle.key.inode), str(handle.started())
        for other in (memory.replace(inode.encode(), b"1"), memory.replace(start.encode(), b"1")):
            assert other != memory
            assert recall_untrusted(other, boot_id()) == ()
        child.end()
        assert recall_untrusted(memory, boot_id()) == ()


def test_a_damaged_memory_is_an_error_not_an_empty_one() -> None:
    for content in (b"", b"{}", b"[]", b" " * (2 << 20)):
        with pytest.raises(FormatError):
            recall_untrusted(content, boot_id())


def test_the_kernel_names_the_process_behind_a_connection() -> None:
    assert processes_can_be_told_apart()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        caller = attest(ours)
    assert (caller.pid, caller.uid, caller.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert caller.process is not None
    with caller.process, ProcessHandle.of_pid(os.getpid()) as me:
        assert caller.process.key == me.key
        assert caller.process.alive()
        assert not os.get_inheritable(caller.process.fileno())
    assert not caller.process.alive()


def test_only_a_pidfd_of_a_living_process_is_a_process(child: Child) -> None:
    with open(os.devnull, "rb") as file, pytest.raises(InputError, match="no living process"):
        ProcessHandle(file.fileno())
    descriptor = os.pidfd_open(child.process.pid)
    child.end()
    with pytest.raises(InputError, match="no living process"):
        ProcessHandle(descriptor)
    os.close(descriptor)
    with pytest.raises(InputError, match="not open"):
        ProcessHandle(descriptor)


def test_the_overflow_uid_is_a_number() -> None:
    assert overflow_uid() > 0
