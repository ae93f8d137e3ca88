"""Every copy of the key backup is looked at daily and after each change, without a password.

What fails is named in the log, written again, and looked at once more. The rules are spike.lifecycle.backup_check. The
store's own copy is looked at, too, and never written over here: a keyring that is not ours may be another Nexus's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from spike.error import FormatError, SpikeError, StoreUnavailableError
from spike.lifecycle import backup, keyring
from spike.lifecycle.backup_check import (
    CopyFinding,
    CopyState,
    Present,
    judge_anchor_untrusted,
    judge_backup_untrusted,
    judge_keyring_untrusted,
)
from spike.lifecycle.keyring import UnconfirmedKeyring
from spike.nexus.opened import Opened
from spike.nexus.place_desk import PlaceState, Written
from spike.nexus.vault import KEYRING_ID, Vault

PERIOD_S: Final = 24 * 3600.0
RETRY_S: Final = 300.0
"""How soon it is looked again while a copy is not good."""
_TRIES: Final = 5
STORE: Final = ""
"""The name of the store's own copy; every other one is called by its path."""
_log = logging.getLogger("spike.nexus.backup")


@dataclass(frozen=True, slots=True)
class CopyReport:
    """How one copy is; `rewritten`: it was not good, and is since it was written again."""

    name: str
    finding: CopyFinding
    rewritten: bool = False


@dataclass(frozen=True, slots=True)
class BackupReport:
    """How every copy was at a moment."""

    at: str
    copies: tuple[CopyReport, ...]

    @property
    def is_good(self) -> bool:
        """Whether every copy is what it has to be."""
        return all(copy.finding.is_good for copy in self.copies)


class BackupWatch:
    """Looks at the copies of one vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._desk = vault.place_desk
        self._verifying = asyncio.Lock()
        self._alarmed: tuple[CopyReport, ...] = ()
        self.last: BackupReport | None = None
        """The last look since Nexus has started."""

    async def verify(self) -> BackupReport:
        """Look at every copy, write again what fails, and look at that once more.

        Raises:
            NotReadyError: there is no root key in memory.
            StoreError: the store does not answer.
        """
        async with self._verifying:
            found = await self._looked()
            bad = {copy.name for copy in found if not copy.finding.is_good}
            self._alarm(found)
            if bad - {STORE}:
                await self._vault.renew_places()
                again = await self._looked()
                found = tuple(
                    replace(copy, rewritten=copy.name in bad and copy.finding.is_good)
                    for copy in again
                )
            self.last = BackupReport(self._vault.moment(), found)
            return self.last

    async def copies(self) -> Sequence[tuple[str, UnconfirmedKeyring]]:
        """Read every copy of the keyring that can be read, each with its name."""
        found: list[tuple[str, UnconfirmedKeyring]] = []
        stored = await self._vault.store.get(KEYRING_ID)
        if stored is not None:
            with contextlib.suppress(FormatError):
                found.append((STORE, keyring.decode_untrusted(stored.blob)))
        store_id = self._vault.opened.document.store_id
        async with self._desk.lock:
            for state in self._desk.states:
                with contextlib.suppress(FormatError, StoreUnavailableError):
                    raw = await state.place.reach.call(state.place.read_backup, store_id)
                    if raw is not None:
                        copy = backup.decode_untrusted(raw).keyring
                        found.append((str(state.place.backup_path(store_id)), copy))
        return found

    async def run(self, period_s: float = PERIOD_S, retry_s: float = RETRY_S) -> None:
        """Go on until cancelled: a look after each change, and one each period."""
        while True:
            self._desk.renewed.clear()
            good = await self._turn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period_s if good else retry_s):
                    await self._desk.renewed.wait()

    async def _turn(self) -> bool:
        if not self._vault.is_open:
            return True  # the opening renews the places, and that is waited for
        try:
            return (await self.verify()).is_good
        except SpikeError as error:
            _log.error("the copies of the key backup could not be looked at: %s", error.message)
        except Exception:  # noqa: BLE001  a loop that ends would be missed by nobody
            _log.exception("the look at the key backup met a fault; it goes on")
        finally:
            # What was written again here calls for no further look.
            self._desk.renewed.clear()
        return False

    async def _looked(self) -> tuple[CopyReport, ...]:
        for _ in range(_TRIES):
            async with self._desk.lock:
                opened, written = self._vault.opened, self._desk.written
                if written is not None and written.is_of(opened.keyring_raw):
                    return (
                        await self._store_copy(opened),
                        *[await _place_copy(s, opened, written) for s in self._desk.states],
                    )
            # The keyring was replaced a moment ago, and the places are to be given it.
            await self._vault.renew_places()
        raise SpikeError("the keyring is replaced faster than its copies can be looked at")

    async def _store_copy(self, opened: Opened) -> CopyReport:
        stored = await self._vault.store.get(KEYRING_ID)
        raw = None if stored is None else stored.blob
        if raw == self._vault.opened.keyring_raw:
            opened = self._vault.opened  # it was replaced meanwhile
        return CopyReport(STORE, judge_keyring_untrusted(raw, _present(opened)))

    def _alarm(self, found: tuple[CopyReport, ...]) -> None:
        bad = tuple(copy for copy in found if not copy.finding.is_good)
        if bad != self._alarmed:
            for copy in bad:
                where = copy.name or "the store's keyring"
                _log.critical(
                    "a copy of the key backup is not good: %s: %s", where, copy.finding.detail
                )
        self._alarmed = bad


async def _place_copy(state: PlaceState, opened: Opened, written: Written) -> CopyReport:
    place, store_id = state.place, opened.document.store_id
    name = str(place.backup_path(store_id))
    present = _present(opened)
    try:
        finding = judge_backup_untrusted(
            await place.reach.call(place.read_backup, store_id), present
        )
        if finding.is_good:
            anchor_raw = await place.reach.call(place.read_anchor, store_id)
            finding = judge_anchor_untrusted(anchor_raw, written.anchor_raw, present)
    except StoreUnavailableError as error:
        return CopyReport(name, CopyFinding(CopyState.MISSING, error.message))
    if finding.state is CopyState.MISSING and state.fault:
        finding = CopyFinding(CopyState.MISSING, state.fault)
    return CopyReport(name, finding)


def _present(opened: Opened) -> Present:
    return Present(opened.document, opened.ring.root, opened.ring.auth)
