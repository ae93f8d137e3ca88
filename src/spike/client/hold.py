"""A process that waits for its identity and then becomes the command. Run as a script, by launch.py.

    python -I -S hold.py CHANNEL PARENT MASK COMMAND…

CHANNEL is a stream socket: one byte comes in when the process has its identity; out goes nothing if
the command was executed (the socket closes by that), else the error number. PARENT is the process
that must still be the parent; MASK are the signals to block, comma-separated.

Nothing of SPIKE is imported and no site directory read: this starts in a few milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Wait, then execute the command; return only if that failed."""
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    # When the launcher is killed, its grants are withdrawn: the command is asked to end rather
    # than left to run without an identity. The signal stays set over execve(2).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(arguments[1]):
        return 1  # the launcher was gone before the signal was asked for
    try:
        if not channel.recv(1):
            return 1
    except OSError:
        return 1
    # Python ignores these; the command must find them as usual.
    for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [int(n) for n in arguments[2].split(",") if n])
    command = arguments[3:]
    try:
        os.execvp(command[0], command)  # noqa: S606  no shell is the point
    except OSError as error:
        channel.sendall(str(error.errno).encode("ascii"))
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
