"""`spike-nexus` with a performer that ends the process at one durable effect of a rotation. For tests alone.

Usage: killing_nexus.py POINT COUNT before|behind — SIGKILL at the COUNT-th effect of that name, from 1.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from spike.nexus.performer import Performer, Point
from spike.nexus.service import serve
from spike.nexus.setting import read_setting
from spike.server import log
from spike.server.program import Program, run

T = TypeVar("T")


class KillingPerformer(Performer):
    """Performs as the shipped one does, until it kills."""

    def __init__(self, point: Point, count: int, side: str) -> None:
        self._point, self._left, self._side = point, count, side

    async def do(self, point: Point, act: Callable[[], Awaitable[T]]) -> T:
        if point is not self._point:
            return await act()
        self._left -= 1
        if not self._left and self._side == "before":
            _die()
        done = await act()
        if not self._left:
            _die()
        return done


def _die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("killed")


def main() -> None:
    """Run Nexus as its program does."""
    point, count, side = Point(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    async def served(stop: asyncio.Event) -> None:
        setting = read_setting(os.environ, Path("~"))
        log.start(setting.log_level)
        await serve(setting, stop, asyncio.Event(), KillingPerformer(point, count, side))

    sys.exit(run(Program("spike-nexus", "", served), []))


if __name__ == "__main__":
    main()
