"""The calls that bring a store up from a system backup, and take that back."""

from __future__ import annotations

from collections.abc import Mapping

from spike.nexus.examination import Asked, SystemAsked
from spike.nexus.handler import Handler, OnKey
from spike.nexus.keeper_desk import KeeperDesk
from spike.nexus.key_call import preview_answer
from spike.nexus.password_desk import PasswordDesk
from spike.nexus.restore_flow import RestoreDesk, RestoreInput
from spike.nexus.restore_undo import undo
from spike.nexus.rotation_loop import RotationLoop
from spike.nexus.system_restore import SystemRestoreDesk
from spike.nexus.watch import MemoryWatch
from spike.policy.access import Grant
from spike.wire import call
from spike.wire.call import CallName
from spike.wire.message import Empty
from spike.wire.own import RestoreAnswer
from spike.wire.system_backup import (
    RestoreUndoAnswer,
    SystemBackupReceiveAnswer,
    SystemBackupReceiveRequest,
    SystemRestoreRequest,
)


class SystemRestoreCalls:
    """Handlers bound to one vault and the desks beside it."""

    def __init__(
        self,
        keepers: KeeperDesk,
        passwords: PasswordDesk,
        restores: RestoreDesk,
        desk: SystemRestoreDesk,
        *,
        watch: MemoryWatch,
        rotations: RotationLoop,
    ) -> None:
        self._keepers = keepers
        self._passwords = passwords
        self._restores = restores
        self._desk = desk
        self._watch = watch
        self._rotations = rotations

    def handlers(self) -> Mapping[CallName, Handler]:
        """Return the handler of each call served here."""
        return {
            call.OPERATOR_RESTORE_SYSTEM.name: OnKey(self.preview),
            call.SYSTEM_BACKUP_RECEIVE.name: OnKey(self.receive),
            call.OPERATOR_RESTORE_UNDO.name: OnKey(self.undo),
        }

    async def preview(self, grant: Grant, asked: SystemRestoreRequest) -> RestoreAnswer:
        """Open the keys of a system backup with a password, and change nothing."""
        actor = str(grant.peer)
        session = self._passwords.take(asked.session, actor)
        try:
            preview = await self._restores.preview(
                session,
                RestoreInput(
                    sealed_password=asked.sealed_password,
                    slot_name=asked.slot_name,
                    asked=Asked(
                        backup=asked.backup,
                        anchors=(asked.anchor,) if asked.anchor else (),
                        actor=actor,
                        accept_older=asked.accept_older_store,
                        system=SystemAsked(asked.manifest, asked.set_aside),
                    ),
                ),
            )
        finally:
            await session.close()
        return preview_answer(preview)

    async def receive(
        self, grant: Grant, asked: SystemBackupReceiveRequest
    ) -> SystemBackupReceiveAnswer:
        """Take a part of its file."""
        actor = str(grant.peer)
        got = await self._desk.receive(actor, asked.confirm, asked.part, asked.data, asked.last)
        opened = got.opened
        if opened is not None:
            self._watch.look()
        return SystemBackupReceiveAnswer(
            received_bytes=got.bytes_so_far,
            restored=opened is not None,
            aside=got.aside or None,
            lineage=None if opened is None else opened.document.lineage,
            anchor=None if opened is None else opened.anchor_raw(),
            rotation=got.rotation or None,
        )

    async def undo(self, grant: Grant, _asked: Empty) -> RestoreUndoAnswer:
        """Put back what the last restore has set aside."""
        undone = await undo(self._keepers, self._rotations, str(grant.peer))
        return RestoreUndoAnswer(
            state=undone.phase.value,
            store_id=undone.store_id or None,
            lineage=undone.lineage or None,
            aside=undone.aside or None,
        )
