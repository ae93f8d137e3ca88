"""Run a command that ends when the process that started it ends, even if that is killed. A script.

    python -I tether.py PARENT SIGNAL COMMAND [ARGUMENT…]

The kernel sends SIGNAL to the command when PARENT, the process that started it, has gone
(PR_SET_PDEATHSIG, prctl(2)); it keeps that over exec. Doing it here and not between fork and exec
of the parent leaves the parent free to have threads. Nothing of SPIKE is imported: a few milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_NOT_STARTED: Final = 127


def follow_parent(parent: int, number: int) -> bool:
    """Tie the life of this process to its parent's; False when that has gone already."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # Had it died before the call, the signal would never come.
    return os.getppid() == parent


def main() -> None:
    """Become the command."""
    parent, number, command = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    if not follow_parent(parent, number):
        sys.exit(_NOT_STARTED)
    try:
        os.execv(command[0], command)  # noqa: S606  no shell is the point
    except OSError as error:
        sys.stderr.write(f"{command[0]} cannot be run: {error.strerror}\n")
        sys.exit(_NOT_STARTED)


if __name__ == "__main__":
    main()
