"""How long work is shown: a bar, counts, rate, time left. Pure, but for `Line`, which draws on a terminal."""

from __future__ import annotations

import os
import sys
from typing import Final

_CELLS: Final = 24


def bar(done: int, expected: int) -> str:
    """Return a bar and the share done; work that was not expected makes it no longer."""
    share = min(done / expected, 1.0) if expected else 0.0
    filled = int(share * _CELLS)
    return f"[{'#' * filled}{'.' * (_CELLS - filled)}] {int(share * 100):3d}%"


def duration(seconds: int) -> str:
    """Return a length of time as a person says it: the two largest units."""
    minutes, second = divmod(max(seconds, 0), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minute} min"
    return f"{minute} min {second} s" if minute else f"{second} s"


def size(size_bytes: int) -> str:
    """Return a number of bytes in the largest unit of which there is at least one."""
    amount, unit = float(size_bytes), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "bytes" or amount >= 10 else f"{amount:.1f} {unit}"


class Line:
    """One line of standard error that is drawn again and again; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._drawn = False
        self._shown = sys.stderr.isatty()

    def draw(self, text: str) -> None:
        """Show `text` in the place of what was shown before, as much of it as fits on one line."""
        if self._shown:
            # What runs over into a second line could not be taken away again. A terminal may not know its width: 0.
            columns = os.get_terminal_size(sys.stderr.fileno()).columns
            sys.stderr.write(f"\r\x1b[K{text[: columns - 1] if columns else text}")
            sys.stderr.flush()
            self._drawn = True

    def clear(self) -> None:
        """Take the line away, before anything else is shown."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False
