"""The `usage` record: what was sealed is counted in memory and added up there, half a minute behind.

Several Nexus on one store add to the same record, each by compare-and-swap. What cannot be added is counted again at
the next time. No request waits for any of it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from spike.error import FenceError, FormatError, OpenError, SpikeError, StoreConflictError
from spike.lifecycle import usage as rules
from spike.lifecycle.due import moment_of
from spike.lifecycle.usage import Usage
from spike.nexus.opened import Opened
from spike.nexus.vault import Vault
from spike.storage.protocol import MUST_NOT_EXIST, USAGE, Expected, RecordId
from spike.wire.go_time import UnixNs, go_time

USAGE_ID: Final = RecordId(USAGE, "current")
INTERVAL_S: Final = 30.0
# However little is sealed, the record tells once an hour that Nexus runs: a clock that is wrong at the next start
# shows by it.
_LONGEST_SILENCE_S: Final = 3600.0
_ATTEMPTS: Final = 8
_NS_PER_S: Final = 1_000_000_000
_log = logging.getLogger("spike.nexus.usage")


class UsageBook:
    """Adds up what one vault's keys have sealed."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._flushing = asyncio.Lock()
        self._seen = False
        self._written_s: float | None = None

    async def now(self) -> Usage:
        """Return the usage as stored, with what was counted here since.

        Raises:
            NotReadyError: there is no root key.
            StoreError: it cannot be read.
        """
        stored, _ = await self._read(self._vault.opened)
        count = self._vault.seal_count
        at = self._at() if stored is None else stored.at
        return rules.added(stored, count.record, count.cipher, at)

    async def run(self) -> None:
        """Add up every half minute until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.try_flush()

    async def try_flush(self) -> None:
        """Add up if there is something to add; what fails is told in the log and done the next time."""
        try:
            await self.flush()
        except SpikeError as error:
            _log.error("usage is added up later: %s", error.message)
        except Exception:  # noqa: BLE001  a loop that ends would be missed by nobody
            _log.exception("usage is added up later")

    async def flush(self) -> None:
        """Add what was counted to the record, if there is something or an hour has passed.

        Raises:
            StoreError: it could not be added; it is still counted.
        """
        vault = self._vault
        if not vault.is_open or vault.stops:
            return
        async with self._flushing:
            await self._note_seen()
            now_s = vault.life.steady_s
            silent = self._written_s is None or now_s - self._written_s >= _LONGEST_SILENCE_S
            if not vault.seal_count and not silent:
                return
            await self._add()
            self._written_s = now_s

    async def _note_seen(self) -> None:
        """Before this process writes it first: tell when a Nexus wrote it last."""
        if self._seen:
            return
        stored, _ = await self._read(self._vault.opened)
        if stored is not None:
            self._vault.life.note_seen(moment_of(stored.at))
        self._seen = True

    async def _add(self) -> None:
        count = self._vault.seal_count
        for _ in range(_ATTEMPTS):
            opened = self._vault.opened
            stored, expected = await self._read(opened)
            generation = opened.ring.active_record.generation
            # The record that holds the sum is sealed, too; it counts itself, so that counting comes to rest.
            taken = count.take()
            taken.record[generation] += 1
            added = rules.added(stored, taken.record, taken.cipher, self._at())
            put = opened.sealed.put(USAGE_ID, rules.encode(added), expected)
            count.record[generation] -= 1
            try:
                await opened.sealed.apply((put,))
            except FenceError:
                count.give_back(taken)
                await self._vault.settled()
            except StoreConflictError:
                count.give_back(taken)
            except BaseException:
                count.give_back(taken)
                raise
            else:
                return
        raise StoreConflictError("the usage record changes faster than it can be added to")

    async def _read(self, opened: Opened) -> tuple[Usage | None, Expected]:
        """Return the record and what to expect in its place. One that is damaged is begun anew: it decides nothing."""
        record = await opened.sealed.fetch(USAGE_ID)
        if record is None:
            return None, MUST_NOT_EXIST
        try:
            return rules.decode_untrusted(opened.sealed.open(record)), record.revision
        except (OpenError, FormatError) as error:
            _log.error("the usage record is begun anew: %s", error.message)
            return None, record.revision

    def _at(self) -> str:
        """Return the moment that is believed: a date that a wrong clock wrote would outlast the wrong clock."""
        at_s = self._vault.life.belief(self._vault.opened.document).at_s
        return str(go_time(UnixNs(int(at_s) * _NS_PER_S)))
