"""One pass over everything stored: census and full check at once, from the stored bytes.

    keyring ─► wrapped keys ─► access list and policies ─► history ─► secrets ─► all other kinds

Pages are small and nothing is kept of a record that was good, so memory does not grow with the store. Requests go on
meanwhile, and what looks wrong is looked at again before it is called so.

Not looked at: keyrings that a restore kept aside, which are copies of no store that is in force, and records that a
re-encryption has set aside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from spike.crypto.record import WRAPPED_KEY
from spike.lifecycle.census import BadReason, Finding, Tally
from spike.lifecycle.keyring import WrappedKey
from spike.lifecycle.state import State
from spike.nexus.history_check import HistoryCheck
from spike.nexus.opened import Opened, Stop
from spike.nexus.pace import Pace
from spike.nexus.record_check import READ_ATTEMPTS, SEALED_KINDS, header_generation
from spike.nexus.right_check import RightCheck
from spike.nexus.sealed import SealedStore
from spike.nexus.secret_check import SecretCheck
from spike.nexus.vault import KEYRING_ID, Vault
from spike.nexus.verification_scan import Scan
from spike.storage.protocol import (
    ACCESS_LIST,
    HISTORY,
    KEYRING,
    POLICY,
    SECRET,
    SECRET_META,
    SET_ASIDE,
    Kind,
    Record,
)

_FITTED: Final = frozenset({ACCESS_LIST, POLICY, HISTORY, SECRET, SECRET_META})
"""Kinds whose records are also held against each other."""
_UNREAD: Final = frozenset({KEYRING, SET_ASIDE})
"""Kinds whose records are kept and not read."""


class VerificationPass:
    """One pass. Its tally may be looked at while it runs."""

    def __init__(
        self, vault: Vault, tally: Tally, sealed: Callable[[], SealedStore] | None = None
    ) -> None:
        """`sealed`: what records are opened with, if not with all keys in force."""
        self._vault = vault
        self._tally = tally
        self._sealed = sealed
        self._unknown: dict[Kind, int] = {}

    async def expect(self) -> int:
        """Return how many records there are now to look at. Call it before `run`.

        Raises:
            StoreError: the store does not answer.
        """
        self._unknown = {}
        expected = 1 + len(_live(self._vault.opened))
        for (kind, _), count in (await self._vault.store.census()).items():
            if kind in _UNREAD:
                continue
            expected += count
            if kind not in SEALED_KINDS:
                self._unknown[kind] = self._unknown.get(kind, 0) + count
        return expected

    async def run(self) -> None:
        """Look at everything.

        Raises:
            StoreError: the store does not answer, or cannot be read on.
            NotReadyError: the vault was closed.
        """
        scan = Scan(self._vault, self._tally, Pace(), self._sealed)
        await self._look_at_keyring()
        self._look_at_wrapped_keys(self._vault.opened)
        await RightCheck(scan).run()
        await HistoryCheck(scan).run()
        await SecretCheck(scan).run()
        for kind in sorted(SEALED_KINDS - _FITTED):
            async for record in scan.records(kind):
                await scan.count(record)
        for kind, count in self._unknown.items():
            detail = f"{count} records of a kind that nothing of this version writes"
            finding = Finding(kind, "", "", BadReason.UNKNOWN_KIND, detail)
            self._tally.note_bad(finding, count)

    async def _look_at_keyring(self) -> None:
        """Count the keyring: what is stored must be, byte by byte, the one in force, which was authenticated."""
        for _ in range(READ_ATTEMPTS):
            await self._vault.settled()
            opened = self._vault.opened
            record = await self._vault.store.get(KEYRING_ID)
            finding = _keyring_finding(opened, record)
            if finding is None:
                self._tally.note_good()
                return
            # One that was just being replaced has been by the end of this wait.
            await self._vault.settled()
            if self._vault.opened is opened and Stop.UNSURE not in self._vault.stops:
                self._tally.note_bad(finding)
                return
        self._tally.note_good()

    def _look_at_wrapped_keys(self, opened: Opened) -> None:
        known = frozenset(root.number for root in opened.document.roots)
        for key in _live(opened):
            self._tally.note_generation(
                WRAPPED_KEY, header_generation(key.wrapped), known, len(key.wrapped)
            )
            wrong = opened.ring.unwrap_again(key)
            if wrong:
                name = f"{key.purpose}/{key.slot}/{key.number}"
                self._tally.note_bad(Finding(WRAPPED_KEY, name, "", BadReason.UNOPENABLE, wrong))
            else:
                self._tally.note_good()


def _live(opened: Opened) -> list[WrappedKey]:
    return [key for key in opened.document.keys if key.state is not State.DESTROYED]


def _keyring_finding(opened: Opened, record: Record | None) -> Finding | None:
    """Return what is wrong with the keyring as stored, held against the one in force."""
    root = opened.document.active_root.number
    if record is None:
        reason, detail = BadReason.MISSING, "the store holds no keyring; restore one from a backup"
    elif record.blob != opened.keyring_raw:
        reason, detail = BadReason.NOT_IN_FORCE, "it is not the keyring that Nexus works with"
    elif record.generation != root:
        reason, detail = BadReason.MISLABELED, f"its row says generation {record.generation}"
    else:
        return None
    return Finding(KEYRING_ID.kind, KEYRING_ID.key, "", reason, detail)
