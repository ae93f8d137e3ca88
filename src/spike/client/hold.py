"""A process that waits for its identity and then becomes the command. Run as a script, by launch.py.

    python -I -S hold.py CHANNEL PARENT MASK COMMAND…

CHANNEL is a stream socket: when the process has its identity, the address of the Workload API comes
in, a line; out goes nothing if the command was executed (the socket closes by that), else the error
number. PARENT is the process
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
_LINE_LIMIT_BYTES = 4096


def main(arguments: list[str]) -> int:
    """Wait, then execute the command; return only if that failed."""
    channel = socket.socket(fileno=int(arguments[0]))
    channel.set_inheritable(False)
    # When the launcher is killed, its grants are withdrawn: the command is asked to end rather
    # than left to run without an identity. The signal stays set over execve(2).
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(arguments[1]):
        return 1  # the launcher was gone before the signal was asked for
    line = channel.makefile("rb").readline(_LINE_LIMIT_BYTES)
    if not line.endswith(b"\n"):
        return 1  # no identity: the launcher has said why
    os.environb[b"SPIFFE_ENDPOINT_SOCKET"] = line.strip()
    # Python has taken these over; the command must find them as usual.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
        if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [int(n) for n in arguments[2].split(",") if n])
    command = arguments[3:]
    try:
        os.execvp(command[0], command)  # noqa: S606  no shell is the point
    except OSError as error:
        channel.sendall(str(error.errno).encode("ascii"))
    return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
