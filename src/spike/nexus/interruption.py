"""Work that somebody else may end because he wants something else done first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def unless(interrupt: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Do some work until `interrupt` is set, and return what it gives; None where it was ended before.

    What is `unbroken` in it goes on to its end first.
    """
    task = asyncio.ensure_future(work)
    interrupted = asyncio.ensure_future(interrupt.wait())
    try:
        await asyncio.wait({task, interrupted}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        return None if task.cancelled() else task.result()
    finally:
        interrupted.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
