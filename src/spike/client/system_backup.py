"""The client's calls on system backups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from spike.client.caller import KEY_TIMEOUT_S
from spike.client.password import PasswordCaller, PasswordFor
from spike.wire import call as calls
from spike.wire.message import Empty
from spike.wire.own import RestoreAnswer
from spike.wire.reset import FactoryResetAnswer, FactoryResetRequest
from spike.wire.system_backup import (
    RestoreUndoAnswer,
    SystemBackupCreateAnswer,
    SystemBackupCreateRequest,
    SystemBackupReadRequest,
    SystemBackupReceiveAnswer,
    SystemBackupReceiveRequest,
    SystemRestoreRequest,
)

PART_BYTES: Final = 512 << 10
"""How much of a file goes with one request."""


@dataclass(frozen=True, slots=True)
class SystemBackupParts:
    """What of a system backup is needed to preview its restore: its key backup and its manifest."""

    backup: bytes
    manifest: bytes
    set_aside: bool


class SystemBackupCalls(PasswordCaller):
    """The part of `spike.client.nexus.NexusClient` that is about system backups."""

    def begin_system_backup(self, place: str = "") -> SystemBackupCreateAnswer:
        """Fix the moment of a system backup, for the superuser role. Read it at once: it does not wait for long.

        `place` tells the history where it will lie.

        Raises:
            RefusalError: BUSY, another one is being made.
        """
        return self._call(
            calls.SYSTEM_BACKUP_CREATE,
            SystemBackupCreateRequest(place),
            "system backup",
            KEY_TIMEOUT_S,
            repeatable=False,
        )

    def read_system_backup(self, session: str) -> Iterator[bytes]:
        """Give the file piece by piece.

        Raises:
            RefusalError: EXPIRED, it was read too slowly.
        """
        part, last = 0, False
        while not last:
            request = SystemBackupReadRequest(session, part)
            # Repeatable: the part that was read last is given again.
            answer = self._read(calls.SYSTEM_BACKUP_READ, request, "system backup")
            yield answer.data
            part, last = part + 1, answer.last

    def preview_system_restore(
        self,
        secret: PasswordFor,
        anchor: bytes,
        parts: SystemBackupParts,
        *,
        accept_older: bool = False,
    ) -> RestoreAnswer:
        """Open the keys of a system backup and show what would be brought up, changing nothing.

        The other arguments are those of `preview_restore`.

        Raises:
            RefusalError: with the reason, such as a store that is not empty.
        """
        session, sealed = self._seal(secret.password)
        request = SystemRestoreRequest(
            session=session,
            sealed_password=sealed,
            slot_name=secret.slot_name,
            anchor=anchor,
            backup=parts.backup,
            manifest=parts.manifest,
            accept_older_store=accept_older,
            set_aside=parts.set_aside,
        )
        return self._call(
            calls.OPERATOR_RESTORE_SYSTEM, request, "restore", KEY_TIMEOUT_S, repeatable=False
        )

    def send_system_backup(
        self, confirm: str, pieces: Iterable[bytes]
    ) -> Iterator[SystemBackupReceiveAnswer]:
        """Bring the file of a restore whose preview named `confirm`; give the answer to each piece.

        A piece has at most PART_BYTES. With the answer to the last one the store is up.

        Raises:
            RefusalError: with the reason. Nothing is served; the same restore can be begun again.
        """
        waiting = iter(pieces)
        piece, part = next(waiting, b""), 0
        while True:
            following = next(waiting, None)
            request = SystemBackupReceiveRequest(confirm, part, piece, last=following is None)
            # Repeatable: a part that comes once more is answered as before.
            yield self._call(
                calls.SYSTEM_BACKUP_RECEIVE, request, "restore", KEY_TIMEOUT_S, repeatable=True
            )
            if following is None:
                return
            piece, part = following, part + 1

    def undo_restore(self) -> RestoreUndoAnswer:
        """Put back what the last restore from a system backup has set aside.

        Raises:
            RefusalError: NOTHING_ASIDE.
        """
        return self._call(
            calls.OPERATOR_RESTORE_UNDO, Empty(), "undo", KEY_TIMEOUT_S, repeatable=False
        )

    def ask_factory_reset(self, store_id: str = "") -> FactoryResetAnswer:
        """Return what a factory reset would lose, and the phrase for it. Changes nothing.

        `store_id` names a store whose records are gone already.

        Raises:
            RefusalError: with the reason, such as that there is nothing to reset.
        """
        request = FactoryResetRequest("", store_id)
        return self._call(
            calls.OPERATOR_FACTORY_RESET, request, "factory reset", KEY_TIMEOUT_S, repeatable=False
        )

    def factory_reset(self, phrase: str, store_id: str = "") -> FactoryResetAnswer:
        """Erase the store, with the phrase that `ask_factory_reset` gave.

        Raises:
            RefusalError: EXPIRED, it is another phrase. Nothing was changed.
        """
        request = FactoryResetRequest(phrase, store_id)
        return self._call(
            calls.OPERATOR_FACTORY_RESET, request, "factory reset", KEY_TIMEOUT_S, repeatable=False
        )
