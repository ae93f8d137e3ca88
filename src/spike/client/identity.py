"""The client's own identity, kept alive beside blocking code.

Following the Workload API is asynchronous; a blocking client has no event loop. So the source lives on
one of its own, in a thread, for as long as the client.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from datetime import datetime

from spike.spiffe.peer import Peer
from spike.spiffe.source import Callback, Unsubscribe
from spike.spiffe.svid import X509Material
from spike.spiffe.workload_source import X509Source


class ThreadedSource:
    """An `X509Source` on a thread of its own. Use it as a context manager, or close it."""

    def __init__(self, socket: str | None, timeout_s: float) -> None:
        """Fetch the first material; follow what comes after it.

        Raises:
            WorkloadApiError: no identity within `timeout_s`, or the Workload API is out of reach.
            SettingError: the socket's address is wrong, or others could replace the socket.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="spike-identity", daemon=True
        )
        self._thread.start()
        opening: Future[X509Source] = asyncio.run_coroutine_threadsafe(
            X509Source.open(socket, timeout_s), self._loop
        )
        try:
            self._source = opening.result()
        except BaseException:
            opening.cancel()
            self._stop()
            raise

    @property
    def material(self) -> X509Material:
        """The newest good material."""
        return self._source.material

    def subscribe(self, callback: Callback) -> Unsubscribe:
        """Call back with each later material, on the source's thread."""
        return self._source.subscribe(callback)

    def still_trusts(self, peer: Peer, now: datetime) -> bool:
        """Tell whether a peer verified earlier would still be trusted now."""
        return self._source.still_trusts(peer, now)

    def close(self) -> None:
        """Stop following. Idempotent."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._source.close(), self._loop).result()
            self._stop()

    def _stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
