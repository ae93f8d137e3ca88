"""The process's own protection: applied at start, read back every minute, reported one by one."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spike.memory.arena import ARENA
from spike.memory.page import Page, libc

_PR_GET_DUMPABLE: Final = 3
_PR_SET_DUMPABLE: Final = 4
_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4


@dataclass(frozen=True, slots=True)
class Measure:
    """One protection: whether it is in force now, and in words why or how."""

    name: str
    applied: bool
    detail: str


def harden() -> tuple[Measure, ...]:
    """Apply every protection this process may have, and return what is in force.

    * Not dumpable: no core file, no ptrace(2) and no `/proc/PID/mem` for others of the same user.
    * RLIMIT_CORE 0, soft and hard.
    * mlockall(2), but only where RLIMIT_MEMLOCK is unlimited: below a limit, later allocations of
      the process would fail. MCL_ONFAULT, because without it every thread's stack (8 MiB) would be
      made resident at once; so the process needs as much memory as it uses, and none is swapped.
      A program that a hardened one executes is not locked and must harden itself.

    Never raises: what cannot be applied is reported as not applied.
    """
    libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if _memory_lock_limit() == resource.RLIM_INFINITY:
        libc().mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT)
    return check_measures()


def check_measures() -> tuple[Measure, ...]:
    """Read back from the kernel which protections are in force. Takes about 2 ms."""
    return (_check_dumpable(), _check_core(), _check_swap(), check_key_pages())


def check_key_pages() -> Measure:
    """Read back whether every page that may hold a key is locked, undumped and kept from forks."""
    pages = ARENA.pages()
    flags = _flags_of_pages(pages)
    bad = [page for page in pages if not _is_protected(flags.get(page, frozenset()))]
    if bad:
        return Measure("key pages", False, f"{len(bad)} of {len(pages)} pages are not protected")
    kinds = " and ".join(sorted({page.secret for page in pages})) or "no key held"
    return Measure("key pages", True, f"{len(pages)} pages locked: {kinds}")


def _is_protected(flags: frozenset[str]) -> bool:
    # proc(5), VmFlags: lo locked, dd not in a core file, dc not copied by fork, wf wiped by fork.
    return {"lo", "dd"} <= flags and bool({"dc", "wf"} & flags)


def _check_dumpable() -> Measure:
    dumpable = libc().prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    if dumpable == 0:
        return Measure("not dumpable", True, "PR_SET_DUMPABLE is 0")
    return Measure("not dumpable", False, f"PR_GET_DUMPABLE gives {dumpable}")


def _check_core() -> Measure:
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    if limits == (0, 0):
        return Measure("no core file", True, "RLIMIT_CORE is 0")
    return Measure("no core file", False, f"RLIMIT_CORE is {limits[0]}, at most {limits[1]}")


def _check_swap() -> Measure:
    """Whether nothing secret can be swapped: the process is locked, or by rule its key pages."""
    limit = _memory_lock_limit()
    if limit != resource.RLIM_INFINITY:
        detail = f"the key pages alone: RLIMIT_MEMLOCK is {limit} bytes"
        return Measure("memory locked", check_key_pages().applied, detail)
    if _ordinary_memory_is_locked():
        return Measure("memory locked", True, "the whole process")
    return Measure("memory locked", False, "mlockall is not in force")


def _ordinary_memory_is_locked() -> bool:
    """Whether ordinary memory of this process, which only mlockall(2) would lock, is locked."""
    probe = ctypes.create_string_buffer(1)
    address = ctypes.addressof(probe)
    return any("lo" in flags for start, end, flags in _mappings() if start <= address < end)


def _memory_lock_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]


def _flags_of_pages(pages: tuple[Page, ...]) -> dict[Page, frozenset[str]]:
    """Return the kernel's flags of each page (proc(5), VmFlags); without those not mapped."""
    mappings = list(_mappings()) if pages else []
    found = {}
    for page in pages:
        if page.wiped:
            found[page] = frozenset(
                {"lo", "dd", "dc"}
            )  # wiped since the list was made: no key in it
            continue
        first, last = page.address, page.address + page.size_bytes
        for start, end, flags in mappings:
            if start <= first and last <= end:
                found[page] = flags
    return found


def _mappings() -> Iterable[tuple[int, int, frozenset[str]]]:
    """Yield (first address, address after the last, flags) of each mapping of this process."""
    start = end = 0
    with Path("/proc/self/smaps").open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            head, _, rest = line.partition(" ")
            if head == "VmFlags:":
                yield start, end, frozenset(rest.split())
            elif not head.endswith(":"):
                first, _, last = head.partition("-")
                start, end = int(first, 16), int(last, 16)
