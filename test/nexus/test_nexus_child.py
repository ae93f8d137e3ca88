"""Children that work with keys: whatever is cancelled, none is left behind."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from around_kit import eventually
from spike.nexus.child import Child
from spike.nexus.password_desk import PasswordDesk


def children() -> set[str]:
    """Return the processes of this thread that were not waited for, also those that have ended."""
    own = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children"
    return set(Path(own).read_text(encoding="ascii").split())


def child() -> Child:
    """A child that waits for nothing: without its descriptors it ends by itself, or is killed before."""
    return Child("spike.nexus.reencryption_child", ())


async def test_it_is_waited_for_though_every_thread_is_busy_and_the_wait_is_cancelled() -> None:
    started, go_on = child(), threading.Event()
    loop = asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, go_on.wait) for _ in range(64)]
    ending = asyncio.create_task(started.end())
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    go_on.set()
    await asyncio.gather(*busy)
    await eventually(lambda: started.is_gone)
    assert str(started.pid) not in children()


async def test_ending_it_twice_is_no_fault() -> None:
    started = child()
    await started.end()
    await started.end()
    assert started.is_gone


async def test_a_session_that_is_cancelled_while_its_child_starts_leaves_none_behind() -> None:
    before = children()
    for turns in range(6):
        beginning = asyncio.create_task(PasswordDesk().begin_without_password("anybody"))
        for _ in range(turns):
            await asyncio.sleep(0)
        beginning.cancel()
        with pytest.raises(asyncio.CancelledError):
            await beginning
    await eventually(lambda: children() <= before)
