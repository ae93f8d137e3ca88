"""A child process of Nexus that works with keys in pages shared with it: started by exec, and ended for certain."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence


class Child:
    """One child process. Whoever starts it ends it."""

    def __init__(self, module: str, descriptors: Sequence[int]) -> None:
        """Start `python -m module` with these descriptors open and named in its arguments; takes about a millisecond.

        Not the event loop's own way: uvloop runs at-fork hooks in the child before exec, and the one of spike.memory
        lets go of the very pages that are handed over.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", module, *map(str, descriptors)],
            pass_fds=descriptors,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={},
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_gone(self) -> bool:
        """Whether it has ended and was waited for."""
        return self._process.returncode is not None

    async def end(self) -> None:
        """Kill it and wait for it. Idempotent. It is waited for also when the awaiting task is cancelled."""
        self._process.kill()
        # Not to_thread(): a cancellation would take the waiting back while all threads are busy.
        waiting = asyncio.get_running_loop().run_in_executor(None, self._process.wait)
        await asyncio.shield(waiting)
