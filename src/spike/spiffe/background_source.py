"""A live source for programs without an event loop: the same source, on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime

from spike.spiffe.peer import Peer
from spike.spiffe.source import Callback, Unsubscribe
from spike.spiffe.svid import X509Material
from spike.spiffe.workload_source import X509Source


class BackgroundSource:
    """Follows the Workload API until closed. Any thread may use it.

    The thread is a daemon: it has nothing to finish, so it must not keep a program alive.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, source: X509Source) -> None:
        """Use `open`."""
        self._loop = loop
        self._source = source
        self._closed = threading.Event()

    @classmethod
    def open(cls, socket: str | None, timeout_s: float) -> BackgroundSource:
        """Wait for the first good material. Arguments and errors are those of `X509Source.open`."""
        loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(loop,), name="workload-api", daemon=True).start()
        opening = asyncio.run_coroutine_threadsafe(X509Source.open(socket, timeout_s), loop)
        try:
            return cls(loop, opening.result())
        except BaseException:
            opening.cancel()
            loop.call_soon_threadsafe(loop.stop)
            raise

    @property
    def material(self) -> X509Material:
        """The newest good material; the last one after `close`."""
        return self._source.material

    def subscribe(self, callback: Callback) -> Unsubscribe:
        """Call back, on the source's thread, with each new material from now on."""
        return self._source.subscribe(callback)

    def still_trusts(self, peer: Peer, now: datetime) -> bool:
        """Tell whether a peer verified earlier would still be trusted now."""
        return self._source.still_trusts(peer, now)

    def close(self) -> None:
        """Stop following. A second call does nothing."""
        if self._closed.is_set():
            return
        self._closed.set()
        asyncio.run_coroutine_threadsafe(self._source.close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
        loop.run_until_complete(_end_others())
    finally:
        loop.close()


async def _end_others() -> None:
    """Let what a caller that stopped waiting has cancelled clean up."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
