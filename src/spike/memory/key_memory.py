"""KeyMemory: the only holder of root and data keys.

The bytes lie in locked pages (spike.memory.page), are made there by getrandom(2), and are
overwritten when they are no longer needed. Whoever needs them takes a view for the length of one
call:

    with key.view() as view:
        AESGCM(view).encrypt(...)

What Python cannot promise: a callee may copy the view. Which libraries do was measured; see
docs/decision/record-format.md. `bytes(view)`, `view.hex()`, `view.tobytes()` and `int.from_bytes`
do, and a lint rule (test/test_key_lint.py) forbids them where keys are handled.
"""

from __future__ import annotations

import ctypes
import errno
import hmac
import os
from types import TracebackType
from typing import NoReturn, Self

from spike.error import WipedError
from spike.memory.arena import ARENA, Place
from spike.memory.page import libc

KEY_BYTES = 32


class KeyMemory:
    """Secret bytes of one fixed size in locked memory, from their making until `wipe`.

    Usable as a context manager that wipes. After `wipe`, after `wipe_all`, and in a forked child
    every use raises WipedError.
    """

    __slots__ = ("__weakref__", "_open_views", "_place", "_wiped")

    def __init__(self, place: Place) -> None:
        """Private: use `generate`, `allocate`, `allocate_shareable` or `adopt`."""
        self._place = place
        self._open_views: set[_View] = set()
        self._wiped = False

    @classmethod
    def generate(cls, size_bytes: int = KEY_BYTES) -> Self:
        """Return fresh random bytes from the kernel, written by it straight into the locked page.

        Raises:
            SettingError: RLIMIT_MEMLOCK leaves no room.
        """
        memory = cls.allocate(size_bytes)
        try:
            memory.randomize()
        except BaseException:
            memory.wipe()
            raise
        return memory

    @classmethod
    def allocate(cls, size_bytes: int) -> Self:
        """Return zeros, to be filled through a view.

        Raises:
            SettingError: RLIMIT_MEMLOCK leaves no room.
        """
        return cls(ARENA.take(size_bytes))

    @classmethod
    def allocate_shareable(cls, size_bytes: int) -> Self:
        """Return zeros in a page of their own, with a `descriptor` for an exec'd child.

        Raises:
            SettingError: RLIMIT_MEMLOCK leaves no room.
        """
        return cls(ARENA.take_shareable(size_bytes))

    @classmethod
    def adopt(cls, descriptor: int, size_bytes: int) -> Self:
        """Map what a parent shares through `descriptor`, which is owned (and closed) by the result.

        What is written here is the parent's: `wipe` lets go of it and overwrites nothing.

        Raises:
            SettingError: it is smaller than `size_bytes`, or RLIMIT_MEMLOCK leaves no room.
        """
        return cls(ARENA.adopt(descriptor, size_bytes))

    @property
    def size_bytes(self) -> int:
        """How many bytes it holds."""
        return self._place.size_bytes

    @property
    def wiped(self) -> bool:
        """Whether the bytes are gone."""
        return self._wiped or self._place.page.wiped

    def view(self) -> _View:
        """Return a context manager that lends a writable memoryview and releases it.

        Slices taken from it must not outlive it: their place may hold another key later.

        Raises (on entering):
            WipedError: the bytes are gone.
        """
        return _View(self)

    def randomize(self) -> None:
        """Fill with random bytes from getrandom(2), in place. (`os.urandom` would leave a copy.)

        Raises:
            WipedError: the bytes are gone.
        """
        with self.view() as view:
            done = 0
            while done < self.size_bytes:
                target = (ctypes.c_char * (self.size_bytes - done)).from_buffer(view, done)
                got = libc().getrandom(target, ctypes.c_size_t(self.size_bytes - done), 0)
                number = ctypes.get_errno()
                del target
                if got < 0 and number != errno.EINTR:
                    raise OSError(number, os.strerror(number))
                done += max(got, 0)

    def descriptor(self) -> int:
        """Return the descriptor of shareable memory, for `pass_fds` of a child; it stays ours.

        Raises:
            WipedError: the bytes are gone.
            ValueError: this memory is not shareable.
        """
        if self.wiped:
            raise WipedError("key memory was used after it was wiped")
        if self._place.page.descriptor is None:
            raise ValueError("this key memory is not shareable")
        return self._place.page.descriptor

    def same_as(self, other: KeyMemory) -> bool:
        """Tell whether both hold the same bytes, in time that depends on their sizes alone.

        Raises:
            WipedError: the bytes of either are gone.
        """
        with self.view() as mine, other.view() as theirs:
            return hmac.compare_digest(mine, theirs)

    def duplicate(self) -> KeyMemory:
        """Return another locked memory with the same bytes, which is the caller's to wipe.

        Raises:
            WipedError: the bytes are gone.
        """
        other = KeyMemory.allocate(self.size_bytes)
        try:
            with self.view() as source, other.view() as target:
                target[:] = source
        except BaseException:
            other.wipe()
            raise
        return other

    def wipe(self) -> None:
        """Overwrite the bytes with zeros (adopted ones are let go of). Idempotent.

        A view still open reads zeros from now on.
        """
        if self._wiped:
            return
        self._wiped = True
        page = self._place.page
        if page.wiped:
            return
        if not page.borrowed:
            with self._slice() as part:
                part[:] = bytes(len(part))
        self._settle()

    def _slice(self) -> memoryview:
        place = self._place
        return place.page.view()[place.offset : place.offset + place.size_bytes]

    # Threads share keys, and a garbage collection may wipe one at any point, so no lock is taken:
    # a borrower is noted before it is looked whether the key is wiped, a wipe marks the key before
    # it looks for borrowers, and a place given back twice counts once.

    def _lend(self, borrower: _View) -> memoryview:
        self._open_views.add(borrower)
        if self._wiped or self._place.page.wiped:
            self._open_views.discard(borrower)
            self._settle()
            raise WipedError("key memory was used after it was wiped")
        return self._slice()

    def _take_back(self, borrower: _View, view: memoryview) -> None:
        if self._wiped and not (self._place.page.wiped or self._place.page.borrowed):
            view[:] = bytes(len(view))  # the borrower may have written after the wipe
        view.release()
        self._open_views.discard(borrower)
        if self._wiped:
            self._settle()

    def _settle(self) -> None:
        if self._wiped and not self._open_views:
            ARENA.give_back(self._place)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.wipe()

    def __del__(self) -> None:
        self.wipe()

    def __repr__(self) -> str:
        return f"KeyMemory({self.size_bytes} bytes, {'wiped' if self.wiped else 'held'})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("key memory can be neither pickled nor copied")

    def __copy__(self) -> NoReturn:
        raise TypeError("key memory can be neither pickled nor copied")

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise TypeError("key memory can be neither pickled nor copied")


class _View:
    """Lends one view of a KeyMemory. A class, not a generator: it is on the request path."""

    __slots__ = ("_memory", "_view")

    def __init__(self, memory: KeyMemory) -> None:
        self._memory = memory
        self._view: memoryview | None = None

    def __enter__(self) -> memoryview:
        if self._view is not None:
            raise RuntimeError("a view is entered once")
        self._view = self._memory._lend(self)
        return self._view

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._view is not None:
            self._memory._take_back(self, self._view)


def wipe_all() -> None:
    """Overwrite and unmap every key this process holds. Programs call it last, on every way out."""
    ARENA.wipe()
