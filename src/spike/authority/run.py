"""`spike-authority run`: one command with one identity, as if it had been started without us.

The command is in the same process group and has the same terminal, so a hidden prompt and Ctrl-C reach
it. What is sent to the launcher alone is passed on; the launcher ends when the command ends, with the
same code. When the launcher is killed, the kernel sends the command SIGTERM and Authority withdraws
its identity.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from spike.client.launch import Command, Launcher, inherited_descriptors
from spike.spiffe.id import SpiffeId

_PASSED_ON: Final = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGWINCH,
    }
)
# What the terminal sends goes to the whole process group: the command has it already.
_FROM_TERMINAL: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH})
# siginfo's si_code of a signal that the kernel itself has sent (asm-generic/siginfo.h).
_SI_KERNEL: Final = 0x80


def run(control: Path, spiffe_id: SpiffeId, arguments: Sequence[str]) -> int:
    """Run a command with an identity and return its exit code, or 128 + n if signal n ended it.

    Changes this process's signal mask: only for a program that does nothing else.

    Raises:
        SpikeError: no identity, or the command cannot be executed; see `Launcher.start`.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    watched = _PASSED_ON | {signal.SIGCHLD}
    # Before any thread is made, so that none but this one ever takes a signal.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    command = Command(
        arguments,
        descriptors=inherited_descriptors(),
        blocked_signals=frozenset(int(each) for each in before),
    )
    with Launcher(control) as launcher:
        process = launcher.start(spiffe_id, command)
        code = _watch(process, watched)
    return code if code >= 0 else 128 - code


def _watch(process: subprocess.Popen[bytes], watched: frozenset[signal.Signals]) -> int:
    """Pass signals on until the command has ended; return its code as Popen gives it."""
    while (code := process.poll()) is None:
        # Blocked signals wait for us: one that came before this call is not lost.
        received = signal.sigwaitinfo(watched)
        if received.si_signo == signal.SIGCHLD:
            continue
        if received.si_signo in _FROM_TERMINAL and received.si_code == _SI_KERNEL:
            continue
        process.send_signal(received.si_signo)
    return code
