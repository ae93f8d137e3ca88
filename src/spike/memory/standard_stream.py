"""Standard input, output and error: their numbers are never those of a file of ours.

Whoever starts a program may have closed them. The kernel gives the lowest free number to the next file
that is opened, so what is written to standard error would go into a store, a key or a socket.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Final

# The wrong way round on purpose, as the C library does it for a set-user-ID program: who reads or writes
# is told that it does not work, as on the closed one, instead of reading nothing and losing everything.
# Standard error takes what is said: there is nobody to tell that nobody hears it.
_OPENED: Final = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}


def occupy() -> None:
    """Open `/dev/null` on each of the numbers 0 to 2 that is closed. Call it before anything is opened."""
    for number, flags in _OPENED.items():
        try:
            os.fstat(number)
        except OSError:
            _open_null(number, flags)
    # The interpreter has left out those that were closed when it started.
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  as long as the process
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def silence(number: int) -> None:
    """Let what is still to come on 1 or 2 go nowhere: what is there cannot take it.

    The interpreter writes out what is left when it ends, and would complain that it cannot, with a
    code of its own (120).
    """
    _open_null(number, os.O_WRONLY)


@contextlib.contextmanager
def heard_or_not() -> Iterator[None]:
    """Say something on standard error inside. Where that cannot be written, the exit code still says it."""
    try:
        yield
    except OSError:
        silence(2)


def _open_null(number: int, flags: int) -> None:
    descriptor = os.open(os.devnull, flags)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.set_inheritable(number, True)
