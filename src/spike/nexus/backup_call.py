"""The calls of `/v1/backup` and `/v1/backup/slot`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from spike.error import NotReadyError, SpikeError
from spike.lifecycle import backup
from spike.lifecycle.backup_check import CopyFinding, CopyState
from spike.lifecycle.export import Copy, check_place
from spike.lifecycle.keyring import Slot
from spike.lifecycle.refusal import Reason, RefusalError
from spike.lifecycle.ring import confirms_root
from spike.lifecycle.slot_due import due_at, is_overdue, verified_by
from spike.lifecycle.slot_retired import still_opening
from spike.nexus.backup_watch import BackupReport, BackupWatch, CopyReport
from spike.nexus.export_note import note_export
from spike.nexus.handler import Handler, OnKey, Reading
from spike.nexus.opened import Opened, Stop
from spike.nexus.slot_flow import Shown, SlotDesk, SlotDone, SlotWish
from spike.nexus.slot_proof import SealedPassword
from spike.nexus.vault import Vault
from spike.policy.access import Extent, Grant
from spike.wire import call
from spike.wire.backup import (
    BackupCopy,
    BackupExportAnswer,
    BackupExportRequest,
    BackupSlot,
    BackupVerifyAnswer,
    BackupVerifyRequest,
    RetiredPassword,
    SlotAnswer,
    SlotListAnswer,
    SlotPasswordRequest,
    SlotRemoveRequest,
)
from spike.wire.call import CallName
from spike.wire.message import Empty, GoTime
from spike.wire.validate import check_slot_name

_log: Final = logging.getLogger("spike.nexus.backup")


class BackupCalls:
    """Handlers bound to one vault and the desks beside it."""

    def __init__(self, vault: Vault, slots: SlotDesk, watch: BackupWatch) -> None:
        self._vault = vault
        self._slots = slots
        self._watch = watch

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.SLOT_LIST.name: Reading(self.list),
            call.SLOT_ADD.name: OnKey(self.add),
            call.SLOT_CHANGE.name: OnKey(self.change),
            call.SLOT_REMOVE.name: OnKey(self.remove),
            call.BACKUP_VERIFY.name: OnKey(self.verify),
            call.BACKUP_EXPORT.name: Reading(self.export),
        }

    async def list(self, grant: Grant, opened: Opened, _asked: Empty) -> SlotListAnswer:
        """Tell every slot, what still opens with an old password, and what a change would take. Itself takes none."""
        return SlotListAnswer(
            slots=slots_of(opened, self._vault.moment()),
            retired=retired_of(opened),
            password_needed=grant.extent is not Extent.ALL,
        )

    async def add(self, grant: Grant, asked: SlotPasswordRequest) -> SlotAnswer:
        """Add a slot for a new password."""
        wish = _wish(grant, asked)
        return await self._answer(asked.slot, await self._slots.add(wish, _password(asked)))

    async def change(self, grant: Grant, asked: SlotPasswordRequest) -> SlotAnswer:
        """Give a slot a new password."""
        wish = _wish(grant, asked)
        return await self._answer(asked.slot, await self._slots.change(wish, _password(asked)))

    async def remove(self, grant: Grant, asked: SlotRemoveRequest) -> SlotAnswer:
        """Remove a slot."""
        return await self._answer(asked.slot, await self._slots.remove(_wish(grant, asked)))

    async def verify(self, grant: Grant, asked: BackupVerifyRequest) -> BackupVerifyAnswer:
        """Look at every copy; with a password, open each of them as a restore would."""
        report = await self._watch.verify()
        if not asked.session:
            return _verified(report)
        slot, wrong = await self._slots.verify(
            str(grant.peer),
            asked.slot,
            SealedPassword(asked.session, asked.sealed_password),
            self._watch.copies,
        )
        told = _verified(BackupReport(report.at, tuple(_opened(c, wrong) for c in report.copies)))
        return _replaced(told, slot)

    async def export(
        self, grant: Grant, _opened: Opened, asked: BackupExportRequest
    ) -> BackupExportAnswer:
        """Give a key backup of the present keyring; the history tells that it left."""
        check_place(asked.place)
        await note_export(self._vault, Copy.KEY_BACKUP, asked.place, str(grant.peer))
        opened = self._vault.opened
        document, root = opened.document, opened.ring.root
        # A backup made with a root key that is not the right one must not replace a good one anywhere.
        if not confirms_root(document, root):
            self._vault.stop_writes(Stop.WRONG_KEY)
            raise NotReadyError(f"no backup is made: {Stop.WRONG_KEY}")
        raw = backup.encode(
            opened.keyring_raw, opened.anchor_raw(), self._vault.moment(), document, root
        )
        return BackupExportAnswer(
            store_id=document.store_id,
            lineage=document.lineage,
            generation=document.active_root.number,
            epoch=document.epoch,
            revision=document.revision,
            backup=raw,
        )

    async def _answer(self, slot: str, done: SlotDone) -> SlotAnswer:
        """Tell a change that was made, also where its copies cannot be looked at just now: it stays made."""
        try:
            report = await self._watch.verify()
        except SpikeError as error:
            _log.warning(
                "slot %s was changed; its copies are looked at later: %s", slot, error.message
            )
            report = BackupReport(self._vault.moment(), ())
        return SlotAnswer(
            slot=slot,
            epoch=done.opened.document.epoch,
            anchor=self._vault.opened.anchor_raw(),
            copies=copies_of(report),
            rotation=done.rotation,
            rotation_due=done.rotation_due,
        )


def slots_of(opened: Opened, now: str) -> list[BackupSlot]:
    """Return every slot as it is told on the wire."""
    return [
        BackupSlot(
            name=slot.name,
            kind=slot.kind.value,
            state="renew" if slot.renew else "usable",
            created_at=GoTime(slot.created_at),
            last_verified_at=GoTime(slot.verified_at),
            due_at=_due(slot),
            overdue=is_overdue(slot, now),
            last_verified_by=verified_by(opened.document, slot),
        )
        for slot in opened.document.slots
    ]


def retired_of(opened: Opened) -> list[RetiredPassword]:
    """Return what was retired and still opens a root key, as it is told on the wire."""
    return [
        RetiredPassword(each.name, each.kind.value, each.generation, GoTime(each.at))
        for each in still_opening(opened.document)
    ]


def copies_of(report: BackupReport) -> list[BackupCopy]:
    """Return how the copies are, as it is told on the wire."""
    return [
        BackupCopy(c.name, c.finding.state.value, c.finding.detail, c.rewritten)
        for c in report.copies
    ]


def _wish(grant: Grant, asked: SlotPasswordRequest | SlotRemoveRequest) -> SlotWish:
    check_slot_name(asked.slot)
    shown = None
    if asked.existing_session:
        password = SealedPassword(asked.existing_session, asked.existing_password)
        shown = Shown(asked.existing_slot, password)
    elif grant.extent is not Extent.ALL:
        raise RefusalError(
            Reason.PASSWORD_NEEDED,
            "without the recover role this takes an existing slot's password too",
            "name the slot whose password you have: --with-slot NAME",
        )
    return SlotWish(str(grant.peer), asked.slot, shown, rotate=not asked.no_rotate)


def _password(asked: SlotPasswordRequest) -> SealedPassword:
    return SealedPassword(asked.session, asked.sealed_password)


def _verified(report: BackupReport) -> BackupVerifyAnswer:
    return BackupVerifyAnswer(at=GoTime(report.at), good=report.is_good, copies=copies_of(report))


def _opened(copy: CopyReport, wrong: Mapping[str, str]) -> CopyReport:
    """Add what the password found to what was found without it."""
    told = wrong.get(copy.name, "")
    if not copy.finding.is_good or not told:
        return copy
    return replace(copy, finding=CopyFinding(CopyState.UNOPENED, told))


def _replaced(told: BackupVerifyAnswer, slot: Slot) -> BackupVerifyAnswer:
    return BackupVerifyAnswer(told.at, told.good, told.copies, slot.name, _due(slot))


def _due(slot: Slot) -> GoTime | None:
    due = due_at(slot)
    return None if due is None else GoTime(due)
