"""Locked pages: memory that is never swapped, dumped or handed to a forked child.

Two kinds, the best the kernel has:

* `memfd_secret(2)`: out of reach of other processes and of most of the kernel itself, also through
  `/proc/PID/mem`. It is locked by nature and takes MADV_DONTFORK, but no MADV_WIPEONFORK.
* Otherwise private anonymous memory, `mlock(2)`, MADV_WIPEONFORK. What must be shared with an
  exec'd child is then a `memfd_create(2)` mapping, locked and MADV_DONTFORK: a process of the same
  user could open it through `/proc/PID/fd` while it exists, unless PR_SET_DUMPABLE is 0.

Every page counts against RLIMIT_MEMLOCK, which may be as low as 64 KiB.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import mmap
import os
import resource
from pathlib import Path
from typing import Final

from spike.error import SettingError

_MEMFD_SECRET: Final = 447  # the same number on every architecture of Linux >= 5.14
SIZE_LIMIT_BYTES: Final = 64 * 1024
_MADV_WIPEONFORK: Final = 18  # not in the mmap module of Python 3.11


@functools.cache
def libc() -> ctypes.CDLL:
    """Return the C library, loaded at first use, with errno kept for each thread."""
    return ctypes.CDLL(None, use_errno=True)


class Page:
    """One locked mapping of whole pages, zeros at first.

    `wiped` is set for good by `wipe` and by a fork (in the child). Nothing but the owner of a page
    writes to it; views that are still exported keep it mapped, so a late access meets zeros, never
    somebody else's memory.
    """

    __slots__ = ("_map", "address", "borrowed", "descriptor", "secret", "size_bytes", "wiped")

    def __init__(self, mapping: mmap.mmap, descriptor: int | None, secret: str) -> None:
        self._map = mapping
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        self.size_bytes = len(mapping)
        self.descriptor = descriptor  # owned; None for memory that cannot be shared
        self.secret = secret  # the mechanism, for reports: "memfd_secret" or "mlock"
        self.borrowed = False  # another process owns the bytes, and it alone overwrites them
        self.wiped = False

    def view(self) -> memoryview:
        """Return a writable view of the whole page; the caller releases it."""
        return memoryview(self._map)

    def wipe(self) -> None:
        """Overwrite what is ours, close the descriptor, unmap when no view is left. Idempotent."""
        if self.wiped:
            return
        self.wiped = True
        if not self.borrowed:
            self._map[:] = bytes(self.size_bytes)
        self._drop()

    def forget_after_fork(self) -> None:
        """Give the page up in a forked child, without touching it: it is not mapped there."""
        self.wiped = True
        self._drop()

    def _drop(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
        # While a view is held, the mapping (zeros by now) stays; it goes with its last holder.
        with contextlib.suppress(BufferError):
            self._map.close()


def open_page(size_bytes: int) -> Page:
    """Map locked pages of at least `size_bytes` for this process alone.

    Raises:
        SettingError: RLIMIT_MEMLOCK leaves no room.
    """
    length = _whole_pages(size_bytes)
    descriptor = _secret_descriptor(length)
    if descriptor is None:
        mapping = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        _lock(mapping, _MADV_WIPEONFORK)
        return Page(mapping, None, "mlock")
    try:
        return Page(_map_secret(descriptor, length), None, "memfd_secret")
    finally:
        os.close(descriptor)


def open_shareable_page(size_bytes: int) -> Page:
    """Map locked pages whose `descriptor` an exec'd child can map too.

    Raises:
        SettingError: RLIMIT_MEMLOCK leaves no room.
    """
    length = _whole_pages(size_bytes)
    descriptor = _secret_descriptor(length)
    if descriptor is None:
        descriptor = os.memfd_create("spike", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, length)
    return _map_shared(descriptor, length)


def adopt_page(descriptor: int, size_bytes: int) -> Page:
    """Map what another process shares through `descriptor`, which the page owns from now on.

    The bytes stay that process's: wiping the page here unmaps it and overwrites nothing.

    Raises:
        SettingError: it holds less than `size_bytes`, or RLIMIT_MEMLOCK leaves no room.
    """
    page = _map_shared(descriptor, _whole_pages(size_bytes))
    page.borrowed = True
    return page


def _map_shared(descriptor: int, length: int) -> Page:
    try:
        os.set_inheritable(descriptor, False)
        _check_size(descriptor, length)
        # mlock(2) fails on memfd_secret, which is locked by nature: the name tells them apart.
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("/secretmem"):
            return Page(_map_secret(descriptor, length), descriptor, "memfd_secret")
        mapping = mmap.mmap(descriptor, length, flags=mmap.MAP_SHARED)
        _lock(mapping, mmap.MADV_DONTFORK)
        return Page(mapping, descriptor, "mlock")
    except BaseException:
        os.close(descriptor)
        raise


def _check_size(descriptor: int, length: int) -> None:
    if os.fstat(descriptor).st_size < length:  # touching a page beyond the end kills the process
        raise SettingError("the shared key memory is smaller than the key")


def _whole_pages(size_bytes: int) -> int:
    if not 1 <= size_bytes <= SIZE_LIMIT_BYTES:
        raise ValueError("key memory holds 1 to 65,536 bytes")
    return -(-size_bytes // mmap.PAGESIZE) * mmap.PAGESIZE


def _secret_descriptor(length: int) -> int | None:
    """Return a memfd_secret of `length` bytes, or None where the kernel has none to give."""
    descriptor: int = libc().syscall(_MEMFD_SECRET, os.O_CLOEXEC)
    if descriptor < 0:
        return None  # ENOSYS (old kernel, secretmem.enable=0) or EPERM (a seccomp filter)
    os.ftruncate(descriptor, length)
    return descriptor


def _map_secret(descriptor: int, length: int) -> mmap.mmap:
    try:
        mapping = mmap.mmap(descriptor, length, flags=mmap.MAP_SHARED)
    except OSError as error:
        raise _no_room(error) from error
    mapping.madvise(mmap.MADV_DONTFORK)
    mapping.madvise(mmap.MADV_DONTDUMP)
    return mapping


def _lock(mapping: mmap.mmap, fork_advice: int) -> None:
    mapping.madvise(fork_advice)
    mapping.madvise(mmap.MADV_DONTDUMP)
    pages = (ctypes.c_char * len(mapping)).from_buffer(mapping)
    failed = libc().mlock(pages, ctypes.c_size_t(len(mapping)))
    number = ctypes.get_errno()
    del pages  # an exported pointer would keep the mapping from being closed
    if failed:
        mapping.close()
        raise _no_room(OSError(number, os.strerror(number)))


def _no_room(error: OSError) -> Exception:
    if error.errno not in {errno.EAGAIN, errno.ENOMEM, errno.EPERM}:
        return error
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return SettingError(
        f"no more memory can be locked for keys (RLIMIT_MEMLOCK is {limit} bytes)",
        "raise the limit: `ulimit -l`, or LimitMEMLOCK= in the systemd unit",
    )
