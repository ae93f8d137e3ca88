"""Where keys lie: many small cells in few locked pages, and a way to wipe them all.

RLIMIT_MEMLOCK counts pages, and a 32-byte key in a page of its own would use up 64 KiB with sixteen
keys. So private key memory is handed out in cells of a shared page.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import Final

from spike.memory.page import SIZE_LIMIT_BYTES, Page, adopt_page, open_page, open_shareable_page

_CELL_BYTES: Final = 32


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """A run of bytes in a locked page, held by one KeyMemory."""

    page: Page
    offset: int
    size_bytes: int


class Arena:
    """Hands out places in locked pages.

    `give_back` may run inside a garbage collection, at any point of any thread, also in the middle
    of `take`. It therefore takes no lock and changes no table: it appends to a queue that the next
    `take` works off.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._used: dict[Page, int] = {}  # page -> bit mask of its used cells
        self._alone: set[Page] = set()  # shareable pages: one key each
        self._held: set[Place] = set()  # handed out; so that a place given back twice counts once
        self._returned: deque[Place] = deque()
        self._watches_fork = False

    def take(self, size_bytes: int) -> Place:
        """Return a zeroed place of this process's own.

        Raises:
            SettingError: RLIMIT_MEMLOCK leaves no room.
            ValueError: a size outside 1 to 65,536 bytes.
        """
        if not 1 <= size_bytes <= SIZE_LIMIT_BYTES:
            raise ValueError("key memory holds 1 to 65,536 bytes")
        cells = -(-size_bytes // _CELL_BYTES)
        mask = (1 << cells) - 1
        with self._lock:
            self._watch_fork()
            self._sweep()
            for page, used in self._used.items():
                for shift in range(page.size_bytes // _CELL_BYTES - cells + 1):
                    if not used >> shift & mask:
                        self._used[page] = used | mask << shift
                        return self._hand_out(Place(page, shift * _CELL_BYTES, size_bytes))
            page = open_page(size_bytes)
            self._used[page] = mask
            return self._hand_out(Place(page, 0, size_bytes))

    def take_shareable(self, size_bytes: int) -> Place:
        """Return a zeroed place in a page of its own that an exec'd child can map.

        Raises:
            SettingError: RLIMIT_MEMLOCK leaves no room.
        """
        return self._hold_alone(open_shareable_page(size_bytes), size_bytes)

    def adopt(self, descriptor: int, size_bytes: int) -> Place:
        """Return the place another process shares through `descriptor`.

        Raises:
            SettingError: it is too small, or RLIMIT_MEMLOCK leaves no room.
        """
        return self._hold_alone(adopt_page(descriptor, size_bytes), size_bytes)

    def give_back(self, place: Place) -> None:
        """Take back a place that its holder has overwritten. Idempotent."""
        self._returned.append(place)

    def pages(self) -> tuple[Page, ...]:
        """Return every page that is mapped, also those whose keys are all gone."""
        with self._lock:
            self._sweep()
            return (*self._used, *self._alone)

    def wipe(self) -> None:
        """Overwrite and unmap every page; each key in them is gone."""
        with self._lock:
            for page in (*self._used, *self._alone):
                page.wipe()
            self._used.clear()
            self._alone.clear()
            self._held.clear()
            self._returned.clear()

    def _hold_alone(self, page: Page, size_bytes: int) -> Place:
        with self._lock:
            self._watch_fork()
            self._alone.add(page)
            return self._hand_out(Place(page, 0, size_bytes))

    def _hand_out(self, place: Place) -> Place:
        self._held.add(place)
        return place

    def _sweep(self) -> None:
        """Free what was given back, but keep one empty page: keys come and go all the time."""
        while self._returned:
            place = self._returned.popleft()
            if place not in self._held:
                continue
            self._held.discard(place)
            if place.page in self._alone:
                self._alone.discard(place.page)
                place.page.wipe()
            else:
                cells = -(-place.size_bytes // _CELL_BYTES)
                self._used[place.page] &= ~(((1 << cells) - 1) << place.offset // _CELL_BYTES)
        empty = [page for page, used in self._used.items() if not used]
        spare = next((page for page in empty if page.size_bytes == mmap.PAGESIZE), None)
        for page in empty:
            if page is not spare:
                del self._used[page]
                page.wipe()

    def _watch_fork(self) -> None:
        if not self._watches_fork:
            os.register_at_fork(after_in_child=self._forget_after_fork)
            self._watches_fork = True

    def _forget_after_fork(self) -> None:
        for page in (*self._used, *self._alone):
            page.forget_after_fork()
        self._lock = threading.Lock()  # another thread of the parent may have held it
        self._used.clear()
        self._alone.clear()
        self._held.clear()
        self._returned.clear()


ARENA: Final = Arena()
"""The arena of this process. It is empty until the first key, and it is one, because the end of a
process must find every key whoever made it. Only KeyMemory and spike.memory.process use it."""
