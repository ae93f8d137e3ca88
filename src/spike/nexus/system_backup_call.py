"""The calls on system backups."""

from __future__ import annotations

from collections.abc import Mapping

from spike.lifecycle.export import check_place
from spike.nexus.handler import Handler, OnKey
from spike.nexus.system_backup_desk import SystemBackupDesk
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.system_backup import (
    SystemBackupCreateAnswer,
    SystemBackupCreateRequest,
    SystemBackupReadAnswer,
    SystemBackupReadRequest,
)


class SystemBackupCalls:
    """Handlers bound to one desk."""

    def __init__(self, desk: SystemBackupDesk) -> None:
        self._desk = desk

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.SYSTEM_BACKUP_CREATE.name: OnKey(self.create),
            call.SYSTEM_BACKUP_READ.name: OnKey(self.read),
        }

    async def create(
        self, grant: Grant, asked: SystemBackupCreateRequest
    ) -> SystemBackupCreateAnswer:
        """Begin a backup of this moment; the history tells that it leaves."""
        check_place(asked.place)
        begun = await self._desk.begin(str(grant.peer), asked.place)
        document = begun.opened.document
        return SystemBackupCreateAnswer(
            session=begun.session,
            store_id=document.store_id,
            lineage=document.lineage,
            epoch=document.epoch,
            revision=document.revision,
            size_bytes=begun.size_bytes,
        )

    async def read(self, grant: Grant, asked: SystemBackupReadRequest) -> SystemBackupReadAnswer:
        """Give a part of it."""
        part = await self._desk.read(str(grant.peer), asked.session, asked.part)
        return SystemBackupReadAnswer(data=part.data, last=part.last)
